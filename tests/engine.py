"""A real Docker engine for tests, or the true reason why there is none."""

import gc
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container
from requests.exceptions import ConnectionError as EngineConnectionError

BASE_IMAGE = "python:3.11-slim-bookworm"


@contextmanager
def engine() -> Iterator["docker.DockerClient"]:
    """A client of this machine's engine. Skips the test where none answers."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except (DockerException, EngineConnectionError) as error:
        reason = str(error)
    else:
        reason = ""
    if reason:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # docker's client forgets the socket that it could not connect
        pytest.skip(f"no Docker engine answers: {reason}")
    try:
        yield client
    finally:
        client.close()


def containers_of(client: "docker.DockerClient", checkpoints: Path) -> list[Container]:
    """Those of the jobs in a checkpoints folder, running or not."""
    label = f"maskwright.checkpoints={checkpoints.resolve()}"
    found: list[Container] = client.containers.list(all=True, ignore_removed=True, filters={"label": label})
    return found


def image(client: "docker.DockerClient", name: str = BASE_IMAGE) -> str:
    """An image that is on this machine or can be fetched. Skips the test where neither is so."""
    try:
        client.images.get(name)
    except ImageNotFound:
        try:
            client.images.pull(name)
        except APIError as error:
            pytest.skip(f"the image {name} is not on this machine and cannot be fetched: {error.explanation}")
    return name


def compose() -> list[str]:
    """The compose command of this machine: the older docker-compose, or compose as a part of docker. Skips where neither is."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    pytest.skip("neither docker-compose nor docker compose is installed")
