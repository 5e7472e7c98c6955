"""The real service over HTTP against bare calls of its runtime: one caller, and many at the same time."""

import http.client
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from loops.compare import ROOT
from machine import free_port
from PIL import Image

from annotations.dataset import Pair, read_picture
from annotations.whole_picture import IMAGENET, resize_picture
from contracts.model import read_model
from runtimes import choose, look_around, open_graph

START = 60.0
"""Seconds in which the service must answer."""
ENDURING = 12
"""Callers that go on for minutes."""
PATIENCE = 600.0
"""Seconds that a caller waits for its answer."""
EDGE = "edge-of-a-part"
FORM = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}


@contextmanager
def served(checkpoints: Path, **settings: object) -> Iterator[tuple[int, int]]:
    """The service over a folder of jobs, in a process of its own: its port, and the process."""
    port = free_port()
    chosen = {"checkpoints": checkpoints, "inference_port": port, "deadline": PATIENCE, **settings}
    environment = {**os.environ, **{name.upper(): str(value) for name, value in chosen.items()}}
    silent = subprocess.DEVNULL
    service = subprocess.Popen([sys.executable, "-m", "inference_api"], cwd=ROOT, env=environment, stdout=silent, stderr=silent)
    deadline = time.monotonic() + START
    try:
        while not answers(port):
            if service.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The service did not start (exit code {service.poll()}); python -m inference_api says why.")
            time.sleep(0.1)
        yield port, service.pid
    finally:
        service.terminate()
        service.wait()


def answers(port: int) -> bool:
    try:
        with connected(port) as caller:
            caller.request("GET", "/v1/health")
            return caller.getresponse().status == http.HTTPStatus.OK
    except ConnectionError:
        return False


@contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    """A plain connection: it is the service that is measured, not a client."""
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        yield caller
    finally:
        caller.close()


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


def form_of(picture: np.ndarray) -> bytes:
    """The picture as a JPEG file in a form."""
    file = io.BytesIO()
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="picture"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    file.write(head.encode())
    Image.fromarray(picture).save(file, "JPEG", quality=92)
    file.write(f"\r\n--{EDGE}--\r\n".encode())
    return file.getvalue()


def ask(caller: http.client.HTTPConnection, name: str, form: bytes) -> bytes:
    caller.request("POST", f"/v1/models/{name}/predict", form, FORM)
    answer = caller.getresponse()
    content = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"{name} answered {answer.status}: {content!r}")
    return content


def compare_http(port: int, folder: Path, pairs: list[Pair], rounds: int) -> tuple[list[object], float]:
    """A JPEG file in, a mask's PNG file out, against a bare call; in turn. The row and the ratio of the medians."""
    name = folder.parent.name
    predict, describe = bare_call(folder)
    pictures = [read_picture(pair.picture) for pair in pairs[: min(len(pairs), rounds)]]
    batches, forms = [batch_of(picture, folder) for picture in pictures], [form_of(picture) for picture in pictures]
    asked, bare = [], []
    with connected(port) as caller:
        for number in range(-3, rounds):
            place = number % len(pictures)
            started = time.perf_counter()
            ask(caller, name, forms[place])
            between = time.perf_counter()
            predict(batches[place])
            if number >= 0:  # the first ones load and compile
                asked.append(between - started)
                bare.append(time.perf_counter() - between)
    ratio = statistics.median(asked) / statistics.median(bare)
    return [f"{name}: a request", describe, median(asked), f"{median(bare)} ms bare, {ratio:.3f} ×"], round(ratio, 3)


def simultaneous(port: int, folder: Path, pairs: list[Pair], callers: tuple[int, ...]) -> tuple[list[list[object]], int, float]:
    """So many callers at once, each with a picture of its own size: rows, wrong answers in all, least throughput against bare calls."""
    name = folder.parent.name
    predict, describe = bare_call(folder)
    pictures = [_of_its_own_size(read_picture(pairs[number % len(pairs)].picture), number) for number in range(max(callers))]
    forms, batches = [form_of(picture) for picture in pictures], [batch_of(picture, folder) for picture in pictures]
    rows: list[list[object]] = []
    wrong, least = 0, float("inf")
    with connected(port) as caller:
        expected = [ask(caller, name, form) for form in forms]
    predict(batches[0])
    for number in callers:
        started = time.perf_counter()
        for batch in batches[:number]:
            predict(batch)
        alone = time.perf_counter() - started
        together, answered = _at_once(port, name, forms[:number])
        faults = sum(not _same(answered.get(place), expected[place]) for place in range(number))
        wrong, least = wrong + faults, min(least, alone / together)
        found = f"each; {alone / together:.3f} × bare, {faults} wrong"
        rows.append([f"{number} callers at once", describe, round(1000 * together / number, 1), found])
    return rows, wrong, round(least, 3)


def endurance(port: int, process: int, folder: Path, pairs: list[Pair], minutes: float) -> tuple[list[object], float]:
    """Twelve callers, each with one picture after the other, for so long: the row, and the last minute's memory over the first's.

    What is loaded, compiled and allocated for good by the largest pictures was so before: the clock starts after a round of all of them.
    """
    name = folder.parent.name
    forms = [form_of(_of_its_own_size(read_picture(pairs[number % len(pairs)].picture), number)) for number in range(ENDURING)]
    _at_once(port, name, forms)
    end = time.monotonic() + 60 * minutes
    answers_ = [0] * ENDURING
    memory: list[tuple[float, int]] = []

    def call(place: int) -> None:
        with connected(port) as caller:
            while time.monotonic() < end:
                ask(caller, name, forms[place])
                answers_[place] += 1

    threads = [threading.Thread(target=call, args=(place,)) for place in range(ENDURING)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        memory.append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE")))
        time.sleep(1)
    for thread in threads:
        thread.join()
    slice_ = min(60.0, 30 * minutes)
    first = statistics.mean(size for at, size in memory if at < memory[0][0] + slice_)
    last = statistics.mean(size for at, size in memory if at > memory[-1][0] - slice_)
    found = f"{first / 1e6:.0f} MB in the first minute, {last / 1e6:.0f} in the last, {max(size for _, size in memory) / 1e6:.0f} at most"
    each = 60_000 * minutes / sum(answers_)
    return [f"{ENDURING} callers for {minutes:g} minutes", f"{sum(answers_)} answers", round(each, 1), found], round(last / first, 3)


def _of_its_own_size(picture: np.ndarray, number: int) -> np.ndarray:
    """A size that no other number has, and a content that tells: every pixel turned by the number."""
    height, width = picture.shape[0] - number, picture.shape[1] - (7 * number) % 200
    return np.roll(resize_picture(picture, (height, width)), number, axis=1)


def _at_once(port: int, name: str, forms: list[bytes]) -> tuple[float, dict[int, bytes]]:
    """Seconds until all are answered, and the answers; every caller has a connection of its own."""
    answered: dict[int, bytes] = {}

    def call(place: int) -> None:
        with connected(port) as caller:
            answered[place] = ask(caller, name, forms[place])

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(forms))]
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
