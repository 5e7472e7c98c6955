"""A person at the pages: headless Chromium clicks through the wizard to an overlay, on the services as `maskwright up` starts them."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from annotations.dataset import read_mask
from tests.clicks import in_a_browser, press, start
from tests.conftest import ROOT, draw_dataset, wait_for

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates", pictures=8)
    draw_dataset(home / "datasets" / "broken")
    (home / "datasets" / "broken" / "labels" / "p1.png").unlink()
    return home


def test_clicking_through_the_wizard_to_an_overlay(page: Page, address: str, tmp_path: Path):
    small = {"epochs": "2", "crop": "32", "short_side": "48", "crops_per_picture": "2", "batch_size": "4"}
    start(page, "plates", "pytorch/unet/resnet18", "clicked", **small)
    expect(page.get_by_role("heading", name="clicked")).to_be_visible()
    expect(page.get_by_text("finished").first).to_be_visible(timeout=180_000)  # no reload: the page follows the job
    expect(page.locator("[data-curves] svg.chart [data-line=mIoU]").first).to_be_visible()  # drawn live
    expect(page.get_by_text("epoch 2 of 2").first).to_be_visible()
    assert page.locator("img[src*='previews/epoch-0002']").count() >= 1

    page.goto("/models")
    with page.expect_download() as download:
        page.locator("a[href*='/models/clicked/download']").first.click()
    download.value.save_as(tmp_path / "clicked.zip")
    page.goto("/models/clicked/try")
    picture = next((ROOT / "datasets" / "dummy_dataset" / "images").iterdir())
    page.locator("input[type=file]").set_input_files(picture)
    if page.get_by_role("button", name="See what it finds").is_visible():
        press(page, "See what it finds")
    overlay = page.locator("#answer img.over").first
    expect(overlay).to_be_visible(timeout=30_000)
    assert overlay.evaluate("image => image.naturalWidth") == 256

    out = tmp_path / "mask.png"
    command = [sys.executable, "-m", "cli", "predict", str(tmp_path / "clicked.zip"), str(picture), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    url = f"{address}/models/clicked/predict?answer=mask"
    served = httpx.post(url, files={"picture": picture.read_bytes()}, timeout=60, trust_env=False)
    (tmp_path / "served.png").write_bytes(served.content)
    assert (read_mask(out) == read_mask(tmp_path / "served.png")).all()  # the downloaded model gives the masks of the served one


def test_the_wizard_works_without_javascript(browser: Browser, address: str):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(20_000)
    start(page, "plates", "majority/majority/none", "plain", epochs="2")
    wait_for(lambda: page.reload() and "finished" in page.locator("main").inner_text(), 60)
    context.close()


def test_a_job_can_be_stopped_and_deleted_on_its_page(page: Page):
    start(page, "plates", "majority/majority/none", "long", epochs="10000")
    page.get_by_text("Stop…").click()
    expect(page.get_by_role("button", name="Stop, keep best")).to_be_enabled(timeout=60_000)  # the buttons came anew meanwhile
    press(page, "Stop without a model")  # and the menu stayed open
    expect(page.get_by_text("Delete…")).to_be_visible(timeout=60_000)  # offered once it has ended
    expect(page.get_by_text("stopped").first).to_be_visible()
    page.get_by_text("Delete…").click()
    press(page, "Delete long")
    page.wait_for_url("**/jobs")
    expect(page.locator("a.row[href$='/jobs/long']")).to_have_count(0)


def test_a_broken_dataset_shows_the_file_and_the_cure(page: Page):
    page.goto("/datasets/broken")
    expect(page.get_by_text("images/p1.png")).to_be_visible()
    expect(page.get_by_text("Add labels/p1.png")).to_be_visible()
