"""The real service over HTTP against bare calls of its runtime: one caller, and many at the same time."""

import io
import os
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
from loops.compare import ROOT
from PIL import Image

from annotations.dataset import Pair, read_picture
from annotations.whole_picture import IMAGENET, resize_picture
from contracts.model import read_model
from runtimes import choose, look_around, open_graph

START = 60.0
"""Seconds in which the service must answer."""
TRUST = ssl.create_default_context()
"""Never used, but a client takes long to make its own."""
PATIENCE = 600.0
"""Seconds that a caller waits for its answer."""


@contextmanager
def served(checkpoints: Path) -> Iterator[str]:
    """The service over a folder of jobs, in a process of its own: its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    places = {"CHECKPOINTS": str(checkpoints), "INFERENCE_PORT": str(port), "DEADLINE": str(PATIENCE)}
    environment, silent = {**os.environ, **places}, subprocess.DEVNULL
    service = subprocess.Popen([sys.executable, "-m", "inference_api"], cwd=ROOT, env=environment, stdout=silent, stderr=silent)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START
    try:
        while not answers(url):
            if service.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The service did not start (exit code {service.poll()}); python -m inference_api says why.")
            time.sleep(0.1)
        yield url
    finally:
        service.terminate()
        service.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/health").is_success
    except httpx.TransportError:
        return False


def bare_call(folder: Path) -> tuple[Callable[[np.ndarray], object], str]:
    """One call of the runtime that serves a model, in the same numbers, on a decoded picture in memory; and what it is."""
    model = read_model(folder)
    graph = open_graph(folder, *choose("auto", "auto", model.comparisons, look_around()))
    return graph.predict, graph.describe


def batch_of(picture: np.ndarray, folder: Path) -> np.ndarray:
    """Of a picture no larger than the network's own size."""
    geometry = read_model(folder).geometry
    height, width = picture.shape[:2]
    rows, columns = geometry.tile or (-(-side // geometry.multiple_of) * geometry.multiple_of for side in (height, width))
    return IMAGENET.apply(np.pad(picture, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge"))[None]


def as_jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92)
    return file.getvalue()


def ask(client: httpx.Client, name: str, content: bytes) -> bytes:
    answer = client.post(f"/v1/models/{name}/predict", files={"picture": ("photo.jpg", content, "image/jpeg")})
    if not answer.is_success:
        raise SystemExit(f"{name} answered {answer.status_code}: {answer.text}")
    return answer.content


def compare_http(url: str, folder: Path, pairs: list[Pair], rounds: int) -> tuple[list[object], float]:
    """A JPEG file in, a mask's PNG file out, against a bare call; in turn. The row and the ratio of the medians."""
    name = folder.parent.name
    predict, describe = bare_call(folder)
    pictures = [read_picture(pair.picture) for pair in pairs[: min(len(pairs), rounds)]]
    batches, files = [batch_of(picture, folder) for picture in pictures], [as_jpeg(picture) for picture in pictures]
    asked, bare = [], []
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        for number in range(-3, rounds):
            place = number % len(pictures)
            started = time.perf_counter()
            ask(client, name, files[place])
            between = time.perf_counter()
            predict(batches[place])
            if number >= 0:  # the first ones load and compile
                asked.append(between - started)
                bare.append(time.perf_counter() - between)
    ratio = statistics.median(asked) / statistics.median(bare)
    return [f"{name}: a request", describe, median(asked), f"{median(bare)} ms bare, {ratio:.3f} ×"], round(ratio, 3)


def simultaneous(url: str, folder: Path, pairs: list[Pair], callers: tuple[int, ...]) -> tuple[list[list[object]], int, float]:
    """So many callers at once, each with a picture of its own size: rows, wrong answers in all, least throughput against bare calls."""
    name = folder.parent.name
    predict, describe = bare_call(folder)
    pictures = [_of_its_own_size(read_picture(pairs[number % len(pairs)].picture), number) for number in range(max(callers))]
    files, batches = [as_jpeg(picture) for picture in pictures], [batch_of(picture, folder) for picture in pictures]
    rows: list[list[object]] = []
    wrong, least = 0, float("inf")
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        expected = [ask(client, name, content) for content in files]
    predict(batches[0])
    for number in callers:
        started = time.perf_counter()
        for batch in batches[:number]:
            predict(batch)
        alone = time.perf_counter() - started
        together, answered = _at_once(url, name, files[:number])
        faults = sum(not _same(answered.get(place), expected[place]) for place in range(number))
        wrong, least = wrong + faults, min(least, alone / together)
        found = f"each; {alone / together:.3f} × bare, {faults} wrong"
        rows.append([f"{number} callers at once", describe, round(1000 * together / number, 1), found])
    return rows, wrong, round(least, 3)


def _of_its_own_size(picture: np.ndarray, number: int) -> np.ndarray:
    """A size that no other number has, and a content that tells: every pixel turned by the number."""
    height, width = picture.shape[0] - number, picture.shape[1] - (7 * number) % 200
    return np.roll(resize_picture(picture, (height, width)), number, axis=1)


def _at_once(url: str, name: str, files: list[bytes]) -> tuple[float, dict[int, bytes]]:
    """Seconds until all are answered, and the answers; every caller has a connection of its own."""
    answered: dict[int, bytes] = {}

    def call(client: httpx.Client, place: int) -> None:
        answered[place] = ask(client, name, files[place])

    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE, verify=TRUST)) for _ in files]
        threads = [threading.Thread(target=call, args=(client, place)) for place, client in enumerate(clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started, answered


def _same(one: bytes | None, other: bytes) -> bool:
    return one is not None and np.array_equal(*(np.asarray(Image.open(io.BytesIO(content))) for content in (one, other)))


def median(seconds: list[float]) -> float:
    """In milliseconds."""
    return round(1000 * statistics.median(seconds), 1)
