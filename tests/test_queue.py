"""The queue: more jobs than the machine can run wait in order, each is launched once, and no GPU is given twice, whoever is killed."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from contracts.answers import Gpu
from contracts.errors import Full, Taken, Unavailable
from contracts.events import Failed, Stage, now
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job, JobRequest
from contracts.job_folder import JobFolder
from docker_sdk_api import launching
from docker_sdk_api import line as line_module
from docker_sdk_api import queue as queue_module
from docker_sdk_api.app import create_app, create_launcher
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers import Pulse, Task
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.line import Line
from docker_sdk_api.plan import Entry, Room, in_order, plan, starts
from docker_sdk_api.queue import Queue
from docker_sdk_api.settings import Settings
from tests.clicks import free_ports
from tests.conftest import text_of
from tests.waits import ROOT, wait_for

MAJORITY = {"engine": "majority", "network": "majority", "backbone": "none"}
LONG = 10_000
ROOM = Room(parallel=1, memory=10**10, free=10**10)
AWAY = Unavailable("The engine does not answer.", "Start it.")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With one place on the CPU."""
    return settings.model_copy(update={"parallel_jobs": 1})


@contextmanager
def serving(settings: Settings, **other: object) -> Iterator[TestClient]:
    """Another service; its trainings are ended with it."""
    app = create_app(settings.model_copy(update=other))
    with TestClient(app) as client:
        yield client
    for job in app.state.jobs.launcher.running():
        app.state.jobs.launcher.stop(job, grace=0)


def post(api: TestClient | httpx.Client, name: str, epochs: int = 1, **wish: object) -> dict:
    body = {**MAJORITY, "name": name, "dataset": "plates", "hyperparameters": {"epochs": epochs, "validate_every": 1}, **wish}
    answer = api.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["status"]


def status(api: TestClient | httpx.Client, name: str) -> dict:
    return api.get(f"/v1/jobs/{name}").json()["status"]


def state(api: TestClient | httpx.Client, name: str) -> str:
    return status(api, name)["state"]


def line(api: TestClient) -> list[str]:
    return [row["job"] for row in api.get("/v1/queue").json()["waiting"]]


def stop(api: TestClient, name: str) -> None:
    api.post(f"/v1/jobs/{name}/stop", json={"keep_best": False})


def starts_told(folder: JobFolder) -> int:
    return sum(event.event == "started" for event in folder.events())


def test_jobs_wait_in_order_and_start_when_the_one_before_ends(api: TestClient, settings: Settings, dataset: Path):
    assert post(api, "a", LONG)["state"] == "starting"
    assert post(api, "b")["state"] == "queued"
    second = post(api, "c")
    assert second["place"]["position"] == 2
    assert second["place"]["of"] == 2
    assert status(api, "b")["stage"] == "queued, place 1 of 2: waits for a place on the CPU, held by a"
    assert status(api, "c")["place"]["reason"] == "waits for b, which is before it"
    stop(api, "a")
    wait_for(lambda: state(api, "b") == "finished" and state(api, "c") == "finished")
    ends = [JobFolder(settings.checkpoints / name) for name in "bc"]
    first = next(event.at for event in ends[1].events() if event.event == "started")
    assert ends[0].events()[-1].at < first
    assert api.get("/v1/queue").json()["waiting"] == []


def test_the_queue_is_put_in_another_order_held_released_and_cancelled(api: TestClient, dataset: Path):
    post(api, "a", LONG)
    for name in "bcd":
        post(api, name)
    post(api, "urgent", priority="high")
    assert line(api) == ["urgent", "b", "c", "d"]
    assert api.post("/v1/queue/d/move", json={"to": 1}).status_code == 200
    assert line(api) == ["d", "urgent", "b", "c"]
    assert status(api, "d")["place"]["priority"] == "high"
    api.post("/v1/queue/d/move", json={"by": 2})
    assert line(api) == ["urgent", "b", "d", "c"]
    api.post("/v1/queue/c/priority", json={"priority": "high"})
    assert line(api) == ["urgent", "c", "b", "d"]
    api.post("/v1/queue/urgent/hold")
    assert status(api, "urgent")["place"]["reason"] == "on hold"
    assert api.delete("/v1/queue/b").status_code == 200
    assert state(api, "b") == "stopped"
    assert api.delete("/v1/queue/b").status_code == 404
    assert api.delete("/v1/jobs/d").status_code == 200
    assert [row["name"] for row in api.get("/v1/deleted").json()] == ["d"]
    stop(api, "a")
    wait_for(lambda: state(api, "c") == "finished")
    assert state(api, "urgent") == "queued"
    api.post("/v1/queue/urgent/release")
    wait_for(lambda: state(api, "urgent") == "finished")
    assert api.post("/v1/jobs/b/resume").status_code == 200
    wait_for(lambda: state(api, "b") == "finished")
    assert api.post("/v1/queue/b/move", json={"to": 1}).status_code == 404
    assert api.post("/v1/queue/b/move", json={}).status_code == 400


def test_a_job_of_the_terminal_starts_at_once_and_takes_a_place(api: TestClient, settings: Settings, dataset: Path):
    post(api, "a", LONG)
    here = Jobs(settings, create_launcher(settings))
    asked = {**MAJORITY, "dataset": "plates", "hyperparameters": {"epochs": LONG}}
    assert here.start(JobRequest(name="typed", **asked), dataset).status.state != "queued"
    stop(api, "a")
    wait_for(lambda: state(api, "a") == "stopped")
    wait_for(lambda: running(api) == ["typed"])
    assert post(api, "b")["place"]["reason"] == "waits for a place on the CPU, held by typed"
    here.stop("typed", keep_best=False)
    wait_for(lambda: state(api, "b") == "finished")


def test_what_keeps_a_waiting_job_from_being_launched_is_said_and_tried_again(
    settings: Settings, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(launching, "AGAIN", 0.5)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with serving(settings, task_python=python) as api:
        post(api, "a", LONG)
        post(api, "b")
        post(api, "c")
        python.chmod(0o644)
        stop(api, "a")
        for name in "bc":  # the engine is asked for once, and keeps all waiting that need it
            wait_for(lambda name=name: "could not be started yet. The engine majority is not installed" in status(api, name)["stage"])
        python.chmod(0o755)
        wait_for(lambda: state(api, "b") == "finished" and state(api, "c") == "finished")


class Troubled(ProcessLauncher):
    """A launcher with trouble, before a task is started and when one is asked about; `lost`: it starts a task, and cannot say so."""

    before: Exception | None = None
    asked: Exception | None = None
    lost = False

    def __init__(self, like: ProcessLauncher) -> None:
        super().__init__(like.checkpoints, like.pythons)
        self.gate = threading.Event()
        self.gate.set()

    def launch(self, task: Task) -> None:
        self.gate.wait(30)
        if self.before is not None:
            raise self.before
        super().launch(task)
        if self.lost:
            self.asked = AWAY
            raise AWAY

    def poll(self, job_id: str) -> Pulse:
        if self.asked is not None:
            raise self.asked
        return super().poll(job_id)


@pytest.fixture
def troubled(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> Troubled:
    monkeypatch.setattr(launching, "AGAIN", 0.5)
    jobs: Jobs = api.app.state.jobs  # type: ignore[attr-defined]
    machine = Troubled(jobs.launcher)  # type: ignore[arg-type]
    jobs.launcher = jobs.line.launcher = machine
    return machine


def running(api: TestClient) -> list[str]:
    return [row["job"] for row in api.get("/v1/queue").json()["running"]]


def test_a_waiting_job_outlives_trouble_at_its_launch_that_passes(api: TestClient, troubled: Troubled, dataset: Path, settings: Settings):
    post(api, "a", LONG)
    post(api, "b")
    troubled.before = AWAY
    stop(api, "a")
    wait_for(lambda: f"could not be started yet. {AWAY}" in status(api, "b")["stage"])
    troubled.before = Full("The disk is full.", "Make room.")
    wait_for(lambda: "could not be started yet. The disk is full. Make room." in status(api, "b")["stage"])
    troubled.before = None
    wait_for(lambda: state(api, "b") == "finished")
    assert starts_told(JobFolder(settings.checkpoints / "b")) == 1


def test_a_launch_whose_word_was_lost_is_found_to_run_and_gives_its_place_back(
    api: TestClient, troubled: Troubled, dataset: Path, settings: Settings
):
    post(api, "a", LONG)
    post(api, "b", LONG)
    post(api, "c")
    troubled.lost = True
    stop(api, "a")
    wait_for(lambda: troubled.asked)
    troubled.lost, troubled.asked = False, None
    queue = api.app.state.jobs.line.queue  # type: ignore[attr-defined]
    wait_for(lambda: queue.entry("b").state == "launched")
    stop(api, "b")
    wait_for(lambda: state(api, "c") == "finished")
    assert starts_told(JobFolder(settings.checkpoints / "b")) == 1


def test_a_waiting_job_waits_on_while_the_disk_is_full(
    api: TestClient, troubled: Troubled, dataset: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    post(api, "a", LONG)
    post(api, "b")
    with monkeypatch.context() as full:
        full.setattr("contracts.room.free", lambda _: 2_000_000)
        stop(api, "a")
        wait_for(lambda: "could not be started yet. Checkpoints, previews and the model need about" in status(api, "b")["stage"])
    wait_for(lambda: state(api, "b") == "finished")
    told = [event.event for event in JobFolder(settings.checkpoints / "b").events()]
    assert told.count("queued") == 1, "it is tried every few seconds, perhaps for days"


def test_a_job_that_learns_after_all_is_not_ended_for_what_was_told_of_it_before(
    api: TestClient, settings: Settings, dataset: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_module, "LINGERS", 0.0)
    post(api, "a", LONG)
    wait_for(lambda: state(api, "a") == "training")
    folder = JobFolder(settings.checkpoints / "a")
    os.kill(_pids(folder.path)[0], signal.SIGSTOP)
    folder.add_event(Failed(cause="It was taken for gone.", cure="Look again."), Stage(state="training", stage="training"))
    api.app.state.jobs.line.settle()  # type: ignore[attr-defined]
    assert api.app.state.jobs.launcher.running() == {"a"}  # type: ignore[attr-defined]


def test_a_job_that_is_being_launched_cannot_be_deleted(api: TestClient, troubled: Troubled, dataset: Path):
    post(api, "a", LONG)
    post(api, "b")
    troubled.gate.clear()
    stop(api, "a")
    wait_for(lambda: state(api, "b") == "starting")
    assert api.delete("/v1/jobs/b").status_code == 409
    troubled.gate.set()
    wait_for(lambda: state(api, "b") == "finished")


def test_what_nobody_foresaw_is_told_and_the_queue_goes_on(
    api: TestClient, troubled: Troubled, dataset: Path, caplog: pytest.LogCaptureFixture
):
    post(api, "a", LONG)
    troubled.asked = TypeError("nobody foresaw this")
    wait_for(lambda: "TypeError: nobody foresaw this" in caplog.text)
    troubled.asked = None
    post(api, "b")
    stop(api, "a")
    wait_for(lambda: state(api, "b") == "finished")


def test_a_damaged_job_does_not_stop_the_others(api: TestClient, settings: Settings, dataset: Path):
    (settings.checkpoints / "damaged").mkdir()
    (settings.checkpoints / "damaged" / "job.json").write_text("{")
    post(api, "a")
    wait_for(lambda: state(api, "a") == "finished")
    assert [view["job"]["name"] for view in api.get("/v1/jobs").json()] == ["a"]


def test_the_queue_is_seen_while_somebody_writes_it(api: TestClient, settings: Settings, dataset: Path):
    post(api, "a", LONG)
    post(api, "b")
    with closing(sqlite3.connect(settings.checkpoints / ".maskwright" / "queue.db", timeout=30)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        api.app.state.jobs.line.wake()  # type: ignore[attr-defined]  # what was seen a moment ago is forgotten
        answers = [api.get("/v1/queue"), api.get("/v1/jobs/b")]
        writer.rollback()
    assert [row["job"] for row in answers[0].json()["waiting"]] == ["b"]
    assert answers[1].json()["status"]["place"]["position"] == 1


def test_a_database_that_kept_somebody_waiting_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queue_module, "PATIENCE", 1.5)
    queue = Queue(tmp_path)
    assert queue.entries() == []
    with closing(sqlite3.connect(queue.file)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="database is locked"):
            queue.put(waiting("a", 1))
    with pytest.raises(Unavailable, match="database is locked"):  # so nobody waited for it
        queue.put(waiting("a", 1))
    assert queue.entries() == []

    def put() -> list[Entry]:
        with suppress(Unavailable):
            queue.put(waiting("a", 1))
        return queue.entries()

    assert [entry.job for entry in wait_for(put)] == ["a"]


def test_a_job_that_waits_is_not_removed_as_one_kept_long_enough(api: TestClient, dataset: Path):
    post(api, "a", LONG)
    post(api, "b")
    with pytest.raises(Taken, match="waits for its turn"):
        api.app.state.jobs.delete("b", waiting=False)  # type: ignore[attr-defined]
    assert line(api) == ["b"]


class TwoGpus(ProcessLauncher):
    """A machine with two GPUs, of whose memory other programs hold a share; `silent`: whose driver does not answer."""

    shares = (0.0, 0.0)
    silent = False

    def gpus(self) -> Gpus:
        if self.silent:
            return Gpus([], "No NVIDIA driver answers: jobs run on the CPU.")
        rows = [Gpu(id=id, name="A100", memory_total=1000, memory_free=round(1000 * (1 - share))) for id, share in enumerate(self.shares)]
        return Gpus(rows)


def on_gpus(api: TestClient, dataset: Path, name: str, gpus: list[int], epochs: int = 1) -> None:
    """A job of the quick engine that asks for GPUs, which it would be refused over the API."""
    jobs: Jobs = api.app.state.jobs  # type: ignore[attr-defined]
    job = Job(
        name=name,
        dataset="plates",
        **MAJORITY,
        gpus=gpus,
        dataset_folder=dataset,
        created=now(),
        hyperparameters=Hyperparameters(epochs=epochs),
    )
    jobs.add(job, lambda _: None)


@pytest.fixture
def two_gpus(api: TestClient) -> TwoGpus:
    jobs: Jobs = api.app.state.jobs  # type: ignore[attr-defined]
    machine = TwoGpus(jobs.launcher.checkpoints, jobs.launcher.pythons)  # type: ignore[attr-defined]
    jobs.launcher = jobs.line.launcher = machine
    return machine


def test_a_gpu_is_never_given_twice_and_nobody_passes_who_waits_for_it(api: TestClient, two_gpus: TwoGpus, dataset: Path):
    on_gpus(api, dataset, "first", [0], LONG)
    on_gpus(api, dataset, "both", [0, 1])
    on_gpus(api, dataset, "second", [1])
    assert status(api, "both")["place"]["reason"] == "waits for GPU 0, held by first"
    assert status(api, "second")["place"]["reason"] == "waits for GPU 1, after both"
    post(api, "cpu", LONG)
    assert state(api, "cpu") != "queued"  # it takes nothing from them
    api.post("/v1/queue/both/hold")
    wait_for(lambda: state(api, "second") == "finished")
    api.post("/v1/queue/both/release")
    stop(api, "first")
    wait_for(lambda: state(api, "both") == "finished")
    both, first = (JobFolder(api.app.state.settings.checkpoints / name) for name in ("both", "first"))  # type: ignore[attr-defined]
    assert first.events()[-1].at < next(event.at for event in both.events() if event.event == "started")


class TwoTroubledGpus(Troubled, TwoGpus):
    """A machine with two GPUs, and with trouble."""


def test_a_launch_at_once_whose_word_was_lost_fails_nothing_and_keeps_its_gpu(api: TestClient, dataset: Path, settings: Settings):
    jobs: Jobs = api.app.state.jobs  # type: ignore[attr-defined]
    machine = jobs.launcher = jobs.line.launcher = TwoTroubledGpus(jobs.launcher)  # type: ignore[arg-type]
    first, second = (JobFolder(settings.checkpoints / name) for name in ("first", "second"))

    def is_found(times: int) -> bool:
        machine.lost, machine.asked = False, None
        entry = jobs.line.queue.entry("first")
        return entry is not None and entry.state == "launched" and starts_told(first) == times

    machine.lost = True
    on_gpus(api, dataset, "first", [0], LONG)
    wait_for(lambda: is_found(1))
    stop(api, "first")
    wait_for(lambda: state(api, "first") == "stopped" and not running(api))
    machine.lost = True
    assert api.post("/v1/jobs/first/resume").status_code == 200
    machine.asked = None
    on_gpus(api, dataset, "second", [0])
    assert status(api, "second")["place"]["reason"] == "waits for GPU 0, held by first"
    wait_for(lambda: is_found(2))
    stop(api, "first")
    wait_for(lambda: state(api, "second") == "finished")
    assert "failed" not in [event.event for event in first.events()]
    assert first.events()[-1].at < next(event.at for event in second.events() if event.event == "started")


def test_a_launch_at_once_that_came_to_nothing_is_refused_and_leaves_nothing(api: TestClient, troubled: Troubled, dataset: Path):
    troubled.before = AWAY
    wish = {**MAJORITY, "name": "a", "dataset": "plates", "hyperparameters": {"epochs": 1}}
    assert api.post("/v1/jobs", json=wish).status_code == 503
    assert (running(api), api.get("/v1/jobs").json()) == ([], [])
    troubled.before = None
    post(api, "a")
    wait_for(lambda: state(api, "a") == "finished")


def test_a_job_that_cannot_wait_is_refused_a_held_gpu(api: TestClient, two_gpus: TwoGpus, dataset: Path, settings: Settings):
    on_gpus(api, dataset, "first", [0], LONG)
    api.app.state.jobs.launching.waits = False  # type: ignore[attr-defined]
    with pytest.raises(Taken, match="GPU 0 is held by the job “first”"):
        on_gpus(api, dataset, "second", [0])
    assert not (settings.checkpoints / "second").exists()


def test_a_gpu_that_other_programs_use_is_waited_for_or_warned_of(api: TestClient, two_gpus: TwoGpus, dataset: Path):
    two_gpus.shares = (0.5, 0.1)
    on_gpus(api, dataset, "a", [0])
    on_gpus(api, dataset, "b", [1])
    assert "waits for GPU 0: Other programs hold" in status(api, "a")["place"]["reason"]
    wait_for(lambda: state(api, "b") == "finished")
    assert "on GPU 1 (A100) as this job starts" in status(api, "b")["warnings"][0]
    two_gpus.shares = (0.0, 0.0)
    wait_for(lambda: state(api, "a") == "finished")
    assert not [said for said in status(api, "a")["warnings"] if "GPU" in said]


def test_a_driver_that_does_not_answer_for_a_moment_is_waited_for(api: TestClient, two_gpus: TwoGpus, dataset: Path):
    line: Line = api.app.state.jobs.line  # type: ignore[attr-defined]
    two_gpus.silent = True
    room_before = line.room()
    on_gpus(api, dataset, "a", [0])
    on_gpus(api, dataset, "beyond", [7])
    assert line.queue.take(room_before) is None, "a job whose GPUs nobody has looked at yet"
    assert status(api, "a")["place"]["reason"] == "waits for GPU 0: No NVIDIA driver answers: jobs run on the CPU."
    two_gpus.silent = False
    wait_for(lambda: state(api, "a") == "finished")
    wait_for(lambda: status(api, "beyond")["place"]["reason"] == "waits for GPU 7: it is not there")


@contextmanager
def service(settings: Settings, **other: object) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """docker_sdk_api in a process of its own, killed at the end."""
    port = free_ports()["SDK_PORT"]
    chosen = {"SDK_PORT": port, "DATASETS": settings.datasets, "CHECKPOINTS": settings.checkpoints, "TASK_PYTHON": sys.executable, **other}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in chosen.items()}}
    settings.checkpoints.mkdir(exist_ok=True)
    with open(settings.checkpoints / ".service.log", "ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "docker_sdk_api"], env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            wait_for(lambda: process.poll() is None and _answers(client))
            yield client, process
    finally:
        process.kill()
        process.wait(timeout=30)


def _answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/v1/health").is_success
    return False


def ended_well(settings: Settings, names: list[str]) -> bool:
    """Whether all have finished, each launched once, and none while as many as may be were running."""
    folders = [JobFolder(settings.checkpoints / name) for name in names]
    if not all(folder.events()[-1].event == "finished" for folder in folders):
        return False
    assert [starts_told(folder) for folder in folders] == [1] * len(folders)
    return True


def launch_all_once(settings: Settings, count: int, **other: object) -> None:
    with service(settings, PARALLEL_JOBS=3, **other) as (one, process), service(settings, PARALLEL_JOBS=3, **other) as (another, _):
        names = [f"job-{number}" for number in range(count)]
        for number, name in enumerate(names):
            post(one if number % 2 else another, name)
        process.send_signal(signal.SIGKILL)  # and the other one goes on with what both were given
        wait_for(lambda: ended_well(settings, names), 180)
        wait_for(lambda: another.get("/v1/queue").json() == {"waiting": [], "running": [], "parallel_jobs": 3})


def test_two_services_and_one_killed_launch_each_of_twenty_jobs_once(settings: Settings, dataset: Path):
    launch_all_once(settings, 20)


def test_two_services_on_postgresql_launch_each_job_once(settings: Settings, dataset: Path):
    with postgresql() as url:
        launch_all_once(settings, 6, DATABASE_URL=url)


def test_a_service_that_is_killed_in_mid_queue_finds_all_as_it_was(settings: Settings, dataset: Path):
    try:
        with service(settings, PARALLEL_JOBS=1) as (api, _):
            for name, epochs in (("a", LONG), ("b", 1), ("c", 1)):
                post(api, name, epochs)
            api.post("/v1/queue/c/move", json={"to": 1})
        with service(settings, PARALLEL_JOBS=1) as (api, _):
            found = api.get("/v1/queue").json()
            assert [row["job"] for row in found["waiting"]] == ["c", "b"]
            assert [row["job"] for row in found["running"]] == ["a"]
            assert state(api, "a") in ("starting", "training")
            api.post("/v1/jobs/a/stop", json={"keep_best": False})
            wait_for(lambda: state(api, "b") == "finished" and state(api, "c") == "finished")
            wait_for(lambda: ended_well(settings, ["b", "c"]))
    finally:
        launcher = create_launcher(settings)
        for job in launcher.running():
            launcher.stop(job, grace=0)


def test_a_launch_that_a_killed_service_did_not_finish_is_done_by_the_next(api: TestClient, settings: Settings, dataset: Path):
    post(api, "a", LONG)
    post(api, "b")
    queue = api.app.state.jobs.line.queue  # type: ignore[attr-defined]
    dead = Queue(settings.checkpoints)
    dead.owner = "/".join([*queue.owner.split("/")[:2], str(2**22 + 1), "1"])
    taken = dead.take(Room(2, 10**12, 10**12))
    assert taken is not None
    assert taken.job == "b"
    wait_for(lambda: line(api) == ["b"])
    stop(api, "a")
    wait_for(lambda: state(api, "b") == "finished")


def test_a_lost_database_is_made_anew_of_the_jobs_folders(settings: Settings, dataset: Path):
    with serving(settings) as api:
        post(api, "a", LONG)
        for name in "bc":
            post(api, name)
            time.sleep(0.01)
        shutil.rmtree(settings.checkpoints / ".maskwright")
        with serving(settings) as again:
            wait_for(lambda: line(again) == ["b", "c"])
            assert [row["job"] for row in again.get("/v1/queue").json()["running"]] == ["a"]


@contextmanager
def postgresql() -> Iterator[str]:
    """A cluster of its own: its address."""
    places = [Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    programs = next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install -y postgresql)")
    port, home = free_ports()["SDK_PORT"], Path(tempfile.mkdtemp(prefix="maskwright-postgresql-"))
    whose = {}
    if os.geteuid() == 0:  # which it refuses to run as
        shutil.chown(home, "postgres", "postgres")
        whose = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def run(program: str, *words: str) -> None:
        command = [str(programs / program), *words]
        subprocess.run(command, cwd=home, check=True, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **whose)

    data = str(home / "data")
    try:
        run("initdb", "-D", data, "-U", "maskwright", "-A", "trust", "--no-sync")
        run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -F", "start")
        try:
            yield f"postgresql://maskwright@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_the_page_says_what_waits_and_its_buttons_need_no_script(gui: TestClient, api: TestClient, dataset: Path):
    post(api, "a", LONG)
    for name in "bc":
        post(api, name)
    page = text_of(gui.get("/queue"))
    assert "place 1 b CPU waits for a place on the CPU, held by a" in page
    assert "One training learns on the CPU at once" in page
    waiting = text_of(gui.get("/")).split(" Waiting ")[1]
    assert waiting.index("place 1 of 2") < waiting.index("place 2 of 2") < waiting.index("The queue")
    assert "/datasets/plates/augmented?" in gui.get("/jobs/c").text, "what it will be shown is the first picture of a job"
    for wish, order in (("first", ["c", "b"]), ("down", ["b", "c"]), ("high", ["c", "b"]), ("hold", ["c", "b"])):
        assert gui.post("/queue/c", data={"do": wish}, follow_redirects=False).headers["location"].endswith("/queue")
        assert line(api) == order, wish
    assert "on hold" in text_of(gui.get("/queue"))
    assert gui.post("/queue/c", data={"do": "magic"}).status_code == 400
    for address in ("/jobs", "/jobs/c"):
        assert "queued" in text_of(gui.get(address)), address
    gui.post("/queue/c", data={"do": "cancel"})
    assert state(api, "c") == "stopped"
    gui.post("/jobs/b/stop", data={"keep_best": "false"})
    assert state(api, "b") == "stopped"
    assert "No job waits" in text_of(gui.get("/queue"))


def test_the_wizard_carries_limits_and_priority_to_the_job_and_to_its_clone(gui: TestClient, api: TestClient, dataset: Path):
    chosen = {"dataset": "plates", "network": "majority/majority/none", "name": "m", "cpus": "0.5", "priority": "high"}
    wrong = gui.get("/train/review", params={**chosen, "cpus": "many"})
    assert "Give a number above 0 and up to 4096" in text_of(wrong)
    review = gui.get("/train/review", params=chosen)
    assert "0.5 cores at most, high priority" in text_of(review)
    assert "--cpus 0.5 --priority high" in text_of(review)
    assert gui.post("/train", data=chosen, follow_redirects=False).status_code == 303
    job = api.get("/v1/jobs/m").json()["job"]
    assert (job["cpus"], job["priority"], job["memory_limit"]) == (0.5, "high", None)
    assert "cpus=0.5&priority=high" in gui.get("/wizard?clone=m", follow_redirects=False).headers["location"]
    wait_for(lambda: state(api, "m") == "finished")


def waiting(name: str, rank: float, **facts: object) -> Entry:
    return Entry(job=name, rank=rank, **facts)  # type: ignore[arg-type]


def test_memory_is_waited_for_but_by_the_first_job_never():
    large = waiting("large", 1, memory=20 * 10**9)
    assert plan([large], ROOM, 0)["large"] == ""
    idle = Entry("idle", "launched", memory=4 * 10**9, counted=False)  # waits for its old client, perhaps for days
    assert plan([idle, large], ROOM, 0)["large"] == ""
    running = Entry("running", "launched", memory=4 * 10**9, gpus=(1,))
    reasons = plan([running, large, waiting("small", 2, memory=1, gpus=(0,))], ROOM, 0)
    assert reasons["large"] == "waits for memory: it takes about 20.0 GB, and 6.0 GB are free for it"
    assert reasons["small"] == "waits for memory, after large"


def test_memory_that_is_free_is_given_once(tmp_path: Path):
    room = Room(parallel=8, memory=20 * 10**9, free=8 * 10**9)
    lacks = "waits for memory: it takes about 6.0 GB, and 2.0 GB are free for it"
    second = waiting("second", 2, memory=6 * 10**9)
    assert plan([waiting("first", 1, memory=6 * 10**9), second], room, 0) == {"first": "", "second": lacks}
    first = Entry("first", "launched", memory=6 * 10**9, until=60.0)
    assert plan([first, second], room, 59) == {"second": lacks}, "it has not taken its memory yet"
    assert plan([first, second], room, 61) == {"second": ""}
    queue = Queue(tmp_path)
    assert queue.put(replace(first, state="waiting", until=0.0), room) is not None
    queue.launched("first")
    assert queue.put(second, room) is None


def test_a_job_that_another_service_put_among_those_that_wait_still_takes_its_turn_at_once(tmp_path: Path):
    queue = Queue(tmp_path)
    for name in ("first", "typed"):
        queue.put(waiting(name, 1))
    assert queue.put(waiting("typed", 2), ROOM, at_once=True).state == "launching"  # type: ignore[union-attr]
    assert queue.put(waiting("typed", 3), ROOM, at_once=True) is None


def test_when_a_job_starts_is_reckoned_from_what_is_known_and_else_not_said():
    line = [Entry("running", "launched"), waiting("b", 1), waiting("c", 2), waiting("d", 3)]
    told = starts(line, ROOM, {"running": 60.0}, {"b": 30.0, "c": None, "d": 5.0})
    assert told == {"b": 60.0, "c": 90.0}
    assert starts(line, ROOM, {"running": None}, {}) == {}


def test_of_two_priorities_and_one_rank_the_order_is_still_one():
    rows = [waiting("b", 1), waiting("a", 1), waiting("low", 0, priority=0), waiting("high", 9, priority=2)]
    assert [entry.job for entry in in_order(rows)] == ["high", "a", "b", "low"]


def test_limits_that_nothing_would_keep_are_refused_and_cores_are_told_to_the_job(api: TestClient, settings: Settings, dataset: Path):
    many = {**MAJORITY, "name": "m", "dataset": "plates", "cpus": 4096}
    assert "4096 cores, and this machine has" in api.post("/v1/jobs", json=many).json()["cause"]
    heavy = api.post("/v1/jobs", json={**many, "cpus": None, "memory_limit": 500})
    assert heavy.status_code == 400
    assert "cannot be held to a memory limit" in heavy.json()["cause"]
    post(api, "m", LONG, cpus=1)
    pid = wait_for(lambda: next(iter(_pids(settings.checkpoints / "m")), None))
    assert b"OMP_NUM_THREADS=1" in wait_for(lambda: Path(f"/proc/{pid}/environ").read_bytes()).split(b"\0")


def _pids(folder: Path) -> list[int]:
    return [pid for file in [folder / "task.json"] if file.exists() and (pid := json.loads(file.read_bytes())["pid"])]


def test_a_container_is_given_the_limits_of_its_job(settings: Settings, dataset: Path):
    jobs = Jobs(settings.model_copy(update={"launcher": "container", "job_memory": 10**9}), ProcessLauncher(settings.checkpoints, {}))
    job = Job(name="m", dataset="plates", **MAJORITY, dataset_folder=dataset, created=now(), hyperparameters=Hyperparameters())
    for asked, limit in ((None, 10**9), (64, 64_000_000)):
        task = jobs.launching.task(job.model_copy(update={"memory_limit": asked, "cpus": 1.5}), JobFolder(settings.checkpoints / "m"))
        assert (task.limits.memory_bytes, task.limits.cpus) == (limit, 1.5)
