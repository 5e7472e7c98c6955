"""A real inference_api in a process of its own, with a small model whose answers differ by picture."""

import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from contracts.model import Geometry
from tests.conftest import ROOT, wait_for
from tests.served import serve_graph
from tests.waits import free_port


class Service:
    """A running service: its address and its process."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url, self.process = url, process

    def memory(self) -> int:
        """Bytes that the process holds in memory."""
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return int(rows["VmRSS"].split()[0]) * 1024

    def metrics(self) -> dict[str, float]:
        """Row → value."""
        lines = httpx.get(f"{self.url}/v1/metrics", timeout=30).raise_for_status().text.splitlines()
        return {row: float(value) for row, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


@contextmanager
def running(checkpoints: Path, **settings: object) -> Iterator[Service]:
    """The service over a folder of models, until the block ends."""
    port = free_port()
    chosen = {"INFERENCE_PORT": port, "CHECKPOINTS": checkpoints, **{name.upper(): value for name, value in settings.items()}}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in chosen.items()}}
    with open(checkpoints / ".service.log", "ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "inference_api"], env=environment, stdout=log, stderr=log)
    service = Service(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(lambda: _answers(service), 60)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _answers(service: Service) -> bool:
    assert service.process.poll() is None, "the service ended"
    try:
        return httpx.get(f"{service.url}/v1/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def serve_texture(checkpoints: Path, name: str = "texture", tile: tuple[int, int] | None = None) -> None:
    """A model of random convolutions: its masks have all classes and depend on every pixel around."""
    numbers = np.random.default_rng(5)
    sizes = [3, 16, 16, 3]
    layers = []
    for before, after in itertools.pairwise(sizes):
        weights = numbers.normal(0, (before * 9) ** -0.5, (after, before, 3, 3)).astype(np.float32)
        layers.append((weights, np.zeros(after, np.float32)))
    serve_graph(checkpoints, name, layers, Geometry(short_side=4096, multiple_of=8, tile=tile))


def picture(number: int, height: int, width: int, flat: bool = False) -> bytes:
    """A PNG of smooth noise, another one for every number; or of one colour, which is a small file."""
    size = (1, 1) if flat else (height // 8 + 1, width // 8 + 1)
    small = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height)).save(file, "PNG", compress_level=1)
    return file.getvalue()
