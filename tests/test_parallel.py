"""Several processes learn one job: they make the very steps of one process, end together, and leave nothing running."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from contracts.events import Failed
from contracts.job_folder import JobFolder
from contracts.model import read_model
from tests.conftest import ROOT, draw_dataset, wait_for
from tests.test_training import write_job
from training_api.engines.pytorch_parallel import why
from training_api.group import Group, share_out

GENTLE = {"optimizer": "sgd", "learning_rate": 0.0001, "precision": "float32", "augment": False}
"""Steps too small to amplify the rounding of sums in another order, which two threads in one process change as well; the loss still
moves a thousand times as far as is tolerated."""
SMALL = {"crop": 64, "batch_size": 5, "crops_per_picture": 2, "short_side": 96, "workers": 1, "epochs": 2, **GENTLE}


def shared_job(folder: Path, dataset: Path, processes: int, **settings: object) -> JobFolder:
    files = write_job(folder, dataset, "pytorch", **{**SMALL, **settings})
    files.write_job(files.job().model_copy(update={"processes": processes}))
    return files


def start(folder: JobFolder, **environment: str) -> "subprocess.Popen[str]":
    """The job's process, in a session of its own as the launcher starts it; one thread for each process that learns."""
    threads = {"OMP_NUM_THREADS": str(folder.job().together)}
    command = [sys.executable, "-m", "training_api", str(folder.path)]
    with folder.log_file.open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **threads, **environment}, stdout=log, stderr=log)


def run(folder: JobFolder) -> int:
    return start(folder).wait(timeout=200)


def losses(folder: JobFolder) -> list[float]:
    """The loss of every step, and of every epoch."""
    return [float(row["loss"]) for row in csv.DictReader(folder.figures_file.read_text().splitlines())]


def weights(folder: JobFolder) -> dict[str, torch.Tensor]:
    return torch.load(folder.last / "state.pt", weights_only=True)["averaged"]


def scores(folder: JobFolder) -> list[dict[str, float | None]]:
    return [event.scores.iou_per_class for event in folder.events() if event.event == "epoch"]


def assert_same_training(one: JobFolder, other: JobFolder) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=1e-5, abs=1e-5)
    for name, value in weights(one).items():
        assert torch.allclose(value.float(), weights(other)[name].float(), rtol=1e-4, atol=1e-4), name


def learners(leader: int) -> list[psutil.Process]:
    """The processes that learn, by rank."""
    children = psutil.Process(leader).children()
    return sorted((child for child in children if "RANK" in child.environ()), key=lambda child: int(child.environ()["RANK"]))


def leader_of(folder: JobFolder) -> int:
    return int(json.loads(folder.task_file.read_bytes())["pid"])


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("datasets") / "plates", pictures=8, size=(128, 96))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, plates: Path) -> JobFolder:
    folder = shared_job(tmp_path_factory.mktemp("alone") / "m", plates, 1)
    assert run(folder) == 0, folder.log_file.read_text()
    return folder


def test_two_processes_make_the_steps_of_one_also_where_a_batch_cannot_be_halved(tmp_path: Path, plates: Path, alone: JobFolder):
    together = shared_job(tmp_path / "m", plates, 2)
    assert run(together) == 0, together.log_file.read_text()
    assert_same_training(together, alone)
    assert max(losses(alone)) - min(losses(alone)) > 0.01
    assert [list(row) for row in scores(together)] == [list(row) for row in scores(alone)]
    assert [event.event for event in together.events()].count("started") == 1
    assert "2 × CPU" in next(event.device for event in together.events() if event.event == "started")
    assert read_model(together.model).parity.equal_pixels >= 0.999
    assert sorted(file.name for file in together.previews.glob("epoch-????.jpg")) == ["epoch-0001.jpg", "epoch-0002.jpg"]


def test_the_gradient_is_that_of_the_whole_batch_however_it_is_shared_out():
    """In float64, where rounding hides nothing; with ignored pixels, and with batch norms of every kind that a network has."""
    script = ROOT / "tests" / "shared_gradient.py"
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        assert float(line.split()[-1]) < 1e-8, line
    assert len(result.stdout.splitlines()) == 4


def test_a_killed_process_ends_the_job_with_its_cause_and_the_job_goes_on_later(api: TestClient, sdk_app: FastAPI, tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates")
    wish = {"name": "m", "dataset": "plates", "processes": 2, "hyperparameters": {**SMALL, "epochs": 500}}
    assert api.post("/v1/jobs", json=wish).status_code == 201
    jobs = sdk_app.state.jobs
    wait_for(lambda: (jobs.folder("m").last / "progress.json").exists(), 120)
    first, second = learners(leader_of(jobs.folder("m")))
    second.send_signal(signal.SIGKILL)
    wait_for(lambda: jobs.status("m").ended_already)
    assert jobs.status("m").cause == "Process 2 of those that learn together was ended by SIGKILL."
    assert "memory" in jobs.status("m").cure
    wait_for(lambda: not jobs.launcher.poll("m").alive)
    assert not first.is_running()

    assert api.post("/v1/jobs/m/resume").is_success
    wait_for(lambda: jobs.status("m").state == "training", 120)
    assert [event.from_epoch for event in jobs.folder("m").events() if event.event == "started"][-1] >= 1
    together = learners(leader_of(jobs.folder("m")))
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    wait_for(lambda: not jobs.launcher.poll("m").alive)
    assert jobs.status("m").state == "stopped"
    assert jobs.launcher.poll("m").exit_code == 0
    assert not any(process.is_running() for process in together)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_leader_ends_all(tmp_path: Path, plates: Path, number: signal.Signals):
    folder = shared_job(tmp_path / "m", plates, 2, epochs=500)
    leader = start(folder)
    wait_for(lambda: any(event.event == "stage" for event in folder.events()), 120)
    together = learners(leader.pid)
    leader.send_signal(number)
    assert leader.wait(timeout=60) == -number
    assert len(together) == 2
    wait_for(lambda: not any(process.is_running() for process in together))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"engine": "majority", "network": "majority", "backbone": "none", "processes": 2}, "The engine majority learns in one process."),
        ({"processes": 4, "hyperparameters": {"batch_size": 3}}, "4 processes cannot share a batch of 3."),
        ({"processes": 2, "hyperparameters": {"batch_size": 6, "accumulate": 4}}, "2 processes cannot share a batch of 6 in 4 parts."),
    ],
)
def test_what_processes_cannot_share_is_refused(api: TestClient, dataset: Path, wish: dict, said: str):
    answer = api.post("/v1/jobs", json={"name": "m", "dataset": "plates", **wish})
    assert answer.status_code == 400
    assert answer.json()["cause"] == said


def test_the_pictures_that_are_shown_fall_to_the_first_process_and_none_is_scored_twice():
    shares = [share_out(11, place_of(rank, 3), head=4) for rank in range(3)]
    assert shares[0][:4] == [0, 1, 2, 3]
    assert sorted(place for share in shares for place in share) == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def place_of(rank: int, size: int) -> Group:
    group = Group()
    group.rank, group.size = rank, size
    return group


def test_the_cause_is_the_first_end_not_one_that_followed_from_it():
    """A process that was killed says nothing; those that notice do, and torchrun ends the rest."""

    def ended(rank: int, exit_code: int) -> ProcessFailure:
        return ProcessFailure(local_rank=rank, pid=1, exitcode=exit_code, error_file="/nowhere")

    first, later = Failed(cause="The disk is full.", cure="Free some."), Failed(cause="The connection is closed.", cure="Look.")
    assert why({0: ended(0, 1), 1: ended(1, 1), 2: ended(2, -15)}, {1: first, 0: later}).cause == "The disk is full."
    assert "Process 3" in why({0: ended(0, 1), 2: ended(2, -9)}, {0: later}).cause
    assert "exit code 7" in why({1: ended(1, 7), 0: ended(0, -15)}, {}).cause
    assert "SIGTERM" in why({1: ended(1, -15)}, {}).cause
