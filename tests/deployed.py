"""The product in containers, as a test has it: built from the tree, up on ports and with a checkpoints folder of its own."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import docker
import httpx
from docker.models.containers import Container

from tests.conftest import ROOT, wait_for
from tests.engine import compose, image
from tests.waits import free_port

BUILD_DEADLINE = 1200.0
DEADLINE = 120.0
SOMEBODY = (1234, 1235)
"""User and group of the checkpoints folder where the tests run as root, and could make files of anybody."""
SMALL = {"epochs": 1, "batch_size": 2, "crop": 64, "short_side": 64, "crops_per_picture": 1, "workers": 0}


def run(*command: str, seconds: float = DEADLINE, **environment: str) -> str:
    """What a command printed. Fails with it where the command fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


@lru_cache
def build() -> None:
    """The images of the services and of both engines, built from the tree as it is, once in a run of the tests."""
    run(*compose(), "-f", "build/build_cpu.yml", "build", seconds=BUILD_DEADLINE)


@dataclass
class Deployment:
    """A compose project: its command, what it is told, and clients of its three services."""

    client: "docker.DockerClient"
    checkpoints: Path
    command: list[str]
    environment: dict[str, str]
    gui: httpx.Client
    sdk: httpx.Client
    inference: httpx.Client

    def compose(self, *words: str) -> str:
        return run(*self.command, *words, **self.environment)

    def ready(self) -> bool:
        return answers(self.gui, "/") and answers(self.sdk, "/v1/health") and answers(self.inference, "/v1/health")

    def up(self) -> None:
        self.compose("up", "-d")
        wait_for(self.ready, DEADLINE)

    def service(self, name: str) -> Container:
        project = self.command[self.command.index("-p") + 1]
        labels = [f"com.docker.compose.project={project}", f"com.docker.compose.service={name}"]
        (found,) = self.client.containers.list(filters={"label": labels})
        return found

    def start(self, name: str, **wish: object) -> dict:
        started = self.sdk.post("/v1/jobs", json={"name": name, "dataset": "dummy_dataset", **wish})
        assert started.status_code == 201, started.text
        return started.json()

    def container(self, name: str) -> Any:
        """A job's, once its turn has come."""
        found = {"name": f"^/?maskwright-{name}$"}
        return wait_for(lambda: next(iter(self.client.containers.list(all=True, filters=found)), None), DEADLINE)

    def status(self, name: str) -> dict:
        return self.sdk.get(f"/v1/jobs/{name}").json()["status"]

    def wait_for_state(self, name: str, *states: str) -> dict:
        return wait_for(lambda: (status := self.status(name))["state"] in states and status, DEADLINE)

    def wait_for_epoch(self, name: str, epoch: int) -> dict:
        """The status once so many epochs are over."""
        return wait_for(lambda: len((status := self.status(name))["history"]) >= epoch and status, DEADLINE)


@contextmanager
def deployed(
    client: "docker.DockerClient", checkpoints: Path, *more_files: Path, arch: str = "cpu", **settings: str
) -> Iterator[Deployment]:
    """Up, until the block ends; then its services and its jobs' containers are gone. `more_files`: compose files over run/'s."""
    image(client)
    build()
    if os.getuid() == 0:
        os.chown(checkpoints, *SOMEBODY)
    ports = {name: str(free_port()) for name in ("GUI_PORT", "SDK_PORT", "INFERENCE_PORT")}
    environment = {**ports, "CHECKPOINTS": str(checkpoints), "DATASETS": str(ROOT / "datasets"), **settings}
    files = [word for file in (f"run/run_{arch}.yml", *more_files) for word in ("-f", str(file))]
    command = [*compose(), "-p", f"maskwright-test-{uuid.uuid4().hex[:8]}", *files]
    clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) for port in ports.values()]
    product = Deployment(client, checkpoints, command, environment, *clients)
    try:
        product.up()
        yield product
    finally:
        print(product.compose("logs", "--no-color"))
        product.compose("down", "-v")
        for left in client.containers.list(all=True, filters={"label": f"maskwright.checkpoints={checkpoints}"}):
            left.remove(force=True)
        for one in clients:
            one.close()
