"""On a Ray cluster: jobs are placed where there is room, say for what they wait, outlive their node, and learn on several at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contracts.errors import Unavailable
from contracts.events import EpochDone, Failed, Resumed
from contracts.job_folder import JobFolder
from docker_sdk_api import app as sdk
from docker_sdk_api.launchers import Limits, Pulse, Task
from docker_sdk_api.launchers.ray import order, ray_request
from docker_sdk_api.launchers.ray_head import Head, Node
from docker_sdk_api.launchers.ray_words import end_of, waits_for
from docker_sdk_api.settings import Settings
from tests.cluster import RAY_PYTHON, Cluster, cluster
from tests.conftest import ROOT, draw_dataset, wait_for
from tests.test_parallel import SMALL, assert_same_training, run, shared_job

HEAD, FIRST, SECOND = "127.0.0.2", "127.0.0.3", "127.0.0.4"
WISH = {"dataset": "plates", "engine": "pytorch", "network": "unet", "backbone": "resnet18"}


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    """Three machines: a head that trains nothing, and two nodes with a processor each."""
    with cluster() as made:
        made.add(HEAD, "--num-cpus=0")
        for host in (FIRST, SECOND):
            made.add(host)
        yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates", pictures=8, size=(128, 96))
    return home


@pytest.fixture
def api(home: Path, ray: Cluster) -> Iterator[TestClient]:
    folders = {"datasets": home / "datasets", "checkpoints": home / "checkpoints"}
    settings = Settings(**folders, launcher="ray", ray_address=ray.address, ray_python=RAY_PYTHON, task_python=Path(sys.executable))
    app = sdk.create_app(settings)
    with TestClient(app) as client:
        yield client
    for name in app.state.jobs.launcher.running():
        app.state.jobs.launcher.stop(name, grace=0)


def start(api: TestClient, name: str, **wish: object) -> JobFolder:
    answer = api.post("/v1/jobs", json={"name": name, **WISH, **wish})
    assert answer.status_code == 201, answer.text
    return JobFolder(api.app.state.settings.checkpoints / name)  # type: ignore[attr-defined]


def status(api: TestClient, name: str) -> dict:
    return api.get(f"/v1/jobs/{name}").json()["status"]


def finished(api: TestClient, folder: JobFolder, seconds: float = 150) -> None:
    wait_for(lambda: status(api, folder.name)["state"] in ("finished", "failed"), seconds)
    log = folder.log_file.read_text() if folder.log_file.exists() else "no log"
    assert status(api, folder.name)["state"] == "finished", f"{status(api, folder.name)}\n{log}"


def node_of(ray: Cluster, folder: JobFolder) -> str:
    """The address of the node that a job runs on."""
    head = Head(ray.address)
    job = head.job(json.loads(folder.task_file.read_bytes())["submission"])
    return next(node.address for node in head.nodes(now=True) if job is not None and node.id == job["driver_node_id"])


def scores(folder: JobFolder) -> dict[int, dict[str, float | None]]:
    """Of every epoch; of one that was learnt again, the later ones."""
    rows = [event.scores for event in folder.events() if isinstance(event, EpochDone)]
    return {row.epoch: {**row.iou_per_class, "mean": row.mean_iou} for row in rows}


def test_a_job_over_two_nodes_makes_the_steps_of_one_process(api: TestClient, home: Path, tmp_path: Path):
    together = start(api, "two", nodes=2, hyperparameters=SMALL)
    alone = shared_job(tmp_path / "alone", home / "datasets" / "plates", 1)
    assert run(alone) == 0, alone.log_file.read_text()
    finished(api, together)
    assert_same_training(together, alone)
    assert "2 × CPU" in status(api, "two")["device"]


def test_a_job_whose_node_dies_goes_on_elsewhere_and_ends_as_if_nothing_had_been(api: TestClient, ray: Cluster, home: Path, tmp_path: Path):
    wish = {**SMALL, "epochs": 6}
    disturbed = start(api, "disturbed", hyperparameters=wish)
    wait_for(lambda: (disturbed.last / "progress.json").exists(), 120)
    place = node_of(ray, disturbed)
    ray.kill(place)
    wait_for(lambda: any(isinstance(event, Resumed) for event in disturbed.events()), 60)
    calm = shared_job(tmp_path / "calm", home / "datasets" / "plates", 1, epochs=6)
    assert run(calm) == 0, calm.log_file.read_text()
    finished(api, disturbed)
    told = [event for event in disturbed.events() if isinstance(event, Failed | Resumed)]
    assert [event.event for event in told] == ["failed", "resumed"]
    assert told[0].cause == f"The node {place} on which it ran was lost."  # type: ignore[union-attr]
    assert told[1].by_itself  # type: ignore[union-attr]
    assert scores(disturbed) == scores(calm)
    assert (disturbed.model / "model.json").exists()
    ray.add(place)


def test_a_job_that_no_node_can_take_says_for_what_it_waits_and_can_be_stopped(api: TestClient):
    start(api, "large", cpus=64, hyperparameters=SMALL)
    said = "waiting for a node with 64 processors: none of the 3 that live has so much"
    wait_for(lambda: status(api, "large")["stage"] == said)
    api.post("/v1/jobs/large/stop", json={"keep_best": False})
    wait_for(lambda: status(api, "large")["state"] == "stopped", 10)


def test_a_job_is_followed_by_a_service_that_was_started_anew(api: TestClient, home: Path, ray: Cluster):
    folder = start(api, "followed", hyperparameters={**SMALL, "epochs": 500})
    wait_for(lambda: status(api, "followed")["state"] == "training", 120)
    settings = api.app.state.settings  # type: ignore[attr-defined]
    with TestClient(sdk.create_app(settings)) as later:
        assert status(later, "followed")["state"] == "training"
        later.post("/v1/jobs/followed/stop", json={"keep_best": False})
        wait_for(lambda: status(later, "followed")["state"] == "stopped")
    assert folder.exists()


def test_several_nodes_are_refused_where_there_is_no_cluster(tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates")
    with TestClient(sdk.create_app(Settings(datasets=tmp_path / "datasets", checkpoints=tmp_path / "checkpoints"))) as api:
        answer = api.post("/v1/jobs", json={"name": "m", **WISH, "nodes": 2})
    assert answer.status_code == 400
    assert answer.json()["cause"] == "Several machines learn one job only in a Ray cluster."


def test_a_head_that_does_not_answer_is_named_with_its_cure():
    with pytest.raises(Unavailable, match=r"Ray does not answer at http://127\.0\.0\.1:1 .*RAY_ADDRESS"):
        Head("http://127.0.0.1:1/").nodes()


def test_a_task_that_was_taken_for_lost_ends_as_soon_as_another_submission_has_its_folder(tmp_path: Path):
    beat = "import time\nfor n in range(6000): print(n, flush=True); time.sleep(0.05)"
    first = {"submission": "first", "command": [sys.executable, "-c", beat], "gpus": 0, "environment": {}}
    (tmp_path / "task.json").write_text(json.dumps(first))
    command = [sys.executable, "-I", str(ROOT / "docker_sdk_api" / "launchers" / "on_node.py"), str(tmp_path), "first"]
    keeper = subprocess.Popen(command)
    wait_for(lambda: (tmp_path / "train.log").exists() and len((tmp_path / "train.log").read_text()) > 5)
    (tmp_path / "task.json").write_text(json.dumps({**first, "submission": "second"}))
    assert keeper.wait(timeout=30) == 0
    printed = (tmp_path / "train.log").read_text()
    assert subprocess.run(command, timeout=30, check=False).returncode == 0
    assert (tmp_path / "train.log").read_text() == printed
    assert "exit_code" not in json.loads((tmp_path / "pulse.json").read_text())


def test_what_ray_is_asked_for():
    limits = Limits(memory_bytes=8_000_000_000, cpus=2)
    task = Task("birds", "pytorch", ["-m", "training_api", "/c/birds"], Path("/c/birds"), gpus=[0, 2], limits=limits)
    asked = ray_request(task, "birds-1", Path("/r/python"), Path("/m"), 2, "/c", {})
    assert asked == {
        "entrypoint": "exec /r/python -I /m/docker_sdk_api/launchers/on_node.py /c/birds birds-1",
        "submission_id": "birds-1",
        "metadata": {"maskwright.job": "birds", "maskwright.checkpoints": "/c"},
        "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "3600"}},
        "entrypoint_num_cpus": 2,
        "entrypoint_num_gpus": 2,
        "entrypoint_memory": 8_000_000_000,
    }
    assert order(task, "birds-1", Path("/p/python"), Path("/m"), 2) == {
        "submission": "birds-1",
        "command": ["/p/python", "-m", "training_api", "/c/birds"],
        "gpus": 2,
        "environment": {"PYTHONPATH": "/m", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2"},
    }


DIED = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}
LOST = "The node 10.0.0.2 on which it ran was lost."
OUT = "The node 10.0.0.1 ran out of memory, and Ray ended the training to save the node."
PUT_OUT = "The node 10.0.0.1 put the training out: Ray's process that stood by it has ended."
NODES = [Node("a", "10.0.0.1", True, 8, 2, 32e9), Node("b", "10.0.0.2", False, 64, 8, 256e9)]


@pytest.mark.parametrize(
    ("wants", "said"),
    [
        ({"entrypoint_num_cpus": 4, "entrypoint_num_gpus": 1}, "waiting until the one node has 1 GPU and 4 processors free"),
        ({"entrypoint_num_gpus": 4}, "waiting for a node with 4 GPUs: none of the 1 that live has so much"),
        ({"entrypoint_num_cpus": 1, "entrypoint_memory": 64e9}, "waiting for a node with 1 processor and 64.0 GB of memory: none"),
        ({}, "waiting for Ray to start it"),
    ],
)
def test_what_a_job_waits_for_is_said(wants: dict, said: str):
    assert waits_for(wants, NODES).startswith(said)


@pytest.mark.parametrize(
    ("job", "pulse"),
    [
        ({"status": "SUCCEEDED"}, Pulse(False, 0)),
        ({**DIED, "driver_node_id": "b"}, Pulse(False, note=LOST, lost=True)),
        ({**DIED, "driver_node_id": "a", "message": "The node was low on memory: OOM"}, Pulse(False, out_of_memory=True, note=OUT)),
        ({**DIED, "driver_node_id": "a", "message": "killed"}, Pulse(False, note=PUT_OUT, lost=True)),
    ],
)
def test_how_a_job_ended_that_its_node_did_not_tell_of(job: dict, pulse: Pulse):
    assert end_of(job, NODES) == pulse
