"""Training loops against one another: the product's whole job, its step fed from memory, and a plain GluonCV loop."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import report
from PIL import Image

from contracts.events import EpochDone, Stage
from contracts.job_folder import JobFolder
from docker_sdk_api.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
JOB, MEMORY, PLAIN, BY_ITSELF = "the job", "its step from memory", "plain GluonCV", "plain GluonCV, own choice of threads"
PICTURES = 10
CROPS = 2
"""Of a picture in an epoch."""
# By itself MXNet takes half of the processors: all loops get all of them, and one is told beside them as it starts by itself.
THREADS = str(len(os.sched_getaffinity(0)))
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": THREADS, "PYTHONPATH": str(ROOT)}


def photographs(folder: Path) -> Path:
    """The dummy dataset's first pictures at three times their size, as photographs come: JPEG, 768 × 576."""
    dummy = ROOT / "datasets" / "dummy_dataset"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for path in sorted((dummy / "images").iterdir())[:PICTURES]:
        picture, mask = Image.open(path), Image.open(dummy / "labels" / f"{path.stem}.png")
        size = (3 * picture.width, 3 * picture.height)
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / "images" / f"{path.stem}.jpg", quality=92)
        mask.resize(size, Image.Resampling.NEAREST).save(folder / "labels" / f"{path.stem}.png")
    (folder / "objectclasses.json").write_text((dummy / "objectclasses.json").read_text())
    return folder


class Loop:
    """A loop in a process of its own that trains a number of steps whenever it is told to."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT, cwd=ROOT, text=True
        )
        while self._line() != "ready":
            pass

    def seconds(self, word: str = "go") -> float:
        """Of its next steps, or of what the word names."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended with exit code {self.process.wait()}.")  # type: ignore[arg-type]
        return line.strip()


@contextmanager
def running(*commands: list[str]) -> Iterator[list[Loop]]:
    loops: list[Loop] = []
    try:
        for command in commands:
            loops.append(Loop(command))
        yield loops
    finally:
        for loop in loops:
            loop.process.kill()
            loop.process.wait()


def run(description: str, key: str, python: Path, batch: int, against: str, *plain: str) -> None:
    """The whole benchmark of one engine: its arguments, its dataset, its figures; `against` names the ratio to the plain loop."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--crop", type=int, default=480)
    parser.add_argument("--batch", type=int, default=batch)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder.resolve() if asked.folder else photographs(Path(scratch) / "photographs")
        speeds = compare(folder, key, str(python), asked.rounds, asked.crop, asked.batch, *plain)
    report_figures(against, speeds)


def compare(folder: Path, key: str, python: str, rounds: int, crop: int, batch: int, *plain: str) -> dict[str, list[float]]:
    """Pictures a second, round by round, of the job, its step from memory and the plain loop on all processors and on its own choice of
    them; in turn, A B C D A B C D."""
    steps = PICTURES * 4 // 5 * CROPS // batch  # an epoch of the job: four fifths of the pictures teach
    settings = [f"crop={crop}", f"short_side={crop}", f"batch_size={batch}", f"crops_per_picture={CROPS}"]
    loops = Path(__file__).parent
    memory_command = [python, str(loops / "from_memory.py"), str(folder), key, *settings]
    plain_command = [str(gluon_python()), str(loops / "plain_gluon.py"), str(folder), str(crop), str(batch), *plain]
    by_itself = ["env", "--unset=OMP_NUM_THREADS", *plain_command]
    speeds: dict[str, list[float]] = {name: [] for name in (JOB, MEMORY, PLAIN, BY_ITSELF)}
    with running(memory_command, plain_command, by_itself) as waiting:
        for loop in waiting:
            loop.seconds(1)  # the first steps also build graphs
        for _ in range(rounds):
            speeds[JOB].append(whole_job(folder, key, settings))
            for name, loop in zip((MEMORY, PLAIN, BY_ITSELF), waiting, strict=True):
                speeds[name].append(steps * batch / loop.seconds(steps))
            print(*(f"{speed[-1]:.3f}" for speed in speeds.values()), "pictures a second", file=sys.stderr)
    return speeds


def report_figures(against: str, speeds: dict[str, list[float]]) -> None:
    """Medians of the ratios taken round by round: what disturbs a round disturbs all its parts."""
    rows = [(number, *(f"{speed:.3f}" for speed in round_)) for number, round_ in enumerate(zip(*speeds.values(), strict=True), start=1)]

    def ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(speeds[JOB], speeds[other], strict=True))

    figures = {
        against: round(ratio(PLAIN), 2),
        f"{against}_by_itself": round(ratio(BY_ITSELF), 2),
        "vs_memory": round(ratio(MEMORY), 3),
        "pictures_per_second": round(statistics.median(speeds[JOB]), 3),
    }
    report(("round", *speeds), rows, figures)


def whole_job(folder: Path, key: str, settings: list[str]) -> float:
    """Pictures a second of a real job's second epoch, from the job's own events: reading, augmenting, learning, logging."""
    engine, network, backbone = key.split("/")
    with tempfile.TemporaryDirectory() as checkpoints:
        words = [word for pair in settings for word in ("--set", pair)]
        command = [sys.executable, "-m", "cli", "train", str(folder), "--name", "speed", "--engine", engine, "--network", network]
        command += ["--backbone", backbone, "--epochs", "3", *words]
        job = subprocess.Popen(
            command, env={**ENVIRONMENT, "CHECKPOINTS": checkpoints}, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        files = JobFolder(Path(checkpoints) / "speed")
        while job.poll() is None and sum(isinstance(event, EpochDone) for event in files.events()) < 2:
            time.sleep(0.2)
        if job.poll() is not None:
            raise SystemExit(job.communicate()[1].decode())
        files.ask_to_stop(keep_best=False)
        job.wait()
        return _second_epoch(files)


def _second_epoch(files: JobFolder) -> float:
    stages = [event for event in files.events() if isinstance(event, Stage)]
    learning = [place for place, event in enumerate(stages) if event.stage == "training"][1]
    seconds = (stages[learning + 1].at - stages[learning].at).total_seconds()
    rows = [line.split(",") for line in files.figures_file.read_text().splitlines()]
    steps = sum(row[0] == "2" and row[1] != "" for row in rows)
    return steps * files.job().hyperparameters.batch_size / seconds


def gluon_python() -> Path:
    """The interpreter of the gluon engine; ends the benchmark with the cure where there is none."""
    python = Settings().gluon_task_python
    if not python.exists():
        raise SystemExit(f"MXNet and GluonCV are not installed ({python} is missing): run ./run/local.sh where Python 3.10 or 3.11 is.")
    return python
