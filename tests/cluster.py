"""A small Ray cluster on this machine: each node is a process with an address of its own, as machines have."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from contracts.errors import Unavailable
from docker_sdk_api.launchers.ray_head import Head
from tests.waits import ROOT, free_port, wait_for

RAY_PYTHON = ROOT / ".venv-ray" / "bin" / "python"
QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_JOB_START_TIMEOUT_SECONDS": "31536000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_enable_metrics_collection": "false",
    "RAY_num_prestart_python_workers": "0",
    "RAY_worker_maximum_startup_concurrency": "2",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": "",
}
"""That a node's death is noticed within seconds, and that nothing is started that no test needs."""


@dataclass
class Cluster:
    """Its nodes by their addresses, such as 127.0.0.2 (Ray takes 127.0.0.1 for any name of this machine); the first one is the head."""

    folder: Path
    port: int
    dashboard: int
    cpus: int = 1
    nodes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    head: str = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def add(self, host: str, *arguments: str) -> None:
        """Start a node of one processor; it belongs to the cluster once `alive` says so."""
        self.head = self.head or host
        first = [
            "--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}",
            f"--temp-dir={self.folder}", f"--ray-client-server-port={free_port()}",
        ]  # fmt: skip
        place = first if host == self.head else [f"--address={self.head}:{self.port}"]
        small = [f"--num-cpus={self.cpus}", "--object-store-memory=80000000", "--block", "--dashboard-agent-listen-port=0"]
        command = [str(RAY_PYTHON.with_name("ray")), "start", *place, f"--node-ip-address={host}", *small, *arguments]
        with open(self.folder / f"{host}.log", "ab") as log:
            self.nodes[host] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **QUICK}
            )
        wait_for(lambda: host in self.alive() or self.nodes[host].poll() is not None, 90)
        assert self.nodes[host].poll() is None, (self.folder / f"{host}.log").read_text()[-2000:]

    def alive(self) -> set[str]:
        """The addresses of the nodes that Ray takes to live."""
        try:
            return {node.address for node in Head(self.address).nodes() if node.alive}
        except Unavailable:
            return set()

    def kill(self, host: str) -> None:
        """As when a machine loses its power: everything on the node ends at once."""
        node = self.nodes.pop(host)
        for pid in _family(node.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait(timeout=30)


def _family(pid: int) -> list[int]:
    try:
        root = psutil.Process(pid)
        return [root.pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def cluster(*hosts: str, cpus: int = 1) -> Iterator[Cluster]:
    """A cluster of nodes with these addresses and processors, all ended at the end of the block. Skips where Ray is not installed."""
    if "PYTEST_CURRENT_TEST" in os.environ and os.environ.get("MASKWRIGHT_TEST_RAY") != "1":
        pytest.skip("a Ray cluster takes some minutes of two processors: MASKWRIGHT_TEST_RAY=1 tries it")
    if not RAY_PYTHON.exists():
        pytest.skip("no .venv-ray: MASKWRIGHT_TEST_RAY=1 ./run/tests.sh installs it")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    made = Cluster(folder, free_port(), free_port(), cpus)
    try:
        for host in hosts:
            made.add(host)
        yield made
    finally:
        for host in list(made.nodes)[::-1]:
            made.kill(host)
        shutil.rmtree(folder, ignore_errors=True)
