"""The pages under load: ./run/bench.sh gui [--jobs 1000] [--models 100] [--datasets 50] [--lines 1000000] [--streams 200] [--minutes 10]

Makes a workplace of that many jobs, models and datasets, starts the services over it, and takes
  worst_page_p95_ms  the slowest page's 95th percentile, asked for one after the other
  log_tail_ms        a job's page with a log of so many lines, its last line on it: the median
  lost_events        events of a job that grows, followed by so many at once, that did not come or came twice
and by how much the services' memory grew over the second half of the following.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import numpy as np
import psutil
from first_model import services
from machine import report
from PIL import Image

from contracts.events import EpochDone, Event, Finished, Preview, Progress, Stage, Started
from contracts.hyperparameters import Hyperparameters
from contracts.job import EpochScores, Job
from contracts.job_folder import JobFolder
from contracts.model import Geometry, Model, Parity

CLASSES = ["background", "pad", "circle"]
EPOCHS, STEPS = 40, 10
BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
GROWS, LONG = "growing", "long-log"


def make_dataset(folder: Path) -> None:
    """Four small pictures with masks."""
    numbers = np.random.default_rng(1)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(4):
        Image.fromarray(numbers.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / "images" / f"p{index}.png")
        Image.fromarray(numbers.integers(0, 3, (48, 64), np.uint8)).save(folder / "labels" / f"p{index}.png")
    (folder / "objectclasses.json").write_text(json.dumps({"classes": 3, "classesname": CLASSES}))


def make_job(checkpoints: Path, datasets: Path, name: str, index: int, model: bool, done: bool = True) -> JobFolder:
    """A job as a training leaves it, without weights: its events, a log, one sheet."""
    folder = JobFolder(checkpoints / name)
    folder.previews.mkdir(parents=True)
    dataset = f"dataset-{index % len(list(datasets.iterdir()))}"
    asked = {"name": name, "dataset": dataset, "engine": "majority", "network": "majority", "backbone": "none"}
    at = BEGAN + timedelta(minutes=index)
    folder.write_job(Job(**asked, dataset_folder=datasets / dataset, created=at, hyperparameters=Hyperparameters(epochs=EPOCHS)))
    events = list(events_of(EPOCHS if done else 2, at))
    folder.events_file.write_text("".join(event.model_dump_json() + "\n" for event in events[: None if done else -1]))
    folder.log_file.write_text("".join(f"epoch {epoch} of {EPOCHS}\n" for epoch in range(1, EPOCHS + 1)))
    Image.new("RGB", (320, 60)).save(folder.previews / "epoch-0001.jpg")
    if model:
        folder.model.mkdir()
        model_of(name, at, events).write(folder.model)
    return folder


def events_of(epochs: int, at: datetime) -> list[Event]:
    """What a training of so many epochs says, a Progress each step."""
    rows: list[Event] = [Stage(at=at, state="training", stage="training"), Started(at=at, epochs=EPOCHS, device="CPU")]
    for epoch in range(1, epochs + 1):
        for step in range(1, STEPS + 1):
            rows.append(Progress(at=at, epoch=epoch, step=step, steps=STEPS, loss=1 / epoch, pictures_per_second=9.5, seconds_left=60))
        if epoch == 1:
            rows.append(Preview(at=at, epoch=1, file="epoch-0001.jpg"))
        rows.append(EpochDone(at=at, scores=scores_of(epoch)))
    return [*rows, Finished(at=at + timedelta(minutes=5))]


def scores_of(epoch: int) -> EpochScores:
    iou = 0.9 - 0.5 / epoch
    scored = {"mean_iou": iou, "pixel_accuracy": 0.95, "iou_per_class": dict.fromkeys(CLASSES, iou)}
    return EpochScores(epoch=epoch, loss=1 / epoch, learning_rate=0.002, seconds=3, best=True, **scored)


def model_of(name: str, at: datetime, events: list[Event]) -> Model:
    best = next(event.scores for event in reversed(events) if isinstance(event, EpochDone))
    facts = {"name": name, "job": name, "created": at, "engine": "majority", "network": "majority", "backbone": "none"}
    look = {"classes": CLASSES, "palette": [(0, 0, 0), (230, 159, 0), (86, 180, 233)], "geometry": Geometry(short_side=48)}
    numbers = {"mean": (0.5, 0.5, 0.5), "deviation": (0.2, 0.2, 0.2), "train_pictures": 3, "validation_pictures": 1, "seconds": 60.0}
    words = {"dataset": "dataset-0", "weights": "from_scratch", "weights_licence": "none", "predictor": "majority"}
    return Model(**facts, **look, **numbers, **words, scores=best, parity=Parity(pictures=1, equal_pixels=1, largest_difference=0))


def make_workplace(home: Path, jobs: int, models: int, datasets: int, lines: int) -> None:
    """`home`/datasets and `home`/checkpoints; one job has a long log, and one still grows."""
    for index in range(datasets):
        make_dataset(home / "datasets" / f"dataset-{index}")
    for index in range(jobs - 2):
        make_job(home / "checkpoints", home / "datasets", f"job-{index:04d}", index, index < models)
    long = make_job(home / "checkpoints", home / "datasets", LONG, jobs, model=False)
    with open(long.log_file, "w") as log:
        log.writelines(f"step {number}: loss {1 / (number + 1):.6f}, learning rate 0.002, 9.5 crops a second\n" for number in range(lines))
    growing = make_job(home / "checkpoints", home / "datasets", GROWS, jobs + 1, model=False, done=False)
    me = psutil.Process()  # this script stands in for the training that writes the events
    pid, started = me.pid, int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record = {"boot": boot, "supervisor": pid, "supervisor_started": started, "pid": pid, "started": started}
    growing.task_file.write_text(json.dumps(record))


def pages_of(models: int) -> list[str]:
    job, model = "job-0000", "job-0000" if models else ""
    fixed = ["/", "/datasets", "/datasets/dataset-0", "/datasets/dataset-0/pictures/p0", "/train", "/train/settings?dataset=dataset-0"]
    fixed += ["/jobs", "/jobs?place=3", "/jobs?search=job-07", "/jobs?show=running", f"/jobs/{job}", f"/jobs/{GROWS}"]
    fixed += [f"/compare?job={job}&job=job-0001", "/models", "/machine", "/train/review?dataset=dataset-0&network=majority/majority/none"]
    return fixed + ([f"/models/{model}", f"/models/{model}/try"] if model else [])


def time_pages(client: httpx.Client, paths: list[str], times: int) -> dict[str, list[float]]:
    """Milliseconds of each answer by page; every page is asked for once before, as the first visitor of a service waits longer."""
    taken: dict[str, list[float]] = {path: [] for path in paths}
    for turn in range(-1, times):
        for path in paths:
            began = time.perf_counter()
            client.get(path).raise_for_status()
            if turn >= 0:
                taken[path].append((time.perf_counter() - began) * 1000)
    return taken


def time_log(client: httpx.Client, lines: int) -> float:
    """Milliseconds of the page whose log is long, the median of nine; its last line is on it."""
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        answer = client.get(f"/jobs/{LONG}").raise_for_status()
        taken.append((time.perf_counter() - began) * 1000)
        assert f"step {lines - 1}: " in answer.text, "the log's last line is not on the page"
    return statistics.median(taken)


async def follow(url: str, folder: JobFolder, streams: int, minutes: float, memory: list[int], watch: psutil.Process) -> int:
    """Let a job say two things a second, and so many follow it; how many events were lost or came twice."""
    limits = httpx.Limits(max_connections=None)
    deadline = time.monotonic() + minutes * 60
    async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(60, read=None), limits=limits, trust_env=False) as client:
        readers = [asyncio.create_task(read(client)) for _ in range(streams)]
        said = len(folder.events())
        with open(folder.events_file, "a", buffering=1) as file:
            while time.monotonic() < deadline:
                said += 1
                row = Progress(epoch=3, step=said, steps=said, loss=0.1, pictures_per_second=9.5, seconds_left=60)
                file.write(row.model_dump_json() + "\n")
                memory.append(memory_of(watch))
                await asyncio.sleep(0.5)
            file.write(Finished().model_dump_json() + "\n")
        seen = await asyncio.gather(*readers)
    wanted = list(range(1, said + 2))
    return sum(len(set(wanted) ^ set(ids)) + len(ids) - len(set(ids)) for ids in seen)


async def read(client: httpx.AsyncClient) -> list[int]:
    """The numbers of all events that one browser is sent."""
    ids = []
    async with client.stream("GET", f"/jobs/{GROWS}/events", headers={"Last-Event-ID": "0"}) as answer:
        answer.raise_for_status()
        number = 0
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line == "event: event":
                ids.append(number)
            elif line == "event: end":
                return ids
    return ids


def memory_of(up: psutil.Process) -> int:
    """Bytes that the services hold, all of them."""
    return sum(child.memory_info().rss for child in up.children(recursive=True))


def services_of() -> psutil.Process:
    """The process that holds the services."""
    return next(child for child in psutil.Process().children() if any(part == "up" for part in child.cmdline()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("jobs", 1000), ("models", 100), ("datasets", 50), ("lines", 1_000_000), ("streams", 200), ("times", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    home = Path(tempfile.mkdtemp())
    try:
        make_workplace(home, asked.jobs, asked.models, asked.datasets, asked.lines)
        with services(home / "datasets", home / "checkpoints") as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            up = services_of()
            pages = time_pages(client, pages_of(asked.models), asked.times)
            tail = time_log(client, asked.lines)
            memory: list[int] = []
            lost = asyncio.run(follow(url, JobFolder(home / "checkpoints" / GROWS), asked.streams, asked.minutes, memory, up))
    finally:
        shutil.rmtree(home)
    p95 = {path: sorted(taken)[int(len(taken) * 0.95) - 1] for path, taken in pages.items()}
    half = memory[len(memory) // 2]
    figures = {
        "worst_page_p95_ms": round(max(p95.values()), 1),
        "log_tail_ms": round(tail, 1),
        "lost_events": lost,
        "memory_mb": round(memory[-1] / 1e6),
        "memory_growth_mb": round((memory[-1] - half) / 1e6, 1),
        "streams": asked.streams,
        "minutes": asked.minutes,
    }
    rows = [(path, f"{statistics.median(pages[path]):.0f}", f"{p95[path]:.0f}") for path in sorted(p95, key=p95.__getitem__, reverse=True)]
    report(("page", "median ms", "p95 ms"), rows, figures)


if __name__ == "__main__":
    sys.exit(main())
