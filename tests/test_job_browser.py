"""The page of a job in a real browser: it moves on by itself, says what went wrong, and comes back after the services did."""

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from contracts.job_folder import JobFolder
from tests.clicks import free_ports, in_a_browser, press, services, watched_page
from tests.conftest import draw_dataset, wait_for

pytestmark = in_a_browser
MAJORITY = "majority/majority/none"
LONG = 10_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates", pictures=8)
    return home


def train(address: str, name: str, epochs: int, dataset: str = "plates", **settings: object) -> None:
    asked = {"dataset": dataset, "network": MAJORITY, "name": name, "set.epochs": str(epochs), "validation": "34", "seed": "3"}
    answer = httpx.post(
        f"{address}/train", data={**asked, **{f"set.{key}": str(value) for key, value in settings.items()}}, trust_env=False, timeout=60
    )
    assert answer.status_code == 303, answer.text


def press_stop(address: str, name: str) -> None:
    assert httpx.post(f"{address}/jobs/{name}/stop", data={"keep_best": "true"}, trust_env=False, timeout=30).status_code == 303
    wait_for(lambda: finished(address, name), 60)


def finished(address: str, name: str) -> bool:
    return 'data-state="finished"' in httpx.get(f"{address}/jobs/{name}", trust_env=False, timeout=30).text


def test_the_page_follows_a_training_with_curves_pictures_and_log(page: Page, address: str):
    train(address, "follows", LONG)
    page.goto("/jobs/follows")
    expect(page.locator("svg.chart [data-line=mIoU] circle").first).to_be_visible(timeout=60_000)
    expect(page.locator("svg.chart text.mark")).to_contain_text("best 0.")
    epochs = page.locator("[data-live=epoch]")
    before = epochs.inner_text()
    expect(epochs).not_to_have_text(before, timeout=30_000)
    expect(page.get_by_text("everywhere so far")).to_be_visible()
    expect(page.locator("[data-live=memory]")).to_contain_text("memory")
    expect(page.locator("[data-log]")).to_contain_text("epoch 2 of 10000")
    expect(page.locator("[data-size]")).not_to_have_text(re.compile(r"^0\s"))
    slider = page.locator(".epochs input")
    slider.evaluate("input => { input.value = 0; input.dispatchEvent(new Event('input')); }")
    expect(page.locator(".epochs output")).to_have_text("1")
    expect(page.locator("img[data-estimate]")).to_have_attribute("src", "/jobs/follows/previews/epoch-0001-0.png")
    wrong = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data].includes(220)"
    wait_for(lambda: page.locator("canvas[data-wrong]").evaluate(wrong), 10)  # the pads that it does not see are red
    assert page.locator(".epochs output").inner_text() == "1", "who looks at an early epoch is not taken away from it"
    page.locator("[data-smooth]").check()
    expect(page.locator("polyline.raw").first).to_be_attached()
    page.locator("svg.chart").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout")).to_contain_text("mIoU 0.")
    whole = page.get_by_role("button", name="Whole")
    page.keyboard.press("+")
    expect(whole).to_be_visible()
    page.keyboard.press("0")
    expect(whole).to_be_hidden()
    page.locator("svg.chart").scroll_into_view_if_needed()
    box = page.locator("svg.chart").bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    before = epochs.inner_text()
    expect(epochs).not_to_have_text(before, timeout=30_000)  # news come while the pointer is down
    expect(page.locator("rect.brush")).to_have_attribute("visibility", "visible")
    page.mouse.up()
    expect(whole).to_be_visible()
    stage = page.locator("#previews .stage").first
    stage.focus()
    page.keyboard.press("+")
    expect(stage).to_have_class(re.compile("zoomed"))
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator(".epochs output").inner_text() == "1", "with Shift the arrow moves the picture"
    page.keyboard.press("0")
    expect(stage).not_to_have_class(re.compile("zoomed"))
    press(page, "Stop, keep best")
    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=60_000)


def test_two_browsers_see_the_same_job_and_what_one_does_the_other_is_shown(browser: Browser, address: str):
    train(address, "shared", LONG)
    with watched_page(browser, address) as mine, watched_page(browser, address) as theirs:
        for page in (mine, theirs):
            page.goto("/jobs/shared")
            expect(page.get_by_role("button", name="Stop, keep best")).to_be_enabled(timeout=60_000)
        mine.get_by_text("Stop…").click()
        press(mine, "Stop without a model")
        expect(theirs.get_by_role("button", name="Resume")).to_be_visible(timeout=60_000)
        expect(theirs.locator(".state")).to_have_text("stopped")
        press(mine, "Resume")
        expect(mine.get_by_role("button", name="Stop, keep best")).to_be_visible(timeout=60_000)
        theirs.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # looked at again
        expect(theirs.get_by_role("button", name="Stop, keep best")).to_be_visible(timeout=60_000)
        expect(theirs.locator("[data-live=epoch]")).to_contain_text("of 10000", timeout=60_000)
        press(mine, "Stop, keep best")
        expect(theirs.get_by_role("link", name="Try the model")).to_be_visible(timeout=60_000)


def test_a_page_that_may_not_follow_a_job_because_too_many_do_still_moves_on(browser: Browser, tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates", pictures=8)
    with services(tmp_path, {**free_ports(), "STREAMS": "1"}) as address:
        train(address, "crowded", LONG)
        with httpx.stream("GET", f"{address}/jobs/crowded/events", trust_env=False, timeout=60) as first:
            assert first.status_code == 200
            with browser.new_page(base_url=address) as page:  # whose console says that its streams were refused
                page.goto("/jobs/crowded")
                epochs, log = page.locator("[data-live=epoch]"), page.locator("[data-log]")
                expect(epochs).to_contain_text("of 10000", timeout=60_000)
                before, printed = epochs.inner_text(), log.inner_text()
                expect(epochs).not_to_have_text(before, timeout=60_000)
                expect(log).not_to_have_text(printed, timeout=60_000)
                expect(page.locator("svg.chart [data-line=mIoU] circle").first).to_be_visible(timeout=60_000)
                expect(page.locator("[data-lost]")).to_be_hidden()
        press_stop(address, "crowded")


def test_a_job_that_fails_shows_cause_and_cure_on_the_open_page_and_opens_on_them(page: Page, address: str, home: Path):
    folder = draw_dataset(home / "datasets" / "fleeting", pictures=8)
    train(address, "fails", LONG, "fleeting")
    page.goto("/jobs/fails")
    expect(page.locator("svg.chart")).to_be_visible(timeout=60_000)
    for picture in (folder / "images").iterdir():
        picture.write_bytes(b"no picture any more")
    note = page.locator("#head .note.failed")
    expect(note).to_be_visible(timeout=60_000)
    expect(note.locator(".cause")).not_to_be_empty()
    expect(note.locator(".cure")).not_to_be_empty()
    expect(note.locator("pre.log")).to_contain_text("cannot identify image file")
    page.goto("/jobs/fails")
    assert note.bounding_box()["y"] < page.locator(".job-grid").bounding_box()["y"]


def test_a_long_log_is_paged_searched_and_followed_by_its_end(page: Page, address: str, home: Path):
    train(address, "wordy", 2)
    wait_for(lambda: finished(address, "wordy"), 60)
    with open(JobFolder(home / "checkpoints" / "wordy").log_file, "a") as log:
        log.writelines(f"step {number}\n" for number in range(300_000))
    page.goto("/jobs/wordy")
    log = page.locator("[data-log]")
    expect(log).to_contain_text("step 299999")
    assert log.inner_text().count("\n") < 1000
    log.evaluate("pane => (pane.scrollTop = 0)")
    expect(log).to_contain_text("step 298700")  # earlier lines come as one scrolls up
    page.locator("[data-search]").fill("STEP 1234")
    expect(page.locator(".hits button")).to_have_count(111)
    page.locator(".hits button").first.click()
    expect(log).to_contain_text("step 1233\nstep 1234\nstep 1235")
    for last in ("step 2500", "step 3500"):
        log.evaluate("pane => (pane.scrollTop = pane.scrollHeight)")
        expect(log).to_contain_text(last)  # later lines come as one scrolls down
    page.locator("[data-follow]").check()
    expect(log).to_contain_text("step 299999")
    with page.expect_download() as download:
        page.locator("a[download='wordy.log']").click()
    assert download.value.path().stat().st_size > 3_000_000


def test_deleting_can_be_undone_where_it_is_said(page: Page, address: str):
    train(address, "precious", 2)
    wait_for(lambda: finished(address, "precious"), 60)
    page.goto("/jobs/precious")
    page.get_by_text("Delete…").click()
    press(page, "Delete precious")
    page.wait_for_url("**/jobs")
    expect(page.get_by_text("It can be brought back until")).to_be_visible()
    press(page, "Undo")
    page.wait_for_url("**/jobs/precious")
    expect(page.get_by_role("link", name="Try the model")).to_be_visible()


def test_chosen_jobs_are_compared_with_curves_settings_results_and_pictures(page: Page, address: str):
    for name, epochs in (("one", 2), ("two", 3)):
        train(address, name, epochs)
    wait_for(lambda: finished(address, "one") and finished(address, "two"), 60)
    page.goto("/jobs?search=plates")
    for name in ("one", "two"):
        page.locator(f"input[name=job][value={name}]").check()
    page.wait_for_timeout(4500)  # the list came anew meanwhile
    press(page, "Compare the chosen ones")
    page.wait_for_url("**/compare?job=*")
    assert page.locator("svg.chart [data-line]").count() == 8  # two jobs, two panels: a line and a label each
    page.locator("[data-figure]").select_option("class pad")
    expect(page.locator("svg.chart .title").first).to_contain_text("IoU of pad")
    page.locator("[data-over]").select_option("minutes")
    expect(page.locator("svg.chart")).to_contain_text("min")
    expect(page.locator("section", has_text="Settings that differ").locator("tr", has_text="epochs").first).to_contain_text("2")
    panes = page.locator(".same").first.locator(".pane")
    assert panes.count() == 3
    assert panes.nth(2).locator("img.over").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.locator(".legend [data-class='1']").hover()
    masks = page.locator(".same img.over").count()
    assert masks > 3
    expect(page.locator(".same img.over[src^='data:']")).to_have_count(masks)  # one legend dims them all


def test_the_open_page_comes_back_when_the_services_do(browser: Browser, tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates", pictures=8)
    ports = free_ports()
    address = f"http://127.0.0.1:{ports['GUI_PORT']}"
    with watched_page(browser, address) as page:
        with services(tmp_path, ports):
            train(address, "survives", LONG)
            page.goto("/jobs/survives")
            expect(page.locator("svg.chart")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("The connection is lost. Trying again")).to_be_visible(timeout=30_000)
        with services(tmp_path, ports):
            expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=60_000)  # no reload: Ctrl-C had ended it
            expect(page.get_by_text("The connection is lost")).to_be_hidden()
            press(page, "Resume")
            expect(page.locator("[data-live=epoch]")).to_contain_text("of 10000", timeout=60_000)
            assert json.loads((tmp_path / "checkpoints" / "survives" / "last" / "progress.json").read_text())["epoch"] >= 1
