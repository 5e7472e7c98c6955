"""Pages behind a token in a real browser: a session that ends leads to the login and back, and the calls to copy carry the token."""

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.clicks import in_a_browser, press, services, watched_page
from tests.conftest import draw_dataset
from tests.test_accessibility import grave_findings
from tests.test_model_pages import packed
from tests.test_try_it import grey

pytestmark = in_a_browser
TOKEN = "open-sesame-of-forty-thieves"
OWNERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOKEN", TOKEN)
        with services(home) as address, httpx.Client(base_url=address, headers=OWNERS, trust_env=False, timeout=60) as client:
            fields = {"dataset": "plates", "network": "majority/majority/none", "name": "long", "set.epochs": "10000"}
            assert client.post("/train", data={**fields, "validation": "20", "seed": "0"}).status_code == 303
            assert client.post("/models/import", files={"file": ("bright.zip", packed(home / "aside", "bright"))}).status_code == 303
            yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with watched_page(browser, address) as page:
        page.goto("/login")
        log_in(page)
        yield page


def log_in(page: Page) -> None:
    page.get_by_label("Token").fill(TOKEN)
    press(page, "Log in")


@pytest.mark.parametrize("path", ["/jobs", "/jobs/long", "/train/settings?dataset=plates", "/models/bright/try"])
def test_an_open_page_whose_session_ends_leads_to_the_login_and_back(page: Page, path: str):
    page.goto(path)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.context.clear_cookies()
    if path == "/jobs/long":  # its connection is made anew once it is looked at again
        for hidden in ("true", "false"):
            page.evaluate(f"Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {hidden}}})")
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    elif path.startswith("/train"):
        page.locator("input[name=name]").fill("mine")
    elif path.endswith("/try"):
        page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": grey(255)})
    page.wait_for_url("**/login?next=*")
    log_in(page)
    page.wait_for_url(f"**{path}*")


def test_the_calls_to_copy_carry_the_token_as_they_stand(address: str, tmp_path: Path):
    page = httpx.get(f"{address}/models/bright/try", headers=OWNERS, trust_env=False, timeout=60).text
    curl, python = (html.unescape(block) for block in re.findall(r"<pre[^>]*data-copy>(.*?)</pre>", page, re.DOTALL))
    (tmp_path / "picture.jpg").write_bytes(grey(255))
    here = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "MASKWRIGHT_TOKEN": TOKEN}
    for command in (["bash", "-ec", curl], [sys.executable, "-c", python]):
        said = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, timeout=60, check=True).stdout
        assert "bright" in said


def test_the_login_can_be_read_by_everyone(browser: Browser, address: str):
    with watched_page(browser, address) as page:
        page.goto("/jobs/long")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert grave_findings(page) == []
