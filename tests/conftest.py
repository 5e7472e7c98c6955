"""What the tests share: small datasets drawn on the spot, the real apps over a folder of their own, waits with a deadline."""

import html
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx
import hypothesis
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, Page
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from docker_sdk_api import app as sdk
from docker_sdk_api import datasets as sdk_datasets
from docker_sdk_api.settings import Settings as SdkSettings
from gui import app as pages
from gui.backend import Backend
from gui.settings import Settings as GuiSettings
from inference_api import app as inference
from inference_api.settings import Settings as InferenceSettings
from tests import clicks
from tests.waits import ROOT as ROOT
from tests.waits import wait_for as wait_for

# Machines stall: an example has the test's own deadline. CI looks at the same examples each time, everyone else at new ones.
hypothesis.settings.register_profile("maskwright", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("maskwright")

# Tests end services by SIGINT. A run that a script began in the background ignores it, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

CLASSES = '{"classes": 3, "classesname": ["background", "pad", "circle"]}'


SHARES_NOTHING = {"test_networks.py"}


class Together(LoadScopeScheduling):
    """In several processes (run/tests.sh) a file's tests stay together, for what they share; so do all that use the Docker engine, of
    which there is one. Told by files, not by marks: pytest 9.2 hides from xdist 3.8 which group a test has."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if Path(file).name in SHARES_NOTHING:
            return nodeid
        return "engine" if _uses_engine(file) else file


@cache
def _uses_engine(file: str) -> bool:
    return "tests.engine import" in (text := (ROOT / file).read_text()) or "tests.deployed import" in text


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    return Together(config, log)


def draw_dataset(folder: Path, pictures: int = 6, size: tuple[int, int] = (64, 48)) -> Path:
    """Grey pictures with a bright pad in one half of them and a dark one in the other; the masks say where."""
    numbers = np.random.default_rng(7)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(pictures):
        picture = numbers.integers(90, 130, (size[1], size[0], 3), dtype=np.uint8)
        mask = np.zeros((size[1], size[0]), np.uint8)
        kind = 1 + index % 2
        top, left = numbers.integers(0, size[1] - 20), numbers.integers(0, size[0] - 20)
        picture[top : top + 18, left : left + 18] = 230 if kind == 1 else 20
        mask[top : top + 18, left : left + 18] = kind
        Image.fromarray(picture).save(folder / "images" / f"p{index}.png")
        Image.fromarray(mask).save(folder / "labels" / f"p{index}.png")
    (folder / "objectclasses.json").write_text(CLASSES)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A sound dataset of six small pictures, in a datasets folder of its own."""
    return draw_dataset(tmp_path / "datasets" / "plates")


@pytest.fixture
def settings(tmp_path: Path) -> SdkSettings:
    (tmp_path / "datasets").mkdir(exist_ok=True)
    return SdkSettings(
        datasets=tmp_path / "datasets",
        checkpoints=tmp_path / "checkpoints",
        task_python=Path(sys.executable),
        launcher="process",
        parallel_jobs=8,  # on any machine, as most tests start what they look at
    )


@pytest.fixture
def sdk_app(settings: SdkSettings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """A machine that stalls for two seconds does not make its pages tell of a check that still goes on, where a test looks for its end."""
    monkeypatch.setattr(sdk_datasets, "PATIENCE", 60.0)
    return sdk.create_app(settings)


@pytest.fixture
def api(sdk_app: FastAPI) -> Iterator[TestClient]:
    """docker_sdk_api; trainings that a test left running are ended."""
    with TestClient(sdk_app) as client:
        yield client
    for job in sdk_app.state.jobs.launcher.running():
        sdk_app.state.jobs.launcher.stop(job, grace=0)


@pytest.fixture
def inference_app(settings: SdkSettings) -> FastAPI:
    return inference.create_app(InferenceSettings(checkpoints=settings.checkpoints))


@pytest.fixture
def inference_api(inference_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(inference_app) as client:
        yield client


@pytest.fixture
def gui(api: TestClient, sdk_app: FastAPI, inference_app: FastAPI) -> Iterator[TestClient]:
    """The pages over the real two services, all in process."""
    with TestClient(pages.create_app(GuiSettings(), Backend(client_of(sdk_app), client_of(inference_app)))) as client:
        yield client


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """What asks an app in process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://in-process")


def text_of(answer: httpx.Response) -> str:
    """What a reader reads of a page: tags gone, entities turned back."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The pages' address, of services of their own over the folder `home`, which a module of tests fills."""
    with clicks.services(home) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Not for all modules together: while it runs there is an event loop in the tests' thread."""
    with clicks.chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that may load from nowhere but the product, and whose errors fail the test."""
    with clicks.watched_page(browser, address) as page:
        yield page


def run_job(api: TestClient, seconds: float = 60.0, **wish: object) -> dict:
    """Start a job over the API and wait for its end: the JobView as JSON."""
    answer = api.post("/v1/jobs", json={"engine": "majority", "network": "majority", "backbone": "none", **wish})
    assert answer.status_code == 201, answer.text
    return wait_for(lambda: ended(api, str(wish["name"])), seconds)


def ended(api: TestClient, name: str) -> dict | None:
    view = api.get(f"/v1/jobs/{name}").json()
    return view if view["status"]["state"] in ("finished", "stopped", "failed") else None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True, text=True, timeout=30)
    if mounted.returncode:
        pytest.skip(f"a disk of its own needs the right to mount one: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True, timeout=30)
