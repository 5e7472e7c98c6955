"""A headless Chromium, and a person's way through the wizard with it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.waits import ROOT, free_port, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HEALTH = {"GUI_PORT": "/health", "SDK_PORT": "/v1/health", "INFERENCE_PORT": "/v1/health"}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)")
leaves_things_open = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""Playwright's driver and the services are processes; what they leave open is theirs."""
in_a_browser = [needs_chromium, leaves_things_open]
"""The marks of a module of tests that clicks."""


@contextmanager
def services(home: Path, ports: dict[str, str] | None = None) -> Iterator[str]:
    """The pages' address, of services that run over a folder of their own and are ended as Ctrl-C ends them."""
    ports = ports or free_ports()
    folders = {"DATASETS": str(home / "datasets"), "CHECKPOINTS": str(home / "checkpoints"), "TASK_PYTHON": sys.executable}
    up = subprocess.Popen([sys.executable, "-m", "cli", "up"], cwd=ROOT, env={**os.environ, **ports, **folders})
    url = f"http://127.0.0.1:{ports['GUI_PORT']}"
    try:
        wait_for(lambda: up.poll() is not None or answer(ports), 60)
        assert up.poll() is None, "the services did not start"
        yield url
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(timeout=60)
    assert up.returncode == 0
    assert not any(_answers(ports[name], path) for name, path in HEALTH.items())


def answer(ports: dict[str, str]) -> bool:
    """Whether all three do."""
    return all(_answers(ports[name], path) for name, path in HEALTH.items())


def free_ports() -> dict[str, str]:
    """Settings for services that may be started again at the same addresses."""
    return {name: str(free_port()) for name in ("SDK_PORT", "INFERENCE_PORT", "GUI_PORT")}


def _answers(port: str, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


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


def start(page: Page, dataset: str, network: str, name: str, nodes: str = "", **settings: object) -> None:
    """Click through the wizard from the start page to the job's page. `nodes`: so many of a cluster learn it together."""
    page.goto("./")  # of the address, which may have a path
    page.get_by_role("link", name="Train a model").first.click()
    page.locator(f"input[name=dataset][value={dataset}]").check()
    press(page, "Next: Settings")
    choose_network(page, network)
    if nodes:
        page.get_by_label("Nodes").fill(nodes)
    press(page, "Next: Hyper-parameters")
    for details in page.locator("main details:not([open]) > summary").all():
        details.click()
    for key, value in settings.items():
        page.locator(f"[name='set.{key}']").fill(str(value))
    press(page, "Next: Review")
    page.locator("#name").fill(name)
    press(page, "Start training")
    page.wait_for_url(f"**/jobs/{name}")
