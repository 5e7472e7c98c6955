"""What is too much for a service, by its settings or by its disk, is said in a sentence; and what it counts of all that."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from contracts.traffic import MOST_CALLERS, Traffic
from docker_sdk_api.app import create_app as create_sdk
from docker_sdk_api.settings import Settings
from gui.app import create_app as create_gui
from gui.backend import Backend
from gui.settings import Settings as GuiSettings
from tests.conftest import client_of, draw_dataset, wait_for
from tests.served import serve_brightness
from tests.service import picture
from tests.test_doors import OWNERS, TOKEN, apps, listening
from tests.waits import ROOT, free_port

SERVICES = {"docker_sdk_api": "/v1/jobs", "inference_api": "/v1/models", "gui": "/jobs"}
MOST = 5
HTTPX_KEEPS = 5
"""Seconds for which httpx, the client of the pages, keeps a connection that rests."""


@pytest.fixture(params=list(SERVICES))
def hurried(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TestClient, str]]:
    """A service that answers five requests a minute of each caller, and an address to ask it for."""
    app = dict(zip(SERVICES, apps(tmp_path, "", requests_a_minute=MOST), strict=True))[request.param]
    with TestClient(app) as client:
        yield client, SERVICES[request.param]


def test_who_asks_too_often_is_told_so_and_when_to_come_back(hurried: tuple[TestClient, str]):
    client, address = hurried
    # The pages ask docker_sdk_api in turn, which has the same patience: so they may be refused by it a little sooner.
    answers = [client.get(address) for _ in range(MOST + 1)]
    assert answers[0].status_code == 200
    refused = answers[-1]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["cause"] == "More than 5 requests a minute came from you (REQUESTS_A_MINUTE)."


def test_health_is_told_however_often_somebody_asks(hurried: tuple[TestClient, str]):
    client, _ = hurried
    health = "/health" if client.get("/health").status_code == 200 else "/v1/health"
    assert {client.get(health).status_code for _ in range(3 * MOST)} == {200}


def test_predictions_are_limited_by_their_own_queue_alone(tmp_path: Path):
    serve_brightness(tmp_path / "checkpoints")
    content = picture(0, 40, 40)
    with TestClient(apps(tmp_path, "", requests_a_minute=MOST)[1]) as client:
        answers = [client.post("/v1/models/brightness/predict", files={"picture": content}) for _ in range(3 * MOST)]
    assert {answer.status_code for answer in answers} == {200}


def test_after_a_while_one_may_ask_again(tmp_path: Path):
    with TestClient(apps(tmp_path, "", requests_a_minute=60)[0]) as client:
        while client.get("/v1/jobs").status_code == 200:
            pass
        wait_for(lambda: client.get("/v1/jobs").status_code == 200, 10)


def test_one_hasty_caller_holds_up_nobody_else(tmp_path: Path):
    with TestClient(apps(tmp_path, TOKEN, requests_a_minute=MOST)[0]) as client:
        made = {name: client.post("/v1/tokens", json={"name": name, "scope": "read", "days": 1}, headers=OWNERS) for name in ("one", "two")}
        one, two = ({"X-Token": answer.json()["token"]} for answer in made.values())
        assert [client.get("/v1/jobs", headers=one).status_code for _ in range(MOST + 1)] == [200] * MOST + [429]
        assert client.get("/v1/jobs", headers=two).status_code == 200


def test_zero_is_no_limit(tmp_path: Path):
    with TestClient(apps(tmp_path, "", requests_a_minute=0)[0]) as client:
        assert {client.get("/v1/jobs").status_code for _ in range(50)} == {200}


def test_what_is_known_of_callers_does_not_grow_without_end():
    async def nobody(*_: object) -> None:
        pass

    traffic = Traffic(nobody, Settings(requests_a_minute=60))
    for number in range(MOST_CALLERS + 10):
        traffic._count(f"caller {number}")
    assert len(traffic._left) == MOST_CALLERS


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of docker_sdk_api, and of pages over it, with a job that learns; two may follow it at a time, at each of the two."""
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates")
    sdk, inference, _ = apps(home, "", streams=2)
    with listening(sdk) as behind:
        backend = Backend(httpx.AsyncClient(base_url=behind, trust_env=False, timeout=60), client_of(inference))
        with (
            listening(create_gui(GuiSettings(streams=2), backend)) as pages,
            httpx.Client(base_url=behind, trust_env=False, timeout=60) as api,
        ):
            wish = {"engine": "majority", "network": "majority", "backbone": "none", "hyperparameters": {"epochs": 10_000}}
            assert api.post("/v1/jobs", json={"name": "long", "dataset": "plates", **wish}).is_success
            wait_for(lambda: api.get("/v1/jobs/long").json()["status"]["state"] == "training", 60)
            yield behind, pages
            assert api.post("/v1/jobs/long/stop", json={"keep_best": False}).is_success
            wait_for(lambda: api.get("/v1/jobs/long").json()["status"]["state"] == "stopped", 60)


@pytest.mark.parametrize("place", ["/v1/jobs/long/events", "/v1/jobs/long/log/stream", "/jobs/long/events", "/jobs/long/log/stream"])
def test_more_streams_than_there_may_be_are_refused_until_one_is_closed(followed: tuple[str, str], place: str):
    address = followed[not place.startswith("/v1")] + place

    def status() -> int:
        with httpx.stream("GET", address, timeout=30, trust_env=False) as answer:
            return answer.status_code

    wait_for(lambda: status() == 200, 30)  # those of the test before are closed
    with httpx.stream("GET", address, timeout=30, trust_env=False) as first:
        with httpx.stream("GET", address, timeout=30, trust_env=False) as second:
            assert (first.status_code, second.status_code) == (200, 200)
            refused = httpx.get(address, timeout=30, trust_env=False)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "15")
            assert "as many as may at a time (STREAMS)" in refused.json()["cause"]
        wait_for(lambda: status() == 200, 30)


def test_a_connection_that_rests_longer_than_callers_keep_theirs_is_still_good(tmp_path: Path):
    port = free_port()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "GUI_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "gui"], env=environment)
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            wait_for(lambda: _status(connection) == 200, 60)
            time.sleep(HTTPX_KEEPS + 2)
            assert _status(connection) == 200
    finally:
        process.terminate()
        process.wait(20)


def _status(connection: HTTPConnection) -> int | None:
    """None: nobody listens yet. Raises RemoteDisconnected where the connection was there, and was closed."""
    try:
        connection.request("GET", "/health")
    except ConnectionRefusedError:
        connection.close()
        return None
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_the_pages_are_ready_once_trainings_and_predictions_are(tmp_path: Path):
    sdk, inference, gui = apps(tmp_path, "")
    with TestClient(sdk) as one, TestClient(inference) as two, TestClient(gui) as three:
        for client, path in ((one, "/v1/ready"), (two, "/v1/ready"), (three, "/ready")):
            assert client.get(path).json() == {"status": "ready"}


def test_what_keeps_trainings_from_starting_is_said_to_those_who_ask_whether_all_is_ready(tmp_path: Path):
    _, inference, _ = apps(tmp_path, "")
    sdk = create_sdk(settings_at(tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    with TestClient(create_gui(GuiSettings(), Backend(client_of(sdk), client_of(inference)))) as pages:
        answer = pages.get("/ready")
    assert answer.status_code == 503
    assert "The queue in postgresql" in answer.json()["cause"]


def test_every_service_counts_its_answers_by_route_and_tells_of_its_process(tmp_path: Path):
    sdk, inference, gui = apps(tmp_path, "")
    with TestClient(sdk) as one, TestClient(inference) as two, TestClient(gui) as three:
        for client, path, metrics in ((one, "/v1/jobs", "/v1/metrics"), (two, "/v1/models", "/v1/metrics"), (three, "/jobs", "/metrics")):
            before = figures(client, metrics)
            assert client.get(path).is_success
            after = figures(client, metrics)
            row = f'maskwright_requests_total{{method="GET",route="{path}",status="200"}}'
            assert after[row] == before.get(row, 0) + 1
            assert after["process_open_fds"] > 3
            assert after["process_resident_memory_bytes"] > 1e7


def test_docker_sdk_api_tells_how_its_jobs_stand(tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates")
    majority = {"dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}
    with TestClient(create_sdk(settings_at(tmp_path, parallel_jobs=1))) as client:
        assert jobs_by_state(client) == {"failed": 0, "finished": 0, "stopped": 0, "queued": 0, "running": 0}
        for name, epochs in (("short", 1), ("long", 10_000), ("waits", 1)):
            assert client.post("/v1/jobs", json={"name": name, **majority, "hyperparameters": {"epochs": epochs}}).is_success
        wait_for(lambda: jobs_by_state(client) == {"failed": 0, "finished": 1, "stopped": 0, "queued": 1, "running": 1}, 60)
        assert client.post("/v1/jobs/long/stop", json={"keep_best": False}).is_success
        wait_for(lambda: jobs_by_state(client) == {"failed": 0, "finished": 2, "stopped": 1, "queued": 0, "running": 0}, 60)
        assert figures(client, "/v1/metrics")["maskwright_disk_free_bytes"] > 1e6


def test_a_disk_that_is_full_while_a_request_comes_in_is_said(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a form brings lies in the temporary folder until it is looked at."""
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    sdk, inference, gui = apps(tmp_path, "")
    serve_brightness(tmp_path / "checkpoints")
    large = bytes(40 * 2**20)
    with TestClient(sdk) as one, TestClient(inference) as two, TestClient(gui) as three:
        answers = [
            one.post("/v1/models/import", files={"file": ("m.zip", large)}),
            two.post("/v1/models/brightness/predict", files={"picture": large}),
            three.post("/datasets/new", data={"name": "x"}, files={"files": ("a.zip", large)}, headers={"Accept": "text/html"}),
        ]
        assert [answer.status_code for answer in answers] == [507] * 3
        assert all("Make room on the disk of" in answer.text for answer in answers)
        assert one.get("/v1/jobs").is_success
        assert two.get("/v1/models").is_success
    assert [path for path in disk.rglob("*") if path.is_file()] == []


def settings_at(home: Path, **more: Any) -> Settings:
    return Settings(datasets=home / "datasets", checkpoints=home / "checkpoints", task_python=Path(sys.executable), **more)


def figures(client: TestClient, path: str) -> dict[str, float]:
    lines = [line for line in client.get(path).text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def jobs_by_state(client: TestClient) -> dict[str, float]:
    found = figures(client, "/v1/metrics").items()
    return {name.split('"')[1]: value for name, value in found if name.startswith("maskwright_jobs{")}
