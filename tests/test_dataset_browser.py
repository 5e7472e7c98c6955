"""A person with pictures: headless Chromium brings a zip of labelme files, looks, cures a 255 and starts a training from it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from annotations.dataset import read_mask
from tests.clicks import choose_network, in_a_browser, press
from tests.conftest import draw_dataset, wait_for
from tests.test_dataset_pages import labelme_files, zipped

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates", pictures=60)
    return home


def choose(page: Page, files: dict[str, bytes]) -> None:
    page.goto("/datasets")
    page.get_by_role("link", name="Bring a dataset").click()
    page.wait_for_url("**/datasets/new", wait_until="load")
    chosen = [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files.items()]
    page.locator("input[type=file]").first.set_input_files(chosen)


def test_from_a_zip_of_labelme_files_to_a_training(page: Page, home: Path):
    choose(page, {"parts.zip": zipped(labelme_files(12))})
    expect(page.locator("#name")).to_have_value("parts")
    press(page, "Bring it")
    page.wait_for_url("**/datasets/parts?*")
    expect(page.get_by_text("Read as: labelme")).to_be_visible()
    expect(page.locator(".gallery a")).to_have_count(12)

    page.locator("[data-gallery] .opacity input").fill("100")
    mask = page.locator(".gallery img.over").first
    expect(mask).to_have_css("opacity", "1")
    whole = re.compile("overlays/p0")
    page.locator("[data-gallery] .legend li", has_text="wedge").hover()
    expect(mask).not_to_have_attribute("src", whole)
    page.get_by_role("heading", name="Pictures").hover()
    expect(mask).to_have_attribute("src", whole)

    file = home / "datasets" / "parts" / "labels" / "p3.png"
    drawn = read_mask(file)
    Image.fromarray(np.where(drawn > 0, 255, 0).astype(np.uint8)).save(file)  # as another tool writes it
    page.goto("/datasets/parts")
    page.get_by_role("link", name="Treat 255 as “ignore”").click()
    expect(page.get_by_text("Keeps the answer: 255 means “ignore”")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Change ")).click()
    expect(page.get_by_text("Done: Treat 255")).to_be_visible()
    expect(page.get_by_role("link", name="Treat 255 as “ignore”")).to_have_count(0)
    press(page, "Undo")
    expect(page.get_by_text("Undone")).to_be_visible()
    page.get_by_role("link", name="Treat 255 as “ignore”").click()
    page.get_by_role("button", name=re.compile("^Change ")).click()

    page.get_by_role("link", name="Train on it").click()
    press(page, "Next: Settings")
    choose_network(page, "majority/majority/none")
    press(page, "Next: Hyper-parameters")
    page.wait_for_url("**/train/hyperparameters**", wait_until="load")
    sheet = page.locator(".augmented img")
    before = sheet.get_attribute("src")
    page.locator("[name='set.crop']").fill("32")
    expect(sheet).not_to_have_attribute("src", str(before))
    wait_for(lambda: sheet.evaluate("image => image.complete && image.naturalWidth > 0"), 20)
    page.locator("[name='set.epochs']").fill("2")
    press(page, "Next: Review")
    press(page, "Start training")
    page.wait_for_url("**/jobs/parts-1")
    expect(page.get_by_text("finished").first).to_be_visible(timeout=60_000)


def test_an_upload_goes_on_past_a_broken_connection_and_a_pause(page: Page, home: Path):
    broken: list[str] = []

    def break_twice(route: Route) -> None:
        broken.append(route.request.url)
        if len(broken) in (2, 3):
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/uploads/*/files/*", break_twice)
    padding = np.random.default_rng(1).bytes(20_000_000)  # three pieces
    choose(page, {"big.zip": zipped({**labelme_files(), "padding.bin": padding})})
    expect(page.get_by_text("20 MB").first).to_be_visible()
    press(page, "Bring it")
    expect(page.get_by_text("The connection is lost. Trying again")).to_be_visible()
    press(page, "Pause")
    expect(page.get_by_text("paused")).to_be_visible()
    press(page, "Go on")
    page.wait_for_url("**/datasets/big?*", timeout=60_000)
    assert len(broken) >= 5, "three pieces and two that broke"
    offsets = [int(url.split("offset=")[1]) for url in broken]
    assert offsets[0] == 0
    assert 0 not in offsets[1:], "what had arrived was not sent again"


def test_an_upload_goes_on_after_the_page_was_closed(page: Page, tmp_path: Path):
    archive = tmp_path / "closed.zip"
    archive.write_bytes(zipped({**labelme_files(), "padding.bin": np.random.default_rng(2).bytes(20_000_000)}))
    page.on("dialog", lambda dialog: dialog.accept())  # that leaving the page breaks the upload off
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.route("**/files/0?offset=8000000", lambda route: route.abort("connectionreset"))
    page.goto("/datasets/new")
    page.locator("input[type=file]").first.set_input_files(archive)
    press(page, "Bring it")
    expect(page.get_by_text("The connection is lost")).to_be_visible()
    page.goto("/datasets/new")
    page.unroute_all()
    page.locator("input[type=file]").first.set_input_files(archive)
    press(page, "Bring it")
    page.wait_for_url("**/datasets/closed?*", timeout=60_000)
    assert sum("offset=0" in url for url in sent) == 1, "the first piece was sent once"


def test_a_folder_is_brought_as_it_is(page: Page, tmp_path: Path):
    folder = tmp_path / "my parts"
    folder.mkdir()
    for name, content in labelme_files().items():
        (folder / name).write_bytes(content)
    page.goto("/datasets/new")
    page.locator("input[webkitdirectory]").set_input_files(folder)
    expect(page.locator("#name")).to_have_value("my-parts")
    expect(page.get_by_text("8 files")).to_be_visible()
    press(page, "Bring it")
    page.wait_for_url("**/datasets/my-parts?*")
    expect(page.locator(".gallery a")).to_have_count(4)


def test_a_problem_is_answered_in_place_and_tried_again_without_sending(page: Page):
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    choose(page, {"odd.zip": b"no archive at all"})
    press(page, "Bring it")
    expect(page.locator(".note.failed .cause")).to_be_visible()
    assert len(sent) == 1
    page.locator("#name").fill("odd2")
    press(page, "Try again")
    expect(page.get_by_role("heading", name="odd2")).to_be_visible()
    assert len(sent) == 1


def test_the_gallery_filters_pages_and_opens_pictures(page: Page):
    page.goto("/datasets/plates")
    expect(page.locator(".gallery a")).to_have_count(48)
    page.get_by_role("link", name="Later").click()
    expect(page.locator(".gallery a")).to_have_count(12)
    expect(page.locator("[data-filters] [data-plain]")).to_be_hidden()  # the script is there: filters go by themselves
    page.locator("[data-filters] select[name=class]").select_option("2")
    page.wait_for_url("**class=2**")
    expect(page.locator(".gallery a")).to_have_count(30)
    page.locator(".gallery a").first.click()
    page.wait_for_url("**/pictures/**", wait_until="load")
    expect(page.get_by_text("1 of 30")).to_be_visible()
    with page.expect_navigation(wait_until="load"):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_text("2 of 30")).to_be_visible()
    over = page.locator(".stage img.over")
    whole = over.get_attribute("src")
    page.locator("figcaption .legend li", has_text="pad").hover()
    expect(over).not_to_have_attribute("src", str(whole))


def test_the_form_works_without_javascript(browser: Browser, address: str):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(20_000)
    choose(page, {"plain.zip": zipped(labelme_files())})
    press(page, "Bring it")
    wait_for(lambda: page.reload() and "/datasets/plain" in page.url, 60)
    assert page.locator(".gallery a").count() == 4
    context.close()
