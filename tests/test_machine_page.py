"""The machine's page and its self-test: over the real services, with a real job, and from the terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient

from annotations.dummy import draw_dummy_dataset
from docker_sdk_api.app import create_app as create_sdk_app
from docker_sdk_api.settings import Settings as SdkSettings
from gui.app import create_app
from gui.backend import Backend
from gui.settings import Settings
from tests.conftest import ROOT, client_of, text_of, wait_for

SECONDS = 120


def start(gui: TestClient, engine: str) -> str:
    answer = gui.post("/machine/self-test", data={"engine": engine}, follow_redirects=False)
    assert answer.status_code == 303, text_of(answer)
    return answer.headers["location"]


def is_done(gui: TestClient, address: str) -> httpx.Response | None:
    answer = gui.get(address)
    return answer if "Remove its job and model" in answer.text else None


def test_the_page_says_what_there_is_and_what_can_be_reached(gui: TestClient):
    page = text_of(gui.get("/machine"))
    for words in ("Processor", "cores", "Memory", "Disk of the models", "GPUs", "pytorch", "gluon", "majority", "Version"):
        assert words in page, words
    assert "not reachable" not in page


def test_an_engine_that_is_not_there_says_why_and_offers_no_test(tmp_path: Path, inference_app: FastAPI):
    places = {"datasets": tmp_path / "datasets", "checkpoints": tmp_path / "checkpoints", "task_python": Path(sys.executable)}
    app = create_sdk_app(SdkSettings(**places, gluon_task_python=tmp_path / "nothing" / "bin" / "python"))
    with TestClient(create_app(Settings(), Backend(client_of(app), client_of(inference_app)))) as client:
        page = client.get("/machine")
    assert "Its environment nothing is not installed. Install Python 3.10 or 3.11" in text_of(page)
    assert 'aria-label="Test pytorch"' in page.text
    assert 'aria-label="Test gluon"' not in page.text


def test_services_that_do_not_answer_are_named_and_the_page_is_there(sdk_app: FastAPI, api: TestClient):
    def nowhere() -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://127.0.0.1:9", trust_env=False)

    for training, broken in ((client_of(sdk_app), "Inference"), (nowhere(), "Training")):
        with TestClient(create_app(Settings(), Backend(training, nowhere()))) as client:
            answer = client.get("/machine")
        assert answer.status_code == 200
        assert re.search(f"{broken} not reachable .* Nothing answers at http://127.0.0.1:9", text_of(answer))


def test_the_self_test_goes_from_a_dataset_that_it_draws_to_a_served_mask(gui: TestClient, api: TestClient, settings: SdkSettings):
    address = start(gui, "majority")
    page = text_of(wait_for(lambda: is_done(gui, address), SECONDS))
    assert "dummy_dataset: 50 pictures, 3 classes, sound." in page
    assert "1 epoch in" in page
    assert "A mask of 256 × 192 pixels" in page
    assert "Everything works" in page
    assert "data-refresh" not in gui.get(address).text, "nothing is asked for any more"
    wait_for(lambda: gui.post(f"{address}/remove", follow_redirects=False).status_code == 303)  # its process may live a moment longer
    assert api.get("/v1/jobs").json() == []
    assert not list((settings.checkpoints / ".deleted").iterdir())


def test_a_self_test_that_fails_says_at_which_step_and_what_helps(gui: TestClient, settings: SdkSettings):
    draw_dummy_dataset(settings.datasets / "dummy_dataset")
    address = start(gui, "majority")
    job = settings.checkpoints / address.rpartition("/")[2]
    wait_for(lambda: is_done(gui, address), SECONDS)
    (job / "retired").touch()
    page = text_of(gui.get(address))
    assert "The self-test failed at: Serving." in page
    assert "was retired" in page


def test_a_self_test_that_cannot_start_says_so_on_the_page(gui: TestClient, settings: SdkSettings):
    (settings.datasets / "dummy_dataset").mkdir()
    refused = gui.post("/machine/self-test", data={"engine": "majority"})
    assert refused.status_code == 400
    assert 'class="note failed"' in refused.text
    unknown = gui.post("/machine/self-test", data={"engine": "magic"})
    assert "There is no engine magic." in text_of(unknown)


def test_the_terminals_self_test_says_each_step_and_leaves_nothing_behind(tmp_path: Path):
    places = {"CHECKPOINTS": str(tmp_path / "checkpoints"), "DATASETS": str(tmp_path / "datasets"), "TASK_PYTHON": sys.executable}
    command = [sys.executable, "-m", "cli", "self-test", "--engine", "pytorch"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    for step in ("Dataset", "Training", "Model", "Serving"):
        assert re.search(f"^✓ {step}: ", result.stdout, re.MULTILINE), result.stdout
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if not path.name.startswith(".")]


def test_the_terminals_self_test_fails_where_no_job_can_be_started(tmp_path: Path):
    nothing = str(tmp_path / "nothing" / "bin" / "python")
    places = {"CHECKPOINTS": str(tmp_path / "checkpoints"), "DATASETS": str(tmp_path / "datasets"), "TASK_PYTHON": nothing}
    command = [sys.executable, "-m", "cli", "self-test", "--engine", "pytorch"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert "The engine pytorch is not available." in result.stderr
