"""Every page for those who see little, hear it read, or use the keyboard alone: axe-core finds nothing serious, light and dark."""

import re
from collections.abc import Iterator

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from contracts.events import Failed, Stage
from tests.clicks import in_a_browser, services
from tests.conftest import draw_dataset, wait_for
from tests.test_job_page import written_job
from tests.test_model_pages import packed

pytestmark = in_a_browser
MAJORITY = "dataset=plates&network=majority/majority/none"
PAGES = (
    *("/", "/datasets", "/datasets/plates", "/datasets/faulty", "/datasets/plates/pictures/p0", "/datasets/new"),
    *("/train", "/train/settings?dataset=plates", f"/train/hyperparameters?{MAJORITY}", f"/train/review?{MAJORITY}"),
    *(f"/train/review?{MAJORITY}&set.epochs=0", f"/train/review?{MAJORITY}&name=a%20b", "/train/settings?dataset=plates&network=none"),
    *("/jobs", "/queue", "/jobs/common", "/jobs/broke", "/compare?job=common", "/compare?job=common&job=bright"),
    *("/models", "/models/common", "/models/bright"),
    *("/models/common/try", "/models/bright/try", "/models/common/try?stem=STEM&against=bright"),
    *("/machine", "/machine/self-test/common", "/machine/disk?failed_days=1", "/machine/tokens", "/nothing"),
)
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates")
    draw_dataset(home / "datasets" / "faulty")
    (home / "datasets" / "faulty" / "labels" / "p1.png").unlink()
    written_job(home / "checkpoints", "broke", [Stage(state="training", stage="training"), Failed(cause="It broke.", cure="Mend it.")])
    with services(home) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        fields = {"dataset": "plates", "network": "majority/majority/none", "validation": "20", "seed": "0", "name": "common"}
        assert client.post("/train", data=fields).status_code == 303
        assert client.post("/models/import", files={"file": ("bright.zip", packed(home / "aside", "bright"))}).status_code == 303
        wait_for(lambda: client.get("/models/common").is_success)
        yield address


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Page:
    return browser.new_page(base_url=address, reduced_motion="reduce")


def grave_findings(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{row['id']}: {row['help']}: {row['nodes'][0]['html'][:160]}" for row in found if row["impact"] in GRAVE]


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious_on_a_page_light_and_dark(page: Page, path: str):
    if "STEM" in path:
        page.goto("/models/common/try")
        path = path.replace("STEM", re.search(r"stem=(\w+)", page.content())[1])
    page.goto(path)
    page.evaluate("document.querySelectorAll('main details').forEach(details => (details.open = true))")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grave = grave_findings(page)
        assert not grave, f"{path}, {scheme}:\n" + "\n".join(grave)


def test_axe_does_find_what_is_wrong(page: Page):
    page.goto("/machine")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=x><p style=\"color: #888\">words</p>')")
    page.emulate_media(color_scheme="light")
    assert [finding.partition(":")[0] for finding in grave_findings(page)] == ["color-contrast", "image-alt"]


@pytest.mark.parametrize("width", [390, 2560])
def test_no_page_is_wider_than_its_window(page: Page, width: int):
    page.set_viewport_size({"width": width, "height": 900})
    wider = {}
    for path in PAGES:
        if "STEM" not in path:
            page.goto(path)
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            wider |= {path: over} if over > 0 else {}
    assert not wider, "these can be scrolled sideways, by so many pixels"


def test_the_keyboard_comes_to_the_page_and_sees_where_it_is(page: Page):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto("/models")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the page")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    inside = "document.querySelector('main').contains(document.activeElement)"
    assert page.evaluate(inside)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
