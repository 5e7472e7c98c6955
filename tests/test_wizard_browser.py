"""The wizard in a headless Chromium: what follows each choice as it is made, what Back keeps, and all of it without JavaScript."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from contracts.job_folder import JobFolder
from tests.clicks import choose_network, in_a_browser, press
from tests.conftest import draw_dataset, wait_for

pytestmark = in_a_browser
UNET, MAJORITY = "pytorch/unet/resnet18", "majority/majority/none"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates", pictures=10)
    draw_dataset(home / "datasets" / "two", pictures=2)
    (draw_dataset(home / "datasets" / "faulty") / "labels" / "p1.png").unlink()
    return home


def meaning(page: Page) -> Locator:
    return page.locator("#meaning")


def at(page: Page, step: str, network: str = UNET, more: str = "") -> None:
    page.goto(f"/train/{step}?dataset=plates&network={network}{more}")


def test_the_right_side_follows_the_share_the_seed_and_the_dataset(page: Page):
    page.goto("/train?dataset=plates")
    expect(meaning(page)).to_contain_text("8 teach 2 score")
    page.get_by_label("Kept aside").fill("50")
    expect(meaning(page)).to_contain_text("5 teach 5 score")
    page.get_by_label("Kept aside").fill("100")
    expect(page.locator("#validation-help")).to_contain_text("between 1 and 99")
    expect(page.get_by_label("Kept aside")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Kept aside").fill("20")
    expect(page.get_by_label("Kept aside")).not_to_have_attribute("aria-invalid", "true")
    page.locator("input[name=dataset][value=two]").check()
    expect(meaning(page)).to_contain_text("No picture that teaches shows")


def test_there_is_no_way_on_while_a_faulty_dataset_is_chosen(page: Page):
    on = page.get_by_role("button", name="Next: Settings")
    page.goto("/train?dataset=faulty")
    expect(on).to_be_disabled()
    page.locator("input[name=dataset][value=plates]").check()
    expect(on).to_be_enabled()
    page.locator("input[name=dataset][value=faulty]").check()
    expect(meaning(page)).to_contain_text("Pictures without a mask")
    expect(on).to_be_disabled()


def test_the_networks_are_sorted_where_they_stand(page: Page):
    at(page, "settings")
    page.get_by_label("sorted by").focus()
    page.get_by_label("sorted by").select_option("size")
    expect(page.locator("#networks details.group > summary").first).to_contain_text("All")
    expect(page.get_by_label("sorted by")).to_be_focused()
    expect(page.locator(f"input[value='{UNET}']")).to_be_checked()
    page.get_by_label("sorted by").select_option("")
    expect(page.locator("#networks summary").first).to_contain_text("Recommended for other cases")


def test_a_name_is_checked_as_it_is_typed(page: Page):
    at(page, "settings")
    name = page.locator("input[name=name]")
    expect(name).to_have_value("plates-1")
    name.press_sequentially(" & more")
    expect(page.locator("#name-help")).to_contain_text("Use 1 to 64 letters")
    expect(name).to_be_focused()
    name.fill("plates_of.mine")
    expect(page.locator("#name-help")).to_contain_text("The job and its model carry it.")


def test_another_network_brings_its_weights_its_time_and_its_place(page: Page):
    at(page, "settings")
    expect(page.get_by_text("Several processes")).to_be_visible()
    choose_network(page, MAJORITY)
    expect(meaning(page)).to_contain_text("moments")
    expect(page.locator("#where")).not_to_contain_text("Several processes")
    expect(page.locator("#weights-pre_trained")).to_have_count(0)
    expect(page.locator(f"input[value='{MAJORITY}']")).to_be_visible()  # the group that was opened is still open


def test_a_choice_is_followed_though_its_answer_was_lost_or_overtaken(page: Page):
    at(page, "settings")
    said = page.get_by_text("The connection is lost. Trying again")
    page.route("**/train/settings?*", lambda route: route.abort(), times=1)
    choose_network(page, MAJORITY)
    expect(said).to_be_visible()
    expect(page.locator("#where")).not_to_contain_text("Several processes")  # asked for again by itself
    expect(said).to_be_hidden()
    page.route("**/train/settings?*", lambda _route: None, times=1)  # it is never answered
    with page.expect_request("**/train/settings?*"):
        choose_network(page, UNET)
    page.locator("input[name=name]").fill("overtaken")
    expect(page.locator("#where")).to_contain_text("Several processes")


def test_what_a_setting_costs_and_whether_it_can_be_started_is_said_at_once(page: Page):
    at(page, "hyperparameters")
    memory = re.compile(r"Memory, about\s*\d+\s.B of")
    expect(meaning(page)).to_contain_text(memory)
    before = meaning(page).locator(".facts").inner_text()
    page.locator("#set-crop").fill("2048")
    expect(meaning(page).locator(".facts")).not_to_have_text(before, use_inner_text=True)
    page.locator("#set-batch_size").fill("512")
    expect(page.locator("#set-batch_size-help")).to_contain_text("are free on this machine")
    press(page, "Next: Review")
    expect(page.get_by_role("button", name="Start training")).to_be_disabled()
    press(page, "Change it")
    expect(page.locator("#set-crop")).to_have_value("2048")
    page.locator("summary", has_text="All others").click()
    page.locator("#set-fit_memory").select_option("on")
    page.locator("#set-crop").fill("64")
    press(page, "Next: Review")
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()


def test_back_loses_nothing_not_even_what_was_typed_a_moment_ago(page: Page):
    at(page, "settings", more="&name=mine&validation=30")
    page.get_by_text("Several processes").click()
    page.get_by_label("Processes").fill("2")
    press(page, "Back")
    expect(page.get_by_label("Kept aside")).to_have_value("30")
    page.get_by_label("Seed").fill("7")
    press(page, "4 Review")
    expect(page.locator("[data-copy]").first).to_contain_text("--processes 2 --validation-share 0.3 --seed 7")
    page.locator("input[name=name]").fill("other")
    expect(page.locator("[data-copy]").first).to_contain_text("--name other")
    expect(page.get_by_role("button", name="Copy").first).to_be_visible()
    page.reload()
    expect(page.locator("input[name=name]")).to_have_value("other")
    press(page, "Change the hyper-parameters")
    page.locator("#set-epochs").fill("3")
    page.locator("#set-epochs").press("Enter")  # goes on, not back
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()
    page.go_back()
    expect(page.locator("#set-epochs")).to_have_value("3")
    press(page, "2 Settings")
    expect(page.locator("input[name=name]")).to_have_value("other")
    expect(page.get_by_label("Processes")).to_have_value("2")


def test_without_javascript_the_wizard_leads_through_every_choice_to_a_started_job(browser: Browser, address: str, home: Path):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto("/train?dataset=faulty")
    press(page, "Next: Settings")  # not shut: the server says why it leads nowhere
    expect(page.get_by_text("Choose a dataset that can be trained on.")).to_be_visible()
    page.locator("input[name=dataset][value=two]").check()
    press(page, "Show what it holds")
    expect(meaning(page)).to_contain_text("No picture that teaches shows")
    page.locator("input[name=dataset][value=plates]").check()
    page.get_by_label("Kept aside").fill("40")
    press(page, "Show what it holds")
    expect(meaning(page)).to_contain_text("6 teach 4 score")
    press(page, "Next: Settings")
    page.locator("input[name=name]").fill("no spaces")
    choose_network(page, MAJORITY)
    press(page, "Next: Hyper-parameters")
    expect(page.locator("#name-help .fault")).to_be_visible()
    page.locator("input[name=name]").fill("plain")
    press(page, "Back")  # what was typed goes with it
    expect(page.get_by_label("Kept aside")).to_have_value("40")
    press(page, "Next: Settings")
    expect(page.locator("input[name=name]")).to_have_value("plain")
    press(page, "Next: Hyper-parameters")
    page.locator("#set-epochs").fill("0")
    press(page, "Next: Review")
    expect(page.locator("#set-epochs-help .fault")).to_be_visible()
    page.locator("#set-epochs").fill("2")
    press(page, "Next: Review")
    page.locator("input[name=name]").fill("no spaces")
    press(page, "Start training")
    expect(page.locator("#name-help .fault")).to_be_visible()
    page.locator("input[name=name]").fill("plain")  # and the button is not dead
    press(page, "Start training")
    page.wait_for_url("**/jobs/plain")
    job = JobFolder(home / "checkpoints" / "plain")
    asked = job.job()
    assert (asked.validation_share, asked.hyperparameters.epochs, asked.engine) == (0.4, 2, "majority")
    wait_for(lambda: job.model.is_dir(), 60)

    page.goto("/wizard?clone=plain")  # and its clone, as quickly
    assert page.locator("input[name=name]").input_value() == "plates-1"
    press(page, "Start training")
    page.wait_for_url("**/jobs/plates-1")
    again = json.loads((home / "checkpoints" / "plates-1" / "job.json").read_text())
    assert (again["validation_share"], again["hyperparameters"]["epochs"]) == (0.4, 2)
    context.close()
