"""Models and the self-test in a real browser: every button of a model's life is pressed, and the machine proves itself."""

import io
from pathlib import Path

import onnx
import pytest
from playwright.sync_api import Page, expect

from tests.clicks import in_a_browser, press
from tests.test_model_pages import packed

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_a_model_is_imported_retired_published_saved_deleted_and_brought_back(page: Page, tmp_path: Path):
    page.goto("/models")
    page.get_by_text("Import a model…").click()
    zipped = {"name": "bright.zip", "mimeType": "application/zip", "buffer": packed(tmp_path, "bright")}
    page.get_by_label("The model’s zip").set_input_files(zipped)
    press(page, "Import")
    page.wait_for_url("**/models/bright")
    press(page, "Retire")
    expect(page.get_by_text("This model is retired")).to_be_visible()
    expect(page.locator("main").get_by_role("link", name="Try it")).to_have_count(0)
    press(page, "Publish again")
    expect(page.locator("main").get_by_role("link", name="Try it")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="ONNX").click()
    assert download.value.suggested_filename == "bright.onnx"
    onnx.checker.check_model(onnx.load(io.BytesIO(download.value.path().read_bytes())))
    press(page, "Delete")
    page.wait_for_url("**/models")
    expect(page.get_by_text("The model bright is deleted.")).to_be_visible()
    expect(page.locator("article", has_text="bright")).to_have_count(0)
    press(page, "Undo")
    page.wait_for_url("**/models/bright")
    expect(page.locator("main").get_by_role("link", name="Try it")).to_be_visible()


def test_the_self_test_is_begun_by_its_button_and_seen_to_end_well(page: Page):
    page.goto("/machine")
    press(page, "Test majority")
    page.wait_for_url("**/machine/self-test/*")
    expect(page.get_by_text("Everything works, from the dataset to a served mask.")).to_be_visible(timeout=120_000)  # no reload
    expect(page.locator(".trial li.good")).to_have_count(page.locator(".trial li").count())
    expect(page.locator(".trial li", has_text="Serving")).to_contain_text("A mask of 256 × 192 pixels")
    page.get_by_role("link", name="Its job and log").click()
    expect(page.locator(".state").first).to_have_text("finished")
    page.go_back()
    press(page, "Remove its job and model")
    page.wait_for_url("**/machine")
