"""Nodes that share no disk: what a job reads and writes goes through an object store, and whoever looks at the job sees no difference."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from contracts.durable import folder_aside
from contracts.errors import Invalid
from contracts.events import EpochDone, Failed, Resumed, Stage
from contracts.job_folder import JobFolder
from docker_sdk_api import app as sdk
from docker_sdk_api.launchers import Task, staged
from docker_sdk_api.launchers.bucket import Bucket
from docker_sdk_api.launchers.mirror import Moved, Puller, Pusher
from docker_sdk_api.launchers.ray_head import Head
from docker_sdk_api.launchers.reads import files_of, refuse, what_is_read
from docker_sdk_api.launchers.staged import Cache, TooLarge, stage
from docker_sdk_api.settings import Settings
from inference_api import app as inference
from inference_api.settings import Settings as InferenceSettings
from tests.cluster import RAY_PYTHON, cluster
from tests.conftest import draw_dataset, wait_for
from tests.stores import OneMachine, Store, one_machine, python_without, store
from tests.test_parallel import SMALL, run, shared_job

MAJORITY = {"dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}
UNET = {"dataset": "plates", "engine": "pytorch", "network": "unet", "backbone": "resnet18"}
ON_STORE = Path(staged.__file__).with_name("on_store.py")


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    with store() as made:
        yield made


@pytest.fixture
def bucket(s3: Store, request: pytest.FixtureRequest) -> Bucket:
    """A place of its own in the store."""
    return Bucket(f"{s3.address}/{request.node.name}")


@contextmanager
def service(home: Path, s3: Store, head: Head, python: Path = Path(sys.executable), **settings: object) -> Iterator[TestClient]:
    """docker_sdk_api over a folder that no node sees."""
    draw_dataset(home / "datasets" / "plates", pictures=8, size=(128, 96))
    python = python_without(home, python, home.parent / "python")
    folders = {"datasets": home / "datasets", "checkpoints": home / "checkpoints"}
    chosen = Settings(**folders, launcher="ray", store=s3.address, ray_python=python, task_python=Path(sys.executable), **settings)
    app = sdk.create_app(chosen)
    app.state.jobs.launcher.head = head
    with TestClient(app) as client:
        yield client
    launcher = app.state.jobs.launcher
    for name in launcher.running():
        launcher.stop(name, grace=0)
    wait_for(lambda: launcher.following.resting)


@pytest.fixture
def head() -> Iterator[OneMachine]:
    with one_machine("first", "second") as made:
        yield made


@pytest.fixture
def api(tmp_path: Path, s3: Store, head: OneMachine) -> Iterator[TestClient]:
    with service(tmp_path / "home", s3, head) as client:
        yield client


def start(api: TestClient, name: str, **wish: object) -> JobFolder:
    answer = api.post("/v1/jobs", json={"name": name, **wish})
    assert answer.status_code == 201, answer.text
    return JobFolder(app_of(api).state.settings.checkpoints / name)


def app_of(api: TestClient) -> FastAPI:
    return api.app  # type: ignore[return-value]


def status(api: TestClient, name: str) -> dict:
    return api.get(f"/v1/jobs/{name}").json()["status"]


def finished(api: TestClient, folder: JobFolder, seconds: float = 120) -> None:
    wait_for(lambda: status(api, folder.name)["state"] in ("finished", "failed", "stopped"), seconds)
    log = folder.log_file.read_text() if folder.log_file.exists() else "no log"
    assert status(api, folder.name)["state"] == "finished", f"{status(api, folder.name)}\n{log}"


def epochs(folder: JobFolder) -> list[int]:
    return [event.scores.epoch for event in folder.events() if isinstance(event, EpochDone)]


def scores(folder: JobFolder) -> dict[int, dict[str, float | None]]:
    """Of every epoch; of one that was learnt again, the later ones."""
    rows = [event.scores for event in folder.events() if isinstance(event, EpochDone)]
    return {row.epoch: {**row.iou_per_class, "mean": row.mean_iou} for row in rows}


def test_a_job_is_trained_where_nothing_of_this_machine_is_seen_and_is_served_here(api: TestClient, s3: Store, head: OneMachine):
    folder = start(api, "away", **MAJORITY)
    finished(api, folder)
    assert [event.event for event in folder.events()][-1] == "finished"
    assert api.get("/v1/jobs/away").json()["model"] == "published"
    settings = InferenceSettings(checkpoints=app_of(api).state.settings.checkpoints)
    with TestClient(inference.create_app(settings)) as served:
        assert [model["name"] for model in served.get("/v1/models").json()] == ["away"]
    launcher = app_of(api).state.jobs.launcher
    wait_for(lambda: launcher.poll("away").exit_code == 0)
    assert "finished: the model is published" in folder.log_file.read_text()
    wait_for(lambda: s3.names("jobs/") == [])
    assert [name for name in s3.names("folders/") if name.endswith("folder.json")]
    wait_for(lambda: list((head.caches[0] / "jobs").iterdir()) == [])
    assert json.loads(folder.job_file.read_bytes())["dataset_folder"].startswith(str(app_of(api).state.settings.datasets))
    assert api.delete("/v1/jobs/away").is_success


def test_a_job_is_followed_while_it_learns_and_heeds_a_wish_to_stop(api: TestClient):
    folder = start(api, "followed", **UNET, hyperparameters={**SMALL, "epochs": 500})
    wait_for(lambda: len(epochs(folder)) >= 2, 120)
    assert status(api, "followed")["state"] == "training"
    assert (folder.last / "progress.json").exists()
    assert list(folder.previews.glob("epoch-*.jpg"))
    assert api.get("/v1/jobs/followed/usage").json()["memory_bytes"] > 0
    api.post("/v1/jobs/followed/stop", json={"keep_best": True})
    finished(api, folder)
    assert folder.model_state() == "published"
    wish = {"weights": "from_checkpoint", "weights_from": "followed", "hyperparameters": {**SMALL, "epochs": 1}}
    second = start(api, "second", **UNET, **wish)
    finished(api, second)
    assert json.loads(second.weights_file.read_bytes())["name"] == "followed"


def test_of_weights_that_were_fetched_before_those_of_the_network_are_brought_along_and_of_a_job_what_another_starts_from(tmp_path: Path):
    job = shared_job(tmp_path / "m", draw_dataset(tmp_path / "plates"), 1)
    fetched = ("weights/resnet18--1.safetensors", "weights/resnet50--1.safetensors", "mirror/resnet18--2.safetensors")
    for name in (*fetched, "old/last/state.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("job.json", "best/state.pt", "model/model.json", "train.log"):
        (tmp_path / "old" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "old" / name).write_text(name)
    environment = {"WEIGHTS": str(tmp_path / "weights"), "WEIGHTS_MIRROR": str(tmp_path / "mirror")}
    read_only = [tmp_path / "old", tmp_path / "mirror"]
    task = Task("m", "pytorch", [], job.path, read_only=read_only, writable=[tmp_path / "weights"], environment=environment)
    refuse(task)
    assert {folder.name: [name for name, _ in files] for folder, files in what_is_read(task)} == {
        "old": ["best/state.pt", "job.json", "model/model.json"],
        "weights": ["resnet18--1.safetensors", "resnet18--2.safetensors"],
    }


def test_a_job_whose_node_is_lost_goes_on_elsewhere_and_ends_as_if_nothing_had_been(api: TestClient, head: OneMachine, tmp_path: Path):
    wish = {**SMALL, "epochs": 4}
    disturbed = start(api, "disturbed", **UNET, hyperparameters=wish)
    wait_for(lambda: epochs(disturbed), 120)
    head.lose("first")
    calm = shared_job(tmp_path / "calm", tmp_path / "home" / "datasets" / "plates", 1, epochs=4)
    assert run(calm) == 0, calm.log_file.read_text()
    finished(api, disturbed)
    told = [event for event in disturbed.events() if isinstance(event, Failed | Resumed)]
    assert [event.event for event in told] == ["failed", "resumed"]
    assert told[0].cause == "The node first on which it ran was lost."  # type: ignore[union-attr]
    assert scores(disturbed) == scores(calm)
    assert "going on after epoch" in disturbed.log_file.read_text()
    assert {place.name for place in head.caches if list((place / "folders").glob("plates-*"))} == {"first", "second"}


def test_a_store_that_is_away_for_a_while_neither_ends_a_training_nor_loses_a_byte(api: TestClient, s3: Store):
    folder = start(api, "patient", **UNET, hyperparameters={**SMALL, "epochs": 4})
    wait_for(lambda: epochs(folder), 120)
    s3.away()
    seen = len(epochs(folder))
    launcher = app_of(api).state.jobs.launcher
    wait_for(lambda: "does not answer" in launcher.following.trouble("patient"))
    time.sleep(5)
    assert len(epochs(folder)) == seen
    assert status(api, "patient")["state"] == "training"
    assert "object store cannot be read" in status(api, "patient")["stage"]
    s3.begin()
    finished(api, folder)
    assert epochs(folder) == [1, 2, 3, 4]
    assert len(folder.figures_file.read_text().splitlines()) == 1 + 4 * (3 + 1)  # a row a step, and one an epoch
    wait_for(lambda: "exit_code" in json.loads(folder.pulse_file.read_text()))
    launcher.following.follow("patient")  # as whoever asks about it at the moment of its end: the store is empty by now
    wait_for(lambda: launcher.following.resting)


def test_a_bucket_that_is_not_there_is_told_at_the_start_of_a_job(tmp_path: Path, s3: Store, head: OneMachine):
    s3.address, kept = "s3://nowhere/x", s3.address
    try:
        with service(tmp_path / "home", s3, head) as api:
            answer = api.post("/v1/jobs", json={"name": "m", **MAJORITY})
    finally:
        s3.address = kept
    assert answer.status_code in (400, 503)
    assert answer.json()["cause"].endswith("The object store has no bucket for s3://nowhere/x.")
    assert answer.json()["cure"] == "Make it there, or correct STORE."
    assert not (tmp_path / "home" / "checkpoints" / "m").exists()


def test_wrong_keys_are_told_at_the_start_of_a_job(api: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on it knows nobody
    answer = api.post("/v1/jobs", json={"name": "m", **MAJORITY})
    assert answer.status_code in (400, 503)
    assert "does not let this machine" in answer.json()["cause"]
    assert "AWS_SECRET_ACCESS_KEY" in answer.json()["cure"]


def write_epoch(folder: JobFolder, epoch: int) -> None:
    """As a training does: the checkpoint first, whole, in the place of the one before; then the event."""
    with folder_aside(folder.last, keep=folder.before) as aside:
        (aside / "state.pt").write_text(f"{epoch} " * 2000)
        (aside / "progress.json").write_text(str(epoch))
    with folder.events_file.open("a") as events:
        events.write(f"{epoch}\n")


def last_of(folder: JobFolder) -> int:
    """The epoch of a checkpoint, both of whose files must be of the same one."""
    epoch = int((folder.last / "progress.json").read_text())
    assert (folder.last / "state.pt").read_text() == f"{epoch} " * 2000
    return epoch


def test_no_event_comes_before_the_checkpoint_that_it_tells_of_however_quick_epochs_are(bucket: Bucket, tmp_path: Path):
    there, here = JobFolder(tmp_path / "there"), JobFolder(tmp_path / "here")
    for folder in (there, here):
        folder.path.mkdir()
    pusher, over = Pusher(bucket, "jobs/m/1", "grown", there.path), threading.Event()

    def push() -> None:
        while not over.is_set():
            pusher.push()

    def train() -> None:
        for epoch in range(1, 121):
            write_epoch(there, epoch)

    threads = [threading.Thread(target=what) for what in (train, push)]
    for thread in threads:
        thread.start()
    looks = []
    while threads[0].is_alive():
        try:
            Puller(bucket, "jobs/m/1", "grown", here.path).pull()
        except Moved:
            continue
        if here.events_file.exists() and (told := here.events_file.read_text().splitlines()):
            assert last_of(here) >= len(told)
            looks.append(len(told))
    over.set()
    threads[1].join(60)
    pusher.push()
    pusher.push()
    Puller(bucket, "jobs/m/1", "grown", here.path).pull()
    assert last_of(here) == 120
    assert here.events_file.read_text() == there.events_file.read_text()
    assert len(set(looks)) > 2
    assert len(bucket.names("jobs/m/")) < 40


def test_what_grows_is_sent_in_few_parts_and_what_is_renamed_is_not_sent_again(bucket: Bucket, tmp_path: Path):
    there, here = JobFolder(tmp_path / "there"), JobFolder(tmp_path / "here")
    for folder in (there, here):
        folder.path.mkdir()
    sent: list[int] = []
    counted = Counted(bucket, sent)
    pusher, puller = Pusher(counted, "jobs/m/1", "grown", there.path), Puller(bucket, "jobs/m/1", "grown", here.path)
    for line in range(30):
        with there.log_file.open("a") as log:
            log.write(f"{line:0500}\n")
        pusher.push()
        puller.pull()
    assert here.log_file.read_text() == there.log_file.read_text()
    assert len(pusher.files["train.log"][2]) < 8
    assert sum(sent) < 8 * there.log_file.stat().st_size
    write_epoch(there, 1)
    pusher.push()
    sent.clear()
    there.last.rename(there.best)
    pusher.push()
    puller.pull()
    assert not sent
    assert (here.best / "state.pt").exists()
    assert not here.last.exists()


class Counted:
    """A bucket; how many bytes of files and their parts are put into it."""

    def __init__(self, bucket: Bucket, sent: list[int]) -> None:
        self.bucket, self.sent = bucket, sent

    def __getattr__(self, name: str) -> object:
        return getattr(self.bucket, name)

    def put(self, name: str, content: bytes) -> None:
        if content.startswith(b"0"):
            self.sent.append(len(content))
        self.bucket.put(name, content)

    def put_file(self, name: str, file: Path) -> None:
        self.sent.append(file.stat().st_size)
        self.bucket.put_file(name, file)

    def get_file(self, name: str, file: Path) -> None:
        self.sent.append(1)
        time.sleep(0.2)
        self.bucket.get_file(name, file)


def pictures(folder: Path, count: int) -> list[tuple[str, Path]]:
    """A folder of files of 1,000 bytes each."""
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        (folder / "images" / f"{number}.png").write_bytes(bytes([number]) * 1000)
    return files_of(folder)


def never(reason: str) -> None:
    raise AssertionError(reason)


def test_two_jobs_of_a_node_that_want_one_folder_at_once_fetch_it_once(bucket: Bucket, tmp_path: Path):
    stage(bucket, "one", pictures(tmp_path / "one", 5), tmp_path, lambda *_: None)
    fetched: list[int] = []
    waited: list[str] = []
    found: list[Path] = []

    def take() -> None:
        place, held = Cache(tmp_path / "cache", 10**6).take(Counted(bucket, fetched), "one", lambda *_: None, waited.append)
        found.append(place)
        held.close()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert fetched == [1]
    assert set(waited) == {"another job of this node fetches it"}
    assert {name: file.read_bytes() for name, file in files_of(found[0])} == {f"images/{n}.png": bytes([n]) * 1000 for n in range(5)}


def test_a_cache_keeps_its_bound_and_what_is_used_and_lets_go_what_was_unused_longest(bucket: Bucket, tmp_path: Path):
    for name in ("a", "b", "c", "d"):
        stage(bucket, name, pictures(tmp_path / name, 4), tmp_path, lambda *_: None)
    cache = Cache(tmp_path / "cache", 9000)

    def kept() -> set[str]:
        return {place.name for place in (tmp_path / "cache" / "folders").iterdir()}

    _, used = cache.take(bucket, "a", lambda *_: None, never)
    cache.take(bucket, "b", lambda *_: None, never)[1].close()
    cache.take(bucket, "c", lambda *_: None, never)[1].close()
    assert kept() == {"a", "c"}
    assert cache.size() == 8000
    _, also = cache.take(bucket, "d", lambda *_: None, never)
    assert kept() == {"a", "d"}
    with pytest.raises(AssertionError, match="use all that its cache has room for"):
        cache.take(bucket, "b", lambda *_: None, never)
    also.close()
    used.close()
    cache.take(bucket, "b", lambda *_: None, never)[1].close()
    assert kept() == {"b", "d"}
    stage(bucket, "large", pictures(tmp_path / "large", 10), tmp_path, lambda *_: None)
    with pytest.raises(TooLarge, match="large takes"):
        cache.take(bucket, "large", lambda *_: None, never)


def test_what_was_broken_off_goes_on_with_the_part_after(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staged, "PART", 2500)
    files, put, fetched = pictures(tmp_path / "one", 7), [], []
    parts: list[int] = []

    def break_off(done: int, total: int) -> None:
        parts.append(done)
        if len(parts) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(Counted(bucket, put), "one", files, tmp_path, break_off)
    assert len(put) == 2
    stage(Counted(bucket, put), "one", files, tmp_path, lambda *_: None)
    assert len(put) == len([name for name in bucket.names("folders/one/") if name.endswith(".tar")]) > 3
    stage(Counted(bucket, put), "one", files, tmp_path, never)  # type: ignore[arg-type]
    parts.clear()
    cache = Cache(tmp_path / "cache", 10**6)
    with pytest.raises(KeyboardInterrupt):
        cache.take(Counted(bucket, fetched), "one", break_off, never)
    place, held = cache.take(Counted(bucket, fetched), "one", lambda *_: None, never)
    held.close()
    assert len(fetched) == len(put)
    assert [name for name, _ in files_of(place)] == [name for name, _ in files]


def test_a_long_way_into_the_store_is_told_and_can_be_stopped(api: TestClient, s3: Store, monkeypatch: pytest.MonkeyPatch):
    slow, go_on = threading.Event(), threading.Event()

    def put_file(bucket: Bucket, name: str, file: Path) -> None:
        slow.set()
        go_on.wait(60)

    monkeypatch.setattr(Bucket, "put_file", put_file)
    draw_dataset(app_of(api).state.settings.datasets / "others")
    folder = start(api, "long", **{**MAJORITY, "dataset": "others"})
    assert slow.wait(60)
    told = [event.stage for event in folder.events() if isinstance(event, Stage)]
    assert told[-1].startswith("bringing others into the store, 0.0 MB of "), told
    assert app_of(api).state.jobs.launcher.running() == {"long"}
    stopping = threading.Thread(target=lambda: api.post("/v1/jobs/long/stop", json={"keep_best": False}))
    stopping.start()
    wait_for(lambda: "cancelled" in folder.task_file.read_text())
    go_on.set()
    stopping.join(60)
    wait_for(lambda: status(api, "long")["state"] == "stopped")


def test_a_job_whose_data_was_on_its_way_when_the_service_ended_is_lost_and_goes_on(tmp_path: Path, s3: Store, head: OneMachine):
    with service(tmp_path / "home", s3, head) as api:
        folder = start(api, "m", **MAJORITY)
        finished(api, folder)
        launcher = app_of(api).state.jobs.launcher
        gone = {"pid": 2**22 - 1, "started": 1, "boot": "another"}
        folder.task_file.write_text(json.dumps({"staging": gone}))
        pulse = launcher.poll("m")
        folder.task_file.unlink()
    assert (pulse.alive, pulse.lost) == (False, True)
    assert pulse.note == "docker_sdk_api was ended while it brought the job's data into the store."


def test_what_needs_a_shared_disk_is_refused(api: TestClient):
    answer = api.post("/v1/jobs", json={"name": "m", **UNET, "hyperparameters": SMALL, "nodes": 2})
    assert answer.status_code == 400, answer.text
    assert answer.json()["cause"] == "Over an object store a job learns on one node."
    with pytest.raises(Invalid, match="A job that an old client asks needs a shared disk"):
        app_of(api).state.jobs.launcher.launch(Task("m", "majority", [], app_of(api).state.settings.checkpoints / "m", port=1))


def test_on_a_cluster_that_shares_no_disk_a_job_outlives_its_node_and_is_served_here(tmp_path: Path, s3: Store):
    """With Ray itself (MASKWRIGHT_TEST_RAY=1)."""
    wish, home = {**SMALL, "epochs": 6}, tmp_path / "home"
    with cluster() as ray:
        ray.add("127.0.0.2", "--num-cpus=0")
        for host in ("127.0.0.3", "127.0.0.4"):
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("NODE_CACHE", str(tmp_path / host))
                ray.add(host)
        with service(home, s3, Head(ray.address), RAY_PYTHON, ray_address=ray.address) as api:
            folder = start(api, "disturbed", **UNET, hyperparameters=wish)
            wait_for(lambda: epochs(folder), 120)
            assert status(api, "disturbed")["state"] == "training"
            place = next(host for host in ("127.0.0.3", "127.0.0.4") if list((tmp_path / host / "folders").glob("plates-*")))
            ray.kill(place)
            calm = shared_job(tmp_path / "calm", home / "datasets" / "plates", 1, epochs=6)
            assert run(calm) == 0, calm.log_file.read_text()
            finished(api, folder, 180)
    told = [event for event in folder.events() if isinstance(event, Failed | Resumed)]
    assert [event.event for event in told] == ["failed", "resumed"]
    assert told[0].cause == f"The node {place} on which it ran was lost."  # type: ignore[union-attr]
    assert scores(folder) == scores(calm)
    with TestClient(inference.create_app(InferenceSettings(checkpoints=home / "checkpoints"))) as served:
        assert [model["name"] for model in served.get("/v1/models").json()] == ["disturbed"]
