"""A headless Chromium, and a person's way through the wizard with it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)")


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def watched_page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that may load from nowhere but the product; errors in its console fail the test."""
    page = browser.new_page(base_url=address)
    page.set_default_timeout(20_000)
    elsewhere: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else elsewhere.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.context.close()
    assert elsewhere == []
    assert errors == []


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def choose_network(page: Page, network: str) -> None:
    """On the wizard's second step; most networks are in groups that are opened first."""
    choice = page.locator(f"input[name=network][value='{network}']")
    choice.wait_for(state="attached")
    if not choice.is_visible():
        page.locator("details", has=choice).locator("summary").click()
    choice.check()


def start(page: Page, dataset: str, network: str, name: str, **settings: object) -> None:
    """Click through the wizard from the start page to the job's page."""
    page.goto("/")
    page.get_by_role("link", name="Train a model").first.click()
    page.locator(f"input[name=dataset][value={dataset}]").check()
    press(page, "Next: Settings")
    choose_network(page, network)
    press(page, "Next: Hyper-parameters")
    for details in page.locator("main details:not([open]) > summary").all():
        details.click()
    for key, value in settings.items():
        page.locator(f"[name='set.{key}']").fill(str(value))
    press(page, "Next: Review")
    page.locator("#name").fill(name)
    press(page, "Start training")
    page.wait_for_url(f"**/jobs/{name}")
