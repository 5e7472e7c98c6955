"""What a user owns: backed up and restored by the commands of docs/backup.md, and read by a version newer than the one that wrote it."""

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from docker_sdk_api.settings import Settings
from tests.conftest import ROOT, draw_dataset, ended, wait_for
from tests.deployed import BUILD_DEADLINE, DEADLINE, SOMEBODY, Deployment, build
from tests.engine import compose, containers_of, engine, image
from tests.waits import free_port

VOLUMES = ROOT / "tests" / "volumes"
"""Folders as the first version left them: a job that finished, and one that was killed after its fourth epoch of sixty."""
PICTURE = ROOT / "datasets" / "dummy_dataset" / "images" / "plate_00.png"
PORTS = ("GUI_PORT", "SDK_PORT", "INFERENCE_PORT")


def documented(heading: str) -> str:
    """The commands under a heading of docs/backup.md; root needs no sudo."""
    found = re.search(rf"## {heading}\n.*?```sh\n(.+?)```", (ROOT / "docs" / "backup.md").read_text(), re.DOTALL)
    assert found, heading
    return found[1].replace("sudo ", "").replace("docker-compose", " ".join(compose()))


def checkout(folder: Path) -> Path:
    """A fresh one, as far as running the product goes."""
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "run", folder / "run", ignore=shutil.ignore_patterns(".env"))
    for name in ("setup_solution_parameters.sh", "proxy.json"):
        shutil.copy(ROOT / name, folder)
    for name in ("datasets", "checkpoints", "classifiers", "weights"):
        (folder / name).mkdir()
    return folder


class Home:
    """A checkout that is set up and may be up, on ports of its own."""

    def __init__(self, client: object, folder: Path, project: str) -> None:
        self.folder, self.project, self.client = checkout(folder), project, client
        self.ports = {name: str(free_port()) for name in PORTS}
        self.clients: list[httpx.Client] = []

    def sh(self, commands: str, **environment: str) -> None:
        everything = {**os.environ, "COMPOSE_PROJECT_NAME": self.project, **environment}
        done = subprocess.run(
            ["bash", "-ec", commands], cwd=self.folder, env=everything, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def product(self) -> Deployment:
        """With the ports that its .env says."""
        lines = dict(line.split("=", 1) for line in (self.folder / ".env").read_text().splitlines() if not line.startswith("#"))
        self.clients += (clients := [httpx.Client(base_url=f"http://127.0.0.1:{lines[name]}", timeout=60) for name in PORTS])
        command = [*compose(), "-p", self.project, "-f", str(self.folder / "run" / "run_cpu.yml")]
        return Deployment(self.client, self.folder / "checkpoints", command, {}, *clients)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with engine() as client:
        image(client)
        build()
        home = Home(client, tmp_path / "first" / "maskwright", f"maskwright-test-{uuid.uuid4().hex[:8]}")
        shutil.copytree(ROOT / "datasets" / "dummy_dataset", home.folder / "datasets" / "dummy_dataset")
        if os.getuid() == 0:
            for folder in ("datasets", "checkpoints", "weights"):
                subprocess.run(["chown", "-R", ":".join(map(str, SOMEBODY)), home.folder / folder], check=True)
        try:
            yield home
        finally:
            for one in home.clients:
                one.close()
            for words in (("logs", "--no-color"), ("down", "-v")):
                subprocess.run([*compose(), "-p", home.project, "-f", home.folder / "run" / "run_cpu.yml", *words], timeout=DEADLINE)
            for left in containers_of(client, home.folder / "checkpoints"):
                left.remove(force=True)


@pytest.mark.slow
@pytest.mark.timeout(BUILD_DEADLINE)
def test_all_that_is_lost_with_a_machine_comes_back_from_the_documented_commands(home: Home, tmp_path: Path) -> None:
    home.sh("./setup_solution_parameters.sh --arch cpu --yes", **home.ports, JOB_MEMORY="")
    home.sh("docker-compose -f run/run_cpu.yml up -d".replace("docker-compose", " ".join(compose())))
    product = home.product
    wait_for(product.ready, DEADLINE)
    majority = {"engine": "majority", "network": "majority", "backbone": "none"}
    product.start("mine", **majority)
    product.wait_for_state("mine", "finished")
    product.start("broken", **majority, hyperparameters={"epochs": 10_000})
    product.wait_for_epoch("broken", 1)
    assert product.sdk.post("/v1/jobs/broken/stop", json={"keep_best": False}).is_success
    before = product.wait_for_state("broken", "stopped")
    mask = ask(product)
    dataset = product.sdk.get("/v1/datasets/dummy_dataset").json()

    home.sh(documented("Backup"))
    wait_for(product.ready, DEADLINE)
    product.compose("down", "-v")
    for left in containers_of(product.client, home.folder / "checkpoints"):
        left.remove(force=True)
    archive = tmp_path / "second" / "maskwright-backup.tar.gz"
    archive.parent.mkdir()
    shutil.move(home.folder.parent / archive.name, archive)
    shutil.rmtree(home.folder)

    home.folder = checkout(archive.parent / "maskwright")
    home.sh(documented("Restore"))
    product = home.product
    wait_for(product.ready, DEADLINE)
    assert {row["job"]["name"]: row["status"]["state"] for row in product.sdk.get("/v1/jobs").json()} == {
        "mine": "finished",
        "broken": "stopped",
    }
    assert "dummy_dataset" in product.gui.get("/datasets").text
    assert product.sdk.get("/v1/datasets/dummy_dataset").json() == dataset
    assert ask(product) == mask
    owner = (home.folder / "checkpoints").stat()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (home.folder / "checkpoints").rglob("*")} == {(owner.st_uid, owner.st_gid)}
    assert product.sdk.post("/v1/jobs/broken/resume").is_success
    assert product.wait_for_epoch("broken", len(before["history"]) + 1)["state"] == "training"
    assert product.sdk.post("/v1/jobs/broken/stop", json={"keep_best": False}).is_success
    product.wait_for_state("broken", "stopped")


def ask(product: Deployment) -> bytes:
    answer = product.inference.post("/v1/models/mine/predict", files={"picture": ("plate.png", PICTURE.read_bytes())})
    assert answer.is_success, answer.text
    return answer.content


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Over a copy of the first version's folders."""
    draw_dataset(tmp_path / "datasets" / "plates")
    shutil.copytree(VOLUMES / "checkpoints", tmp_path / "checkpoints")
    for job in (tmp_path / "checkpoints").glob("*/job.json"):
        job.write_text(job.read_text().replace("/datasets/", f"{tmp_path}/datasets/"))
    return Settings(
        launcher="process", datasets=tmp_path / "datasets", checkpoints=tmp_path / "checkpoints", task_python=Path(sys.executable)
    )


def test_what_the_first_version_made_is_listed_shown_and_served(gui: TestClient, api: TestClient, inference_api: TestClient) -> None:
    states = {row["job"]["name"]: row["status"]["state"] for row in api.get("/v1/jobs").json()}
    assert states == {"finished": "finished", "broken": "failed"}
    pages = ("/", "/jobs", "/jobs/finished", "/jobs/broken", "/models", "/models/finished", "/compare?job=finished&job=broken")
    for page in (*pages, "/wizard?clone=finished", "/datasets/plates"):
        assert gui.get(page).status_code == 200, page
    assert inference_api.post("/v1/models/finished/predict", files={"picture": PICTURE.read_bytes()}).is_success
    assert api.get("/v1/models/finished/download").is_success


def test_what_the_first_version_left_undone_goes_on(api: TestClient) -> None:
    assert api.post("/v1/jobs/broken/resume").is_success
    end = wait_for(lambda: ended(api, "broken"))["status"]
    assert end["state"] == "finished", end
    assert [row["epoch"] for row in end["history"]] == list(range(1, 61))
