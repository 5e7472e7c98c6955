"""The pages behind a real nginx under a path, with the lines that docs/docker.md gives: links, forms, live events, uploads, answers."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.clicks import chromium, free_ports, needs_chromium, press, services, start, watched_page
from tests.conftest import ROOT, draw_dataset, wait_for
from tests.deployed import answers
from tests.test_dataset_pages import labelme_files, zipped
from tests.waits import free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PATH = "/maskwright"
PAGES = 60
"""So many addresses of the product are looked at, which is every kind of page."""

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine (Debian: apt install nginx-light)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Playwright's driver and of the services
]


def documented(heading: str, port: str, inside: str) -> str:
    """The lines for nginx in docs/docker.md under a heading, for the pages at another port than 4200."""
    page = (ROOT / "docs" / "docker.md").read_text()
    lines = re.search(rf"{re.escape(heading)}.*?```nginx\n(.+?)```", page, re.DOTALL)
    assert lines, heading
    return f"{lines[1].replace('127.0.0.1:4200', f'127.0.0.1:{port}')}{inside}"


@contextmanager
def nginx(folder: Path, location: str) -> Iterator[str]:
    """The address of an nginx with these lines in its server block."""
    port = free_port()
    temporary = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    logs = f"error_log {folder}/error.log;\npid {folder}/pid;\ndaemon off;\nmaster_process off;\nevents {{ }}\n"
    server = f"  server {{\n    listen 127.0.0.1:{port};\n{location}  }}\n"
    (folder / "nginx.conf").write_text(f"{logs}http {{\n  access_log off;\n{temporary}{server}}}\n")
    running = subprocess.Popen([str(NGINX), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_for(lambda: running.poll() is not None or answers(client, f"{PATH}/health"), 30)
        assert running.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}{PATH}/"
    finally:
        running.terminate()
        running.wait(20)


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    return free_ports()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, str]) -> Iterator[Path]:
    """The folder of services that are told their path."""
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ROOT_PATH", PATH)
        with services(home, ports):
            yield home


@pytest.fixture
def address(home: Path, ports: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with nginx(tmp_path, documented("## Behind a reverse proxy", ports["GUI_PORT"], "")) as address:
        yield address


def begin(address: str, name: str, epochs: int) -> None:
    """Start a training from the review page's form."""
    wish = {"dataset": "plates", "network": "majority/majority/none", "name": name, "set.epochs": str(epochs)}
    answer = httpx.post(f"{address}train", data=wish, timeout=60, trust_env=False)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"{PATH}/jobs/{name}"


@needs_chromium
def test_from_the_wizard_to_an_answer_under_the_proxys_path(address: str) -> None:
    """watched_page fails where anything is asked for beside the path."""
    picture = next((ROOT / "datasets" / "dummy_dataset" / "images").iterdir())
    with chromium() as browser, watched_page(browser, address) as page:
        page.goto("datasets/new")
        bulky = {**labelme_files(8), "notes.txt": os.urandom(3_000_000)}  # more than nginx lets through unless it is told to
        page.locator("input[type=file]").first.set_input_files(
            [{"name": "parts.zip", "mimeType": "application/zip", "buffer": zipped(bulky)}]
        )
        press(page, "Bring it")
        page.wait_for_url(f"{address}datasets/parts?*", timeout=60_000)

        start(page, "parts", "pytorch/unet/resnet18", "behind", epochs=2, crop=32, short_side=48, crops_per_picture=1, batch_size=2)
        assert page.url == f"{address}jobs/behind"
        expect(page.get_by_text("finished").first).to_be_visible(timeout=180_000)  # no reload: the page follows the job
        expect(page.locator("[data-curves] svg.chart [data-line=mIoU]").first).to_be_visible()  # drawn live
        expect(page.get_by_text("finished: the model is published")).to_be_visible()  # its log, as it streams
        page.goto("models/behind/try")
        page.locator("input[type=file]").set_input_files(picture)
        press(page, "See what it finds")
        overlay = page.locator("#answer img.over").first
        expect(overlay).to_be_visible(timeout=60_000)
        assert overlay.evaluate("image => image.naturalWidth") == 256
        assert f"{address}models/behind/predict?answer=mask" in page.content()  # the command to copy works from where it is read


def test_no_event_is_held_back(address: str, ports: dict[str, str]) -> None:
    begin(address, "long", 10_000)
    try:
        past = f"http://127.0.0.1:{ports['GUI_PORT']}{PATH}/jobs/long/events"
        with httpx.stream("GET", past, timeout=60, trust_env=False) as events:
            assert events.headers["x-accel-buffering"] == "no"  # nginx heeds it, and keeps it to itself
        with httpx.stream("GET", f"{address}jobs/long/events", timeout=60, trust_env=False) as events:
            lines = (line for line in events.iter_lines() if line.startswith("data:"))
            assert "progress" in next(line for line in lines if "progress" in line)  # it runs on, so nothing else can have sent it
    finally:
        httpx.post(f"{address}jobs/long/stop", data={"keep_best": ""}, timeout=60, trust_env=False)


@pytest.mark.parametrize("taken_off", [False, True], ids=["the path as it is", "the path taken off"])
def test_every_address_on_every_page_is_under_the_path_and_answers(
    address: str, ports: dict[str, str], tmp_path: Path, taken_off: bool
) -> None:
    name = f"plain-{'off' if taken_off else 'on'}"
    begin(address, name, 2)
    wait_for(lambda: "finished" in httpx.get(f"{address}jobs/{name}", timeout=60, trust_env=False).text)
    if not taken_off:
        look_at_all(address)
        return
    (tmp_path / "other").mkdir()
    location = f"location {PATH}/ {{ proxy_pass http://127.0.0.1:{ports['GUI_PORT']}/; }}\n"  # the last / takes it off
    with nginx(tmp_path / "other", location) as other:
        look_at_all(other)


def look_at_all(address: str) -> None:
    """Follow links, styles, scripts and pictures from the start page on, and see that forms are sent to where they belong."""
    host = address.removesuffix(f"{PATH}/")
    waiting, seen, kinds = [f"{PATH}/"], set(), set()
    with httpx.Client(base_url=host, timeout=60, trust_env=False) as client:
        while waiting and len(seen) < PAGES:
            path = waiting.pop(0)
            seen.add(path)
            answer = client.get(path, follow_redirects=True)
            assert answer.status_code == 200, (path, answer.status_code)
            assert answer.url.path.startswith(f"{PATH}/"), (path, answer.url)
            kinds.add(answer.headers["content-type"].split(";")[0])
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            found = [*re.findall(r'(?:href|src|action|data-\w+)="(/[^"]*)"', answer.text)]
            assert all(there.startswith(f"{PATH}/") for there in found), (path, found)
            links = [there.replace("&amp;", "&") for there in re.findall(r'(?:href|src)="(/[^"#]*)', answer.text)]
            waiting += [there for there in dict.fromkeys(links) if there not in seen and there not in waiting]
    assert {"text/html", "text/css", "text/javascript", "image/png"} <= kinds, kinds
    assert len(seen) == PAGES or not waiting
