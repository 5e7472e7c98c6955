"""On a Ray cluster: jobs are placed where there is room, say for what they wait, outlive their node, and learn on several at once."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, expect

from contracts.errors import Unavailable
from contracts.events import EpochDone, Failed, Resumed
from contracts.job_folder import JobFolder
from docker_sdk_api import app as sdk
from docker_sdk_api.launchers import Limits, Pulse, Task
from docker_sdk_api.launchers.ray import order, ray_request
from docker_sdk_api.launchers.ray_head import Head, Node
from docker_sdk_api.launchers.ray_words import end_of, waits_for
from docker_sdk_api.settings import Settings
from gui.app import create_app
from gui.backend import Backend
from gui.settings import Settings as GuiSettings
from inference_api.app import create_app as create_inference
from inference_api.settings import Settings as InferenceSettings
from tests import clicks
from tests.cluster import RAY_PYTHON, Cluster, cluster
from tests.conftest import ROOT, client_of, draw_dataset, text_of, wait_for
from tests.shelf import open_shelf
from tests.test_parallel import SMALL, assert_same_training, losses, run, shared_job

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


@pytest.fixture(scope="module")
def calm(ray: Cluster, home: Path, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """What a training over six epochs comes to that nothing disturbs, in a process of this machine."""
    job = shared_job(tmp_path_factory.mktemp("calm") / "calm", home / "datasets" / "plates", 1, epochs=6)
    assert run(job) == 0, job.log_file.read_text()
    return job


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


def assert_went_on(folder: JobFolder, cause: str, calm: JobFolder) -> None:
    """It was lost once, went on by itself, and ended as if nothing had been."""
    told = [event for event in folder.events() if isinstance(event, Failed | Resumed)]
    assert [event.event for event in told] == ["failed", "resumed"]
    assert told[0].cause == cause  # type: ignore[union-attr]
    assert told[1].by_itself  # type: ignore[union-attr]
    assert scores(folder) == scores(calm)
    assert (folder.model / "model.json").exists()


def test_a_job_whose_node_dies_goes_on_elsewhere_and_ends_as_if_nothing_had_been(api: TestClient, ray: Cluster, calm: JobFolder):
    disturbed = start(api, "disturbed", hyperparameters={**SMALL, "epochs": 6})
    wait_for(lambda: (disturbed.last / "progress.json").exists(), 120)
    place = node_of(ray, disturbed)
    ray.kill(place)
    wait_for(lambda: any(isinstance(event, Resumed) for event in disturbed.events()), 60)
    finished(api, disturbed)
    assert_went_on(disturbed, f"The node {place} on which it ran was lost.", calm)
    ray.add(place)


def test_a_job_over_two_nodes_goes_on_as_soon_as_there_are_two_again(api: TestClient, ray: Cluster, calm: JobFolder):
    together = start(api, "pair", nodes=2, hyperparameters={**SMALL, "epochs": 6})
    wait_for(lambda: (together.last / "progress.json").exists(), 120)
    ray.kill(SECOND)
    wait_for(lambda: status(api, "pair")["stage"].startswith("waiting for 2 nodes"), 90)
    ray.add(SECOND)
    finished(api, together)
    told = [event for event in together.events() if isinstance(event, Failed | Resumed)]
    assert [event.event for event in told] == ["failed", "resumed"]
    assert told[0].cause.startswith("One of the nodes on which it ran was lost")  # type: ignore[union-attr]
    assert losses(together) == pytest.approx(losses(calm), rel=1e-4)  # 24 steps: rounding has grown since the first


def test_a_job_over_two_nodes_fails_with_the_cause_of_the_one_that_failed_first(api: TestClient):
    together = start(api, "first", nodes=2, hyperparameters={**SMALL, "epochs": 500})
    wait_for(lambda: (together.last / "progress.json").exists(), 120)
    [victim] = (child for leader in leaders(together, "1") for child in leader.children() if "RANK" in child.environ())
    victim.kill()
    wait_for(lambda: status(api, "first")["state"] == "failed", 90)
    assert status(api, "first")["cause"] == "Process 2 of those that learn together was ended by SIGKILL."
    assert [event.event for event in together.events()].count("failed") == 1


def leaders(folder: JobFolder, node: str) -> list[psutil.Process]:
    """The trainings of a job that one of its nodes leads."""
    mine = ["-m", "training_api", str(folder.path)]
    found = [process for process in psutil.process_iter(["cmdline"]) if (process.info["cmdline"] or [])[1:] == mine]
    return [process for process in found if process.environ()["MASKWRIGHT_NODE"] == node and "RANK" not in process.environ()]


def test_a_job_goes_on_under_a_new_head_that_does_not_know_it(api: TestClient, ray: Cluster, calm: JobFolder):
    disturbed = start(api, "headless", hyperparameters={**SMALL, "epochs": 6})
    wait_for(lambda: (disturbed.last / "progress.json").exists(), 120)
    for host in (HEAD, FIRST, SECOND):  # nodes that lose their head end too, within a minute
        ray.kill(host)
    wait_for(lambda: "Ray does not answer" in status(api, "headless")["stage"], 30)
    ray.add(HEAD, "--num-cpus=0")
    for host in (FIRST, SECOND):
        ray.add(host)
    finished(api, disturbed)
    assert_went_on(disturbed, "Ray does not know it any more: its head was started anew, or the job was removed there.", calm)


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


@pytest.mark.parametrize("said", [b"{}", b"<p>Welcome</p>", None])
def test_what_answers_and_is_no_head_is_named_with_its_cure(said: bytes | None):
    with open_shelf() as other:
        other.files |= {"/api/v0/nodes?detail=true&limit=10000": said} if said else {}
        with pytest.raises(Unavailable, match=r"is not a head of Ray\. RAY_ADDRESS has to name its dashboard"):
            Head(other.address).nodes()


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


def test_a_task_that_was_stopped_before_its_node_began_with_it_never_runs(tmp_path: Path):
    stopped = {"submission": "first", "command": [sys.executable, "-c", "print('ran')"], "gpus": 0, "environment": {}, "grace": 5}
    (tmp_path / "task.json").write_text(json.dumps(stopped))
    command = [sys.executable, "-I", str(ROOT / "docker_sdk_api" / "launchers" / "on_node.py"), str(tmp_path), "first"]
    assert subprocess.run(command, timeout=30, check=False).returncode == 128 + 15
    assert json.loads((tmp_path / "pulse.json").read_text())["exit_code"] == -15
    assert not (tmp_path / "train.log").exists()


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
    ("count", "asked", "said"),
    [
        (2, {"entrypoint_num_cpus": 2}, "waiting for 2 nodes with 2 processors each: 1 of the 1 that live has so much"),
        (2, {"entrypoint_num_gpus": 4}, "waiting for 2 nodes with 4 GPUs each: none of the 1 that live has so much"),
        (1, {"entrypoint_num_cpus": 2}, "waiting until the one node has 2 processors free"),
    ],
)
def test_what_a_job_over_several_nodes_waits_for_is_said(count: int, asked: dict, said: str):
    assert waits_for(asked, NODES, count) == said


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
        ({"status": "STOPPED"}, Pulse(False, -15)),
        ({**DIED, "driver_node_id": "b"}, Pulse(False, note=LOST, lost=True)),
        ({**DIED, "driver_node_id": "a", "message": "The node was low on memory: OOM"}, Pulse(False, out_of_memory=True, note=OUT)),
        ({**DIED, "driver_node_id": "a", "message": "killed"}, Pulse(False, note=PUT_OUT, lost=True)),
    ],
)
def test_how_a_job_ended_that_its_node_did_not_tell_of(job: dict, pulse: Pulse):
    assert end_of(job, NODES) == pulse


@pytest.fixture
def pages(api: TestClient, home: Path) -> Iterator[TestClient]:
    inference = create_inference(InferenceSettings(checkpoints=home / "checkpoints"))
    with TestClient(create_app(GuiSettings(), Backend(client_of(api.app), client_of(inference)))) as client:  # type: ignore[arg-type]
        yield client


def test_the_wizard_asks_for_nodes_of_the_cluster_and_says_where_there_are_too_few(pages: TestClient, api: TestClient):
    wish = {"dataset": "plates", "network": "pytorch/unet/resnet18"}

    def about_nodes(**more: str) -> str:
        page = pages.get("/train/settings", params={**wish, **more}).text
        return html.unescape(re.sub("<[^>]+>", "", page.split('id="nodes-help"')[1].split("</p>")[0]))

    assert "2 are there now" in about_nodes()
    assert "It will wait: 5 nodes are to learn together, and 2 live in the cluster now." in about_nodes(nodes="5")
    assert "cannot share a batch" in about_nodes(nodes="200")
    review = pages.get("/train/review", params={**wish, "nodes": "5", "set.epochs": "500"})
    assert review.status_code == 200, "more nodes may join"
    said = text_of(review)
    for words in ("on 5 nodes together", "--nodes 5", '"nodes": 5', "It will wait: 5 nodes"):
        assert words in said
    assert pages.post("/train", data={**wish, "nodes": "5", "name": "many"}, follow_redirects=False).status_code == 303
    waits = "waiting for 5 nodes with 1 processor each: 2 of the 3 that live have so much"
    wait_for(lambda: status(api, "many")["stage"] == waits)
    assert "--nodes 5" in pages.get("/wizard", params={"clone": "many"}).text
    api.post("/v1/jobs/many/stop", json={"keep_best": False})
    wait_for(lambda: status(api, "many")["state"] == "stopped", 30)


@clicks.needs_chromium
@clicks.leaves_things_open
@pytest.mark.timeout(600)
def test_jobs_from_the_wizard_spread_over_the_nodes_and_one_learns_on_two_together(ray: Cluster, home: Path, browser: Browser):
    place = {"LAUNCHER": "ray", "RAY_ADDRESS": ray.address, "RAY_PYTHON": str(RAY_PYTHON)}
    jobs = {name: JobFolder(home / "checkpoints" / name) for name in ("left", "right", "both")}
    with clicks.services(home, {**clicks.free_ports(), **place}) as address, clicks.watched_page(browser, address) as page:
        for name in ("left", "right"):
            clicks.start(page, "plates", "pytorch/unet/resnet18", name, epochs=500, crop=32, batch_size=2)
        wait_for(lambda: all((jobs[name].last / "progress.json").exists() for name in ("left", "right")), 150)
        assert {node_of(ray, jobs[name]) for name in ("left", "right")} == {FIRST, SECOND}
        for name in ("left", "right"):
            page.goto(f"jobs/{name}")
            page.get_by_role("button", name="Stop, keep best").click()
        wait_for(lambda: all("exit_code" in jobs[name].pulse_file.read_text() for name in ("left", "right")), 60)
        clicks.start(page, "plates", "pytorch/unet/resnet18", "both", nodes="2", epochs=2, crop=32, batch_size=2)
        wait_for(lambda: (jobs["both"].model / "model.json").exists(), 150)
        expect(page.get_by_text("2 × CPU").first).to_be_visible(timeout=30_000)
