"""How soon and how well a network learns a dataset: ./run/bench.sh learning FOLDER [--seeds 0 1 2] [--engine pytorch] [--set key=value]

Time runs from the start of `maskwright train` until an epoch's whole-picture validation mIoU first reaches 0.85; the process's
own start, the check of the dataset and all scoring are in it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from machine import report

from contracts.events import EpochDone
from contracts.job_folder import JobFolder

GOAL = 0.85


def learn(folder: Path, seed: int, arguments: list[str]) -> dict[str, float | None]:
    """One training in a folder of its own: seconds to the goal, best mIoU, seconds in all."""
    with tempfile.TemporaryDirectory() as checkpoints:
        started = datetime.now(timezone.utc)
        clock = time.monotonic()
        command = [sys.executable, "-m", "cli", "train", str(folder), "--name", "learning", "--seed", str(seed), "--json", *arguments]
        subprocess.run(command, env={**os.environ, "CHECKPOINTS": checkpoints}, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - clock
        epochs = [event for event in JobFolder(Path(checkpoints) / "learning").events() if isinstance(event, EpochDone)]
    for event in epochs:
        scores = event.scores
        if scores.mean_iou is not None:
            after = (event.at - started).total_seconds()
            print(
                f"seed {seed} epoch {scores.epoch:>3} {after:6.0f} s  mIoU {scores.mean_iou:.3f}  {scores.iou_per_class}", file=sys.stderr
            )
    reached = [(event.at - started).total_seconds() for event in epochs if (event.scores.mean_iou or 0) >= GOAL]
    best = max((event.scores.mean_iou or 0) for event in epochs)
    return {"seconds_to_085": round(min(reached), 1) if reached else None, "best_miou": round(best, 4), "seconds_total": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a dataset folder: images/, labels/, objectclasses.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--engine", default="pytorch")
    parser.add_argument("--set", action="append", default=[], help="a setting, key=value; repeatable")
    asked = parser.parse_args()
    if not asked.folder.is_dir():
        parser.error(f"there is no folder {asked.folder}; give a dataset folder, such as datasets/dummy_dataset")
    arguments = ["--engine", asked.engine, *(word for pair in asked.set for word in ("--set", pair))]
    runs = [learn(asked.folder, seed, arguments) for seed in asked.seeds]
    rows = [(seed, *run.values()) for seed, run in zip(asked.seeds, runs, strict=True)]
    report(("seed", *runs[0]), rows, {key: _median([run[key] for run in runs]) for key in runs[0]})


def _median(values: list[float | None]) -> float | None:
    """None where a run never got there: a median of the others would flatter."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) == len(values) else None


if __name__ == "__main__":
    main()
