"""A disk that fills up, at whatever moment: the job ends with a clear end, nothing else is harmed, and it goes on once there is room."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from contracts.durable import damage, write_aside
from contracts.errors import Full
from contracts.events import Stopped
from contracts.job import EpochScores
from contracts.job_folder import JobFolder
from contracts.model import read_model
from contracts.room import taken
from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings
from tests.conftest import ROOT
from tests.test_training import write_job
from training_api.checkpoints import Checkpoints, Reached, best_scores

MOMENTS = 20
FILLED = ".filled"
RUNS = """
import os, sys
from pathlib import Path
from contracts.job_folder import JobFolder
from tests.test_full_disk import fill
from training_api import __main__ as job, artefact, previews, publish, train

def learn(folder, moment):
    said, add = 0, JobFolder.add_event
    def count(self, event):
        nonlocal said
        said += 1
        if said == moment:
            fill(Path(folder).parent)
        add(self, event)
    JobFolder.add_event = count
    log = os.open(Path(folder) / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1), os.dup2(log, 2)
    sys.argv = ["training_api", folder]
    sys.stdout.reconfigure(line_buffering=True)
    try:
        code = job.main()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    os._exit(code)

for line in sys.stdin:
    moment, folder = line.rstrip().split(" ", 1)
    child = os.fork()
    if not child:
        learn(folder, int(moment))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs jobs, each as its own process does, and fills the disk at the moment of the n-th event; a process that starts anew each
time would take most of the test's time to import."""


def fill(disk: Path) -> None:
    with open(disk / FILLED, "ab", buffering=0) as file:
        for part in (2**20, 4096):
            while True:
                try:
                    file.write(bytes(part))
                except OSError:
                    break


@pytest.fixture
def runs() -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([sys.executable, "-c", RUNS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def learn(runs: "subprocess.Popen[str]", folder: JobFolder, moment: int = 0) -> int:
    """The exit code of a job; with a disk that is filled at the moment of its n-th event."""
    assert runs.stdin is not None
    assert runs.stdout is not None
    runs.stdin.write(f"{moment} {folder.path}\n")
    runs.stdin.flush()
    return int(runs.stdout.readline())


def test_a_disk_that_fills_up_at_any_moment_ends_the_job_clearly_and_it_goes_on_with_room(
    disk: Path, dataset: Path, runs: "subprocess.Popen[str]"
):
    failed = 0
    for moment in range(1, MOMENTS + 1):
        folder = write_job(disk / f"job-{moment}", dataset, "majority", epochs=4)
        code = learn(runs, folder, moment)
        last = folder.events()[-1]  # all of them can be read
        assert (last.event, code) in (("failed", 1), ("finished", 0)), (moment, last, folder.log_file.read_text())
        if last.event == "failed":
            failed += 1
            assert "disk" in last.cause, (moment, last, folder.log_file.read_text())
            assert "Make room" in last.cure
            assert not folder.model.exists() or read_model(folder.model)
        told = [event.scores.epoch for event in folder.events() if event.event == "epoch"]
        for place in (folder.last, folder.best):
            assert not place.exists() or damage(place) == "", (moment, place)
        (disk / FILLED).unlink()
        if last.event == "failed":
            assert learn(runs, folder) == 0, (moment, folder.log_file.read_text())
            started = [event for event in folder.events() if event.event == "started"]
            assert started[-1].from_epoch == max(told, default=0), moment
        assert folder.events()[-1].event == "finished"
        assert read_model(folder.model).scores == best_scores(folder)
        shutil.rmtree(folder.path)
    assert failed >= MOMENTS - 4  # after the last writings it is too late to fail


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_a_framework_that_cannot_write_is_understood(disk: Path, save):
    folder = JobFolder(disk / "job")
    folder.path.mkdir()
    checkpoints = Checkpoints(folder, lambda _: None)
    reached = Reached(epoch=1, scores=EpochScores(epoch=1, loss=1.0, learning_rate=0.1, seconds=1.0))
    weights = {"a": torch.zeros(10**6)}
    checkpoints.save(lambda aside: save(weights, aside / "weights"), reached)
    fill(disk)
    with pytest.raises(Full, match="disk is full"):
        checkpoints.save(lambda aside: save(weights, aside / "weights"), reached)
    assert damage(folder.last) == ""


def test_a_file_that_finds_no_room_leaves_the_old_one(disk: Path):
    write_aside(disk / "a", "old")
    fill(disk)
    with pytest.raises(Full, match="a could not be written whole"):
        write_aside(disk / "a", os.urandom(100_000))
    assert (disk / "a").read_text() == "old"


def test_a_training_for_which_the_disk_has_no_room_is_not_started(disk: Path, dataset: Path):
    settings = Settings(datasets=dataset.parent, checkpoints=disk / "checkpoints", task_python=Path(sys.executable), launcher="process")
    with TestClient(create_app(settings)) as api:
        fill(disk)
        wish = {"name": "m", "dataset": dataset.name, "engine": "majority", "network": "majority", "backbone": "none"}
        answer = api.post("/v1/jobs", json=wish)
        assert answer.status_code == 507
        assert "need about 2" in answer.json()["cause"]
        assert "Make room" in answer.json()["cure"]
        assert api.get("/v1/jobs").json() == []
        (disk / FILLED).unlink()
        assert api.post("/v1/jobs", json=wish).status_code == 201
        api.app.state.jobs.launcher.stop("m", grace=0)


def test_a_long_log_makes_no_room_for_a_training_that_is_to_go_on(disk: Path, dataset: Path):
    settings = Settings(datasets=dataset.parent, checkpoints=disk / "checkpoints", task_python=Path(sys.executable), launcher="process")
    folder = write_job(settings.checkpoints / "m", dataset, "majority")
    folder.add_event(Stopped())
    folder.log_file.write_bytes(os.urandom(15 * 10**6))
    with TestClient(create_app(settings)) as api:
        answer = api.post("/v1/jobs/m/resume")
        assert (answer.status_code, answer.json()["error"]) == (507, "Full"), answer.text


def test_what_a_job_has_on_the_disk_counts_once_and_only_what_its_need_reckons_with(tmp_path: Path):
    folder = JobFolder(tmp_path / "job")
    folder.path.mkdir()
    checkpoints = Checkpoints(folder, lambda _: None)
    for epoch in (1, 2):
        best = EpochScores(epoch=epoch, loss=1.0, learning_rate=0.1, seconds=1.0, mean_iou=epoch / 10, best=True)
        checkpoints.save(lambda aside: (aside / "weights").write_bytes(os.urandom(10**6)), Reached(epoch=epoch, best=best, scores=best))
    folder.log_file.write_bytes(os.urandom(10**7))
    folder.figures_file.write_bytes(os.urandom(10**6))
    assert (folder.last / "weights").samefile(folder.best / "weights")
    assert taken(folder.path) == pytest.approx(2e6, rel=0.05)
    (tmp_path / "elsewhere").symlink_to(folder.path)
    folder.previews.symlink_to(tmp_path)
    assert taken(tmp_path / "elsewhere") == taken(folder.path) == pytest.approx(2e6, rel=0.05)
