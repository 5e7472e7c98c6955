"""What one of each costs the services: ./run/bench.sh costs

A job that runs, a page that follows it and a prediction, at the real services: milliseconds of a processor, questions to the file system
(counted by strace, where it is there) and bytes sent.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from machine import report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.service import picture, running, serve_texture
from tests.waits import ROOT, free_port, wait_for

FILES = re.compile(r"open|stat|access|readlink|rename|unlink|getdents|mkdir|fsync|fdatasync")
FOLLOWERS, JOBS, PREDICTIONS, SPAN = 20, 4, 40, 10.0
WISH = {"engine": "majority", "network": "majority", "backbone": "none", "dataset": "dummy_dataset", "hyperparameters": {"epochs": 10_000}}


def measured(pid: int, what: Callable[[], object]) -> dict[str, float]:
    """What a process takes meanwhile: seconds of a processor, and then, once more under strace, questions to the file system."""
    process, tracer = psutil.Process(pid), shutil.which("strace")
    begun = process.cpu_times()
    what()
    ended = process.cpu_times()
    found = {"cpu": ended.user + ended.system - begun.user - begun.system}
    if tracer is not None:
        with tempfile.NamedTemporaryFile("r") as told:
            watch = subprocess.Popen([tracer, "-f", "-c", "-p", str(pid), "-o", told.name], stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            what()
            watch.send_signal(signal.SIGINT)
            watch.wait(30)
            rows = [line.split() for line in told.read().splitlines()]
        found["files"] = sum(int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and FILES.search(row[-1]))
    return found


@contextmanager
def docker_sdk_api(home: Path) -> Iterator[tuple[httpx.Client, int]]:
    port = free_port()
    own = {"SDK_PORT": port, "DATASETS": home / "datasets", "CHECKPOINTS": home / "checkpoints", "TASK_PYTHON": sys.executable}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PARALLEL_JOBS": "16", **{key: str(value) for key, value in own.items()}}
    process = subprocess.Popen([sys.executable, "-m", "docker_sdk_api"], env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            wait_for(lambda: answers(client), 60)
            yield client, process.pid
            for job in client.get("/v1/jobs").json():
                client.post(f"/v1/jobs/{job['job']['name']}/stop", json={"keep_best": False})
            wait_for(lambda: client.get("/v1/queue").json()["running"] == [], 60)
    finally:
        process.terminate()
        process.wait(30)


def answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/v1/health").is_success
    return False


def costs(home: Path) -> list[list[object]]:
    rows: list[list[object]] = []
    (home / "datasets").mkdir()
    shutil.copytree(ROOT / "datasets" / "dummy_dataset", home / "datasets" / "dummy_dataset")

    def row(what: str, found: dict[str, float], each: float, sent: float | None = None) -> None:
        said = "" if sent is None else f"{sent / each:.0f}"
        rows.append([what, f"{found['cpu'] / each * 1000:.2f}", f"{found['files'] / each:.1f}" if "files" in found else "", said])

    with docker_sdk_api(home) as (client, pid):
        rest = measured(pid, lambda: time.sleep(SPAN))
        row("nothing, for a second", rest, SPAN)
        for number in range(JOBS):
            client.post("/v1/jobs", json={"name": f"job-{number}", **WISH}).raise_for_status()
        time.sleep(3)
        work = measured(pid, lambda: time.sleep(SPAN))
        row("a job that runs, for a second", {key: work[key] - rest[key] for key in work}, SPAN * JOBS)
        address, got = f"{client.base_url}/v1/jobs/job-0/events", f"{home}/stream"
        streams = [subprocess.Popen(["curl", "-sN", "-o", f"{got}-{n}", address]) for n in range(FOLLOWERS)]
        time.sleep(3)
        begun = sum((home / f"stream-{n}").stat().st_size for n in range(FOLLOWERS))
        at = time.monotonic()
        follow = measured(pid, lambda: time.sleep(SPAN))
        sent = sum((home / f"stream-{n}").stat().st_size for n in range(FOLLOWERS)) - begun
        sent *= SPAN / (time.monotonic() - at)
        for stream in streams:
            stream.terminate()
            stream.wait(10)
        row("a page that follows it, for a second", {key: follow[key] - work[key] for key in work}, SPAN * FOLLOWERS, sent)
    (home / "models").mkdir()
    serve_texture(home / "models")
    with running(home / "models") as service, httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
        files = {"picture": ("p.png", picture(1, 480, 480))}
        length = len(client.post("/v1/models/texture/predict", files=files).content)

        def ask() -> None:
            for _ in range(PREDICTIONS):
                client.post("/v1/models/texture/predict", files=files).raise_for_status()

        predict = measured(service.process.pid, ask)
        row("a prediction, beside its network", predict, PREDICTIONS, PREDICTIONS * (len(files["picture"][1]) + length))
    return rows


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no service is left behind
    with tempfile.TemporaryDirectory(prefix="costs-") as folder:
        rows = costs(Path(folder))
    figures = {f"ms_{what.split(',')[0].replace(' ', '_')}": float(taken) for what, taken, *_ in rows}
    report(["what", "processor, ms", "files asked for", "bytes"], rows, figures)


if __name__ == "__main__":
    main()
