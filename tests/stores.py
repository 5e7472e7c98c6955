"""A real S3 server that can be away for a while, and nodes that see no folder of docker_sdk_api's, with Ray or without."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

from docker_sdk_api.launchers.bucket import Bucket
from docker_sdk_api.launchers.ray_head import Head, Node
from tests.waits import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}


class Store:
    """An S3 server on this machine, in memory, with one bucket."""

    def __init__(self) -> None:
        self.address = "s3://bucket/maskwright"
        self.port = free_port()
        self.server: ThreadedMotoServer | None = None

    def begin(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()

    def away(self) -> None:
        """It answers nobody until it begins again, with what it had."""
        assert self.server is not None
        self.server.stop()
        self.server = None

    def names(self, prefix: str = "") -> list[str]:
        return Bucket(self.address).names(prefix)


@contextmanager
def store() -> Iterator[Store]:
    """A server, to which the environment's keys and address belong while the block lasts."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = Store()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{made.port}"}.items():
            environment.setenv(name, value)
        made.begin()
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="bucket")
        client.close()
        yield made
        if made.server is not None:
            made.away()


def python_without(folder: Path, python: Path, place: Path) -> Path:
    """A program `place` that is `python`, but sees nothing of what lies in a folder, as on a machine without a shared disk."""
    hidden = f"mount -t tmpfs none {shlex.quote(str(folder))}"
    apart = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if subprocess.run([*apart, hidden], capture_output=True, check=False).returncode == 0:
        command = f'exec {shlex.join(apart)} \'{hidden} && exec "$@"\' sh {shlex.quote(str(python))} "$@"'
    else:  # where a machine allows no namespaces, that it does without the folder is only likely
        command = f'exec {shlex.quote(str(python))} "$@"'
    place.write_text(f"#!/bin/sh\n{command}\n")
    place.chmod(0o755)
    return place


@dataclass
class OneMachine(Head):
    """What a launcher asks of Ray's head, done on this machine at once: for the tests of what has nothing to do with Ray."""

    caches: list[Path]
    """Of its nodes: each job is given to the first one that has not been lost."""
    lost: set[str] = field(default_factory=set)
    ran: dict[str, tuple[str, "subprocess.Popen[str]"]] = field(default_factory=dict)
    names: dict[str, dict[str, Any]] = field(default_factory=dict)

    def submit(self, request: dict[str, Any]) -> None:
        cache = next(cache for cache in self.caches if cache.name not in self.lost)
        environment = {**os.environ, **request["runtime_env"]["env_vars"], "NODE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.ran[request["submission_id"]] = (
            cache.name,
            subprocess.Popen(["sh", "-c", request["entrypoint"]], env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True),
        )
        self.names[request["submission_id"]] = request["metadata"]

    def job(self, submission: str, now: bool = False) -> dict[str, Any] | None:  # noqa: ARG002 - it is never late
        if submission not in self.ran:
            return None
        node, process = self.ran[submission]
        told: dict[str, Any] = {"submission_id": submission, "metadata": self.names[submission], "driver_node_id": node}
        code = process.poll()
        if node in self.lost:
            return {**told, "status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}
        if code is None:
            return {**told, "status": "RUNNING"}
        return {**told, "status": "FAILED" if code else "SUCCEEDED", **({"driver_exit_code": code} if code else {})}

    def jobs(self) -> list[dict[str, Any]]:
        return [job for name in self.ran if (job := self.job(name)) is not None]

    def stop(self, submission: str) -> None:
        for process in _family(self.ran[submission][1].pid):
            process.send_signal(signal.SIGTERM)

    def delete(self, submission: str) -> None:
        self.ran.pop(submission)

    def logs(self, submission: str) -> str:
        out = self.ran[submission][1].stdout
        return out.read() if out is not None and self.ran[submission][1].poll() is not None else ""

    def nodes(self, now: bool = False) -> list[Node]:  # noqa: ARG002
        return [Node(cache.name, cache.name, cache.name not in self.lost, 1, 0, 8e9) for cache in self.caches]

    def lose(self, node: str) -> None:
        """As when a machine loses its power."""
        self.lost.add(node)
        for name, process in self.ran.values():
            if name == node:
                self._end(process)

    def close(self) -> None:
        for _, process in self.ran.values():
            self._end(process)
            if process.stdout is not None:
                process.stdout.close()

    def _end(self, process: "subprocess.Popen[str]") -> None:
        for one in _family(process.pid):
            one.kill()
        process.wait(timeout=30)


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def one_machine(*nodes: str) -> Iterator[OneMachine]:
    folder = Path(tempfile.mkdtemp(prefix="nodes-"))
    head = OneMachine([folder / name for name in nodes])
    try:
        yield head
    finally:
        head.close()
        shutil.rmtree(folder, ignore_errors=True)
