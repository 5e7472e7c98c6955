"""What a training, or the service that looks after it, survives: kills at any instant, crashes, hangs, too little memory, a restart."""

import errno
import json
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import docker
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from contracts.durable import damage
from contracts.errors import Unavailable
from contracts.events import Failed, Queued, Resumed, Stage, Started, Stopped
from contracts.job_folder import JobFolder
from contracts.model import read_model
from docker_sdk_api.app import create_app
from docker_sdk_api.ends import Ends
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers import Pulse, Task
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.logs import LineReader
from docker_sdk_api.settings import Settings
from docker_sdk_api.standing import Standing
from tests.conftest import wait_for
from tests.engine import containers_of, engine
from tests.test_training import write_job
from training_api.checkpoints import best_scores

KILLS = int(os.environ.get("MASKWRIGHT_TEST_KILLS", "10"))
LONG = {"epochs": 3000, "validate_every": 1}
IMAGE = "pytorch_semantic_segmentation_training_api_cpu"


@pytest.fixture
def api(sdk_app: FastAPI) -> Iterator[TestClient]:
    """docker_sdk_api whose own look at the ends of jobs never starts: each test looks when it wants to."""
    yield TestClient(sdk_app)
    for job in sdk_app.state.jobs.launcher.running():
        sdk_app.state.jobs.launcher.stop(job, grace=0)


def start(api: TestClient, dataset: Path, name: str = "m", **settings: object) -> JobFolder:
    names = {"name": name, "dataset": dataset.name, "engine": "majority", "network": "majority", "backbone": "none"}
    answer = api.post("/v1/jobs", json={**names, "hyperparameters": {**LONG, **settings}})
    assert answer.status_code == 201, answer.text
    return JobFolder(api.app.state.settings.checkpoints / name)  # type: ignore[attr-defined]


def status(api: TestClient, name: str = "m") -> dict:
    return api.get(f"/v1/jobs/{name}").json()["status"]


def pid(folder: JobFolder) -> int:
    return int(json.loads(folder.task_file.read_bytes())["pid"])


def epochs_told(folder: JobFolder) -> int:
    return max((event.scores.epoch for event in folder.events() if event.event == "epoch"), default=0)


def started_again(folder: JobFolder) -> int:
    """The epoch after which a job goes on that was just resumed."""

    def after() -> list[int]:
        kinds = [event.event for event in folder.events()]
        resumed = len(kinds) - kinds[::-1].index("resumed")
        return [event.from_epoch for event in folder.events()[resumed:] if event.event == "started"]

    return wait_for(after)[0]


def learning(folder: JobFolder, beyond: int = 0) -> int:
    """The epochs that are told of, once they are more than so many."""
    return wait_for(lambda: (told := epochs_told(folder)) > beyond and told)


def strike(api: TestClient, folder: JobFolder, number: signal.Signals) -> dict:
    """Signal the training and wait for what is then said of it."""
    os.kill(pid(folder), number)
    return wait_for(lambda: (found := status(api, folder.name))["state"] == "failed" and found)


def writing(folder: JobFolder) -> bool:
    """Whether a checkpoint is being written at this instant."""
    return (folder.path / ".last.new").exists() or (folder.path / ".best.new").exists()


@pytest.mark.timeout(max(300, 30 * KILLS))
def test_a_training_killed_at_any_instant_goes_on_and_loses_no_epoch_that_was_told(api: TestClient, dataset: Path):
    chance = random.Random(9)
    folder, torn = start(api, dataset), 0
    for number in range(KILLS):
        told = learning(folder, epochs_told(folder))
        if number % 2:
            wait_for(lambda: writing(folder), 20)
        time.sleep(chance.uniform(0, 0.02))
        seen = strike(api, folder, signal.SIGKILL)
        torn += writing(folder)
        assert "killed" in seen["cause"]
        assert seen["cure"].startswith("Resume it")
        told = epochs_told(folder)
        assert api.post("/v1/jobs/m/resume").status_code == 200
        assert told <= started_again(folder) <= told + 1
    print(f"killed {KILLS} times, {torn} of them while a checkpoint was being written; no epoch that was told had to be learnt again")
    learning(folder, epochs_told(folder))
    api.post("/v1/jobs/m/stop", json={"keep_best": True})
    wait_for(lambda: status(api)["state"] == "finished")
    history = [scores["epoch"] for scores in status(api)["history"]]
    assert history == list(range(1, len(history) + 1))
    assert read_model(folder.model).scores == best_scores(folder)
    assert damage(folder.last) == damage(folder.best) == ""
    rows = [row.split(",") for row in folder.figures_file.read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows if row[4]] == history


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGSEGV, "crashed with SIGSEGV"), (signal.SIGABRT, "crashed with SIGABRT"), (signal.SIGTERM, "outside")]
)
def test_a_crash_is_called_by_its_name(api: TestClient, dataset: Path, number: signal.Signals, cause: str):
    folder = start(api, dataset)
    learning(folder)
    seen = strike(api, folder, number)
    assert cause in seen["cause"]
    assert "Resume it" in seen["cure"]


def another(api: TestClient, **settings: object) -> FastAPI:
    """Another service over the same folder, with other settings: it looks when it is told to."""
    app: FastAPI = api.app  # type: ignore[assignment]
    jobs: Jobs = app.state.jobs
    return create_app(jobs.settings.model_copy(update=settings))


def looking(api: TestClient, **settings: object) -> Ends:
    """What looks after the ends of jobs in another service."""
    return Ends(another(api, **settings).state.jobs)


def test_a_training_that_hangs_is_ended_and_said_to(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    os.kill(pid(folder), signal.SIGSTOP)
    ends = looking(api, silent_minutes=0.5 / 60)
    ends.look()
    assert status(api)["state"] == "training"
    time.sleep(0.6)
    ends.look()
    seen = status(api)
    assert seen["state"] == "failed"
    assert "hung: nothing was heard" in seen["cause"]
    assert not api.app.state.jobs.launcher.running()  # type: ignore[attr-defined]
    assert api.post("/v1/jobs/m/resume").status_code == 200
    learning(folder, epochs_told(folder))


def test_a_training_that_hangs_and_was_to_stop_is_stopped_and_stays_so(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    os.kill(pid(folder), signal.SIGSTOP)
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    ends = looking(api, silent_minutes=0.5 / 60, resume_by_itself=5)
    ends.look()
    time.sleep(0.6)
    for _ in range(2):
        ends.look()
        assert status(api)["state"] == "stopped"


@dataclass
class OfAFullCluster(ProcessLauncher):
    """A job of it waits for room, and its folder says nothing meanwhile."""

    checkpoints: Path
    pythons: dict[str, Path] = field(default_factory=dict)

    def poll(self, _: str) -> Pulse:
        return Pulse(alive=True, waits=True, note="waiting until one of 3 nodes has 1 GPU free")


def test_a_job_that_waits_for_room_does_not_hang(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    os.kill(pid(folder), signal.SIGSTOP)
    ends = looking(api, silent_minutes=0.2 / 60)
    ends.jobs.launcher = OfAFullCluster(folder.path.parent)
    for _ in range(3):
        ends.look()
        time.sleep(0.3)
    assert "failed" not in [event.event for event in folder.events()]
    os.kill(pid(folder), signal.SIGKILL)


def test_a_failure_with_a_very_long_cause_is_an_end_like_any_other(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    wait_for(lambda: status(api)["state"] == "stopped")
    folder.add_event(Failed(cause="a word " * 5000, cure="Less of it."))
    looking(api, resume_by_itself=2).look()
    assert status(api)["state"] == "failed"


def test_a_line_that_cannot_be_read_hides_nothing_that_was_told_after_it(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    with folder.events_file.open("a") as events:
        events.write('{"event":"progress","epoch":1,"step":1,"steps":2,"loss":null,"pictures_per_second":1,"seconds_left":1}\n')
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    wait_for(lambda: status(api)["state"] == "stopped")
    assert [row["job"]["name"] for row in api.get("/v1/jobs").json()] == ["m"]
    assert status(api)["warnings"] == ["A line of events.jsonl cannot be read: what it told is not shown here."]
    assert api.post("/v1/jobs/m/resume").status_code == 200
    learning(folder, epochs_told(folder))


def test_a_job_that_is_heard_of_is_given_time_to_stop(api: TestClient, dataset: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("docker_sdk_api.ends.PATIENCE", 1.0)
    folder = start(api, dataset)
    learning(folder)
    os.kill(pid(folder), signal.SIGSTOP)
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    ends = looking(api)  # a service that was started after the one that was asked
    for number in range(10):
        folder.add_event(Stage(state="training", stage=f"scoring the validation pictures, {number} of 500"))
        ends.look()
        time.sleep(0.3)
    assert api.app.state.jobs.launcher.running() == {"m"}  # type: ignore[attr-defined]
    time.sleep(1.0)
    ends.look()
    assert status(api)["state"] == "stopped"


def test_a_training_that_says_something_does_not_hang(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    ends = looking(api, silent_minutes=20 / 60)
    for _ in range(3):
        learning(folder, epochs_told(folder))
        ends.look()
    assert status(api)["state"] == "training"


def test_a_training_that_died_unseen_is_resumed_by_itself_as_often_as_asked(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    ends = looking(api, resume_by_itself=2)
    for _ in range(2):
        told = learning(folder, epochs_told(folder))
        strike(api, folder, signal.SIGKILL)
        ends.look()
        assert status(api)["state"] != "failed"
        learning(folder, told)
    strike(api, folder, signal.SIGKILL)
    ends.look()
    assert status(api)["state"] == "failed"
    assert folder.events()[-1].event == "failed"
    api.post("/v1/jobs/m/resume")
    assert status(api)["resumed_by_itself"] == 0


class Hiccup(ProcessLauncher):
    """A launcher that does not answer once, when it is asked for `what`."""

    def __init__(self, like: ProcessLauncher, what: str) -> None:
        super().__init__(like.checkpoints, like.pythons)
        self.what = what

    def stop(self, job_id: str, grace: float) -> None:
        self._fail("stop")
        super().stop(job_id, grace)

    def remove(self, job_id: str) -> None:
        self._fail("remove")
        super().remove(job_id)

    def launch(self, task: Task) -> None:
        self._fail("launch")
        super().launch(task)

    def _fail(self, what: str) -> None:
        if what == self.what:
            self.what = ""
            raise Unavailable("The engine does not answer.", "Start it.")


@pytest.mark.parametrize("what", ["stop", "remove", "launch"])
def test_a_training_is_resumed_by_itself_whatever_goes_wrong_for_a_moment_meanwhile(
    api: TestClient, dataset: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    monkeypatch.setattr("docker_sdk_api.launching.AGAIN", 0.1)
    folder = start(api, dataset)
    told = learning(folder)
    strike(api, folder, signal.SIGKILL)
    service = another(api, resume_by_itself=1)
    jobs, ends = service.state.jobs, Ends(service.state.jobs)
    jobs.launcher = jobs.line.launcher = machine = Hiccup(jobs.launcher, what)

    def goes_on() -> bool:
        ends.look()
        service.state.dispatch.look()
        return epochs_told(folder) > told

    wait_for(goes_on)
    assert machine.what == "", "it never went wrong"
    assert status(api)["resumed_by_itself"] == 1
    assert [event.event for event in folder.events()].count("failed") == 1


def test_a_training_that_crashed_after_it_was_asked_to_stop_is_not_resumed_by_itself(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    os.kill(pid(folder), signal.SIGSTOP)
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    os.kill(pid(folder), signal.SIGSEGV)
    os.kill(pid(folder), signal.SIGCONT)
    wait_for(lambda: status(api)["state"] == "failed")
    looking(api, resume_by_itself=5).look()
    assert folder.events()[-1].event == "failed"


def test_a_training_that_was_to_stop_and_had_to_be_killed_is_stopped_and_stays_so(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    os.kill(pid(folder), signal.SIGSTOP)  # it will never read its stop file
    api.post("/v1/jobs/m/stop", json={"keep_best": False})
    os.kill(pid(folder), signal.SIGKILL)
    wait_for(lambda: status(api)["state"] == "stopped")
    looking(api, resume_by_itself=5).look()
    assert status(api)["state"] == "stopped"


def test_a_machine_that_was_started_anew_is_named(api: TestClient, dataset: Path):
    folder = start(api, dataset)
    learning(folder)
    strike(api, folder, signal.SIGKILL)
    boot = next(event.boot for event in folder.events() if event.event == "started")
    folder.events_file.write_text(folder.events_file.read_text().replace(boot, str(uuid.uuid4())))
    again = looking(api)
    assert "The machine was started anew" in again.jobs.status("m").cause


def test_a_machine_that_was_started_anew_before_a_job_was_resumed_is_not_named_again(api: TestClient, dataset: Path, settings: Settings):
    folder = write_job(settings.checkpoints / "m", dataset, "majority", epochs=1)
    folder.add_event(
        Started(epochs=1, device="cpu", boot=str(uuid.uuid4())), Failed(cause="The machine was started anew.", cure="Resume it.")
    )
    folder.add_event(Resumed(), Queued(), Stage(state="starting", stage="starting"))
    assert status(api)["cause"].startswith("The training is gone, and nobody saw it end")


def test_a_look_that_goes_wrong_in_the_middle_loses_nothing_that_was_told(
    dataset: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    folder = write_job(settings.checkpoints / "m", dataset, "majority", epochs=1)
    folder.add_event(Started(epochs=1, device="cpu"), Failed(cause="It was killed.", cure="Resume it."))
    standing = Standing()
    assert standing.status(folder).state == "failed"
    folder.add_event(Resumed(), Stage(state="training", stage="training"))
    read, looks = LineReader.read, iter((False, True))

    def read_once(reader: LineReader) -> object:
        if next(looks):
            raise OSError(errno.EMFILE, "Too many open files")
        return read(reader)

    with monkeypatch.context() as few:
        few.setattr(LineReader, "read", read_once)
        with pytest.raises(OSError, match="Too many open files"):
            standing.status(folder)
    seen = standing.status(folder)
    assert (seen.state, seen.ended, seen.cause) == ("training", None, "")


class OneStays(ProcessLauncher):
    """A launcher with three ended tasks, of which one cannot be removed."""

    def __init__(self, like: ProcessLauncher) -> None:
        super().__init__(like.checkpoints, like.pythons)
        self.removed: set[str] = set()

    def held(self) -> set[str]:
        return {"a", "b", "c"}

    def remove(self, job_id: str) -> None:
        if job_id == "b":
            raise Unavailable("The Docker engine refused: device or resource busy.", "Look at its log.")
        self.removed.add(job_id)


def test_what_one_job_leaves_for_good_keeps_nobody_from_removing_what_the_others_left(
    api: TestClient, dataset: Path, settings: Settings, caplog: pytest.LogCaptureFixture
):
    for name in "abc":
        write_job(settings.checkpoints / name, dataset, "majority", epochs=1).add_event(Stopped())
    ends = looking(api)
    ends.jobs.launcher = machine = OneStays(ends.jobs.launcher)  # type: ignore[arg-type]
    ends.look()
    ends.tidy()
    assert machine.removed == {"a", "c"}
    assert "What b has left could not be removed: The Docker engine refused" in caplog.text


def test_a_service_that_died_while_a_job_was_added_leaves_its_name_free(api: TestClient, dataset: Path, settings: Settings):
    left = settings.checkpoints / ".m.new"
    left.mkdir(parents=True)
    (left / "artefact").mkdir()
    folder = start(api, dataset, epochs=1)
    wait_for(lambda: status(api)["state"] == "finished")
    assert not folder.artefact.exists()
    assert not left.exists()


def test_a_job_that_was_written_down_and_never_launched_is_shown_and_goes_on(api: TestClient, dataset: Path, settings: Settings):
    folder = write_job(settings.checkpoints / "m", dataset, "majority", epochs=1)
    assert status(api)["state"] == "failed"
    looking(api, resume_by_itself=1).look()
    assert folder.events() == []  # for a minute it may be about to be launched by somebody else
    assert api.post("/v1/jobs/m/resume").status_code == 200
    wait_for(lambda: status(api)["state"] == "finished")


@pytest.fixture
def contained(settings: Settings, dataset: Path) -> Iterator[tuple[TestClient, "docker.DockerClient"]]:
    """The service with a real engine, whose trainings may take 300 MB: counting the pixels of a vast picture leaps over that."""
    with engine() as client:
        if not any(f"{IMAGE}:latest" in found.tags for found in client.images.list()):
            pytest.skip(f"the image {IMAGE} is not built: docker-compose -f build/build_cpu.yml build")
        chosen = settings.model_copy(update={"launcher": "container", "job_memory": 300_000_000})
        with TestClient(create_app(chosen)) as api:
            yield api, client
        for left in containers_of(client, settings.checkpoints):
            left.remove(force=True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the engine's client, which the service keeps
def test_a_container_that_may_take_too_little_memory_is_said_to_have_run_out_of_it(
    contained: tuple[TestClient, "docker.DockerClient"], dataset: Path
):
    api, _ = contained
    wide = (9000, 9000)
    Image.new("RGB", wide).save(dataset / "images" / "wide.jpg")
    Image.new("L", wide, 1).save(dataset / "labels" / "wide.png")
    start(api, dataset)
    seen = wait_for(lambda: (found := status(api))["state"] == "failed" and found, 120)
    assert seen["cause"] == "The training ran out of memory and was ended."
    assert "JOB_MEMORY" in seen["cure"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the engine's client, which the service keeps
def test_of_jobs_that_ended_no_container_is_left_and_they_go_on_all_the_same(
    contained: tuple[TestClient, "docker.DockerClient"], dataset: Path
):
    api, client = contained
    start(api, dataset, "short", epochs=1)
    containers = partial(containers_of, client, start(api, dataset, "long").path.parent)
    wait_for(lambda: status(api, "short")["state"] == "finished", 120)
    wait_for(lambda: [found.labels["maskwright.job"] for found in containers()] == ["long"], 60)
    wait_for(lambda: status(api, "long")["epoch"] > 1, 60)
    containers()[0].kill()
    wait_for(lambda: status(api, "long")["state"] == "failed", 60)
    wait_for(lambda: not containers(), 60)
    assert "killed" in status(api, "long")["cause"], "it is known from the job's folder"
    assert api.post("/v1/jobs/long/resume").status_code == 200
    wait_for(lambda: status(api, "long")["state"] == "training", 60)
    api.post("/v1/jobs/long/stop", json={"keep_best": False})
    wait_for(lambda: status(api, "long")["state"] == "stopped", 60)
    wait_for(lambda: not containers(), 60)
