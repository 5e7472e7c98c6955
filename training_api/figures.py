"""What a job writes down while it runs: events.jsonl for programs, log.csv for spreadsheets, sentences for train.log."""

import csv
import io
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import SupportsFloat

from contracts.durable import file_aside
from contracts.errors import Invalid
from contracts.events import EpochDone, Event, Progress
from contracts.job import EpochScores
from contracts.job_folder import JobFolder
from training_api.engines import Step
from training_api.trackers import Tracker

COLUMNS = ("epoch", "step", "loss", "learning_rate", "mean_iou", "pixel_accuracy")
CALMER = "Start a new job with a smaller learning rate, with clip above 0, or with precision float32."
"""What keeps a training from running away."""


class Events:
    """The open end of events.jsonl. Of processes that learn together only the first one writes."""

    def __init__(self, folder: JobFolder, writes: bool = True) -> None:
        self._folder, self._writes = folder, writes

    def say(self, event: Event) -> None:
        """Raises Full."""
        if self._writes:
            self._folder.add_event(event)


class StepLog:
    """The steps of one epoch: every one goes to log.csv, and once a second the last ones become a Progress event.

    Losses are read from the device only then, so that the device never waits for the log.
    """

    def __init__(self, figures: "FiguresFile", events: Events, epoch: int, epochs: int, steps: int, calmer: str = CALMER) -> None:
        self.figures, self.events, self.calmer = figures, events, calmer
        self.epoch, self.epochs, self.steps = epoch, epochs, steps
        self.started = self._reported = time.monotonic()
        self._waiting: list[Step] = []
        self._crops = self._crops_reported = self._done = 0
        self._sum = 0.0

    def add(self, step: Step) -> None:
        """Raises Invalid, up to a second later, where the training has run away; nothing is then written of that second."""
        self._waiting.append(step)
        self._crops += step.crops
        if time.monotonic() - self._reported >= 1:
            self._report()

    def finish(self) -> tuple[float, float]:
        """Mean loss and last learning rate of the epoch."""
        self._report()
        return self._sum / max(1, self._done), self.figures.last_rate

    def _report(self) -> None:
        if not self._waiting:
            return
        losses = []
        for number, step in enumerate(self._waiting, start=self._done + 1):
            losses.append(sound_loss(step.loss, step.name or f"step {number} of epoch {self.epoch}", self.calmer))
        for number, (step, loss) in enumerate(zip(self._waiting, losses, strict=True), start=self._done + 1):
            self.figures.step(self.epoch, number, loss, step.learning_rate)
        now = time.monotonic()
        self._done += len(losses)
        self._sum += sum(losses)
        per_step = (now - self.started) / self._done
        left = (self.epochs - self.epoch) * self.steps + self.steps - self._done
        speed = (self._crops - self._crops_reported) / max(1e-6, now - self._reported)
        mean = sum(losses) / len(losses)
        self.events.say(
            Progress(
                epoch=self.epoch, step=self._done, steps=self.steps, loss=mean, pictures_per_second=speed, seconds_left=left * per_step
            )
        )
        self._reported, self._crops_reported = now, self._crops
        self._waiting = []


def sound_loss(loss: SupportsFloat, place: str, calmer: str = CALMER) -> float:
    """The loss as a number. Raises Invalid where it is none, or infinite: JSON has no word for it, and nothing more is learnt."""
    value = float(loss)
    if not math.isfinite(value):
        raise Invalid(f"The loss of {place} is no number any more: the training has run away.", calmer)
    return value


class FiguresFile:
    """log.csv: a row a step, and a row an epoch with its scores; cells that a row has no figure for stay empty."""

    def __init__(self, folder: JobFolder, classes: Sequence[str], writes: bool = True) -> None:
        self._classes = classes
        self._header = [*COLUMNS, *(f"iou/{name}" for name in classes), "seconds"]
        self._writes = writes
        self._path = folder.figures_file if writes else Path(os.devnull)
        self._open()
        self.last_rate = 0.0
        self.trackers: list[Tracker] = []
        """They are told what the file is told."""
        self.steps = 0
        """Of an epoch."""

    def _open(self) -> None:
        new = not self._path.exists() or self._path.stat().st_size == 0
        self._file = open(self._path, "a", newline="", buffering=1)  # noqa: SIM115  # open as long as the job runs
        self._rows = csv.writer(self._file)
        if new:
            self._rows.writerow(self._header)

    def go_on_after(self, epoch: int, scores: EpochScores | None) -> None:
        """Drop the rows of later epochs: they were broken off, and are learnt again. `scores`: of the last one that is kept."""
        if not self._writes:
            return
        self._file.close()
        told = scores is None
        with file_aside(self._path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            rows = csv.writer(text)
            for row in self._rows_until(epoch):
                rows.writerow(row)
                told = told or row[:2] == [str(epoch), ""]
            if scores is not None and not told:
                rows.writerow(self._epoch_row(scores))
            text.detach()
        self._open()

    def _rows_until(self, epoch: int) -> Iterator[list[str]]:
        """The header and the whole rows up to an epoch's, one at a time: a week has millions."""
        with open(self._path, encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(line.replace("\0", "") for line in file)  # zeros: a part that a power cut kept from the disk
            header = next(rows, []) or self._header
            yield header
            yield from (row for row in rows if len(row) == len(header) and row[0].isdecimal() and int(row[0]) <= epoch)

    def close(self, published: bool) -> None:
        """The training is over, with a model or without."""
        self._file.close()
        for tracker in self.trackers:
            tracker.close(published)

    def step(self, epoch: int, step: int, loss: float, rate: float) -> None:
        self.last_rate = rate
        for tracker in self.trackers:
            tracker.step((epoch - 1) * self.steps + step, loss, rate)
        self._rows.writerow([epoch, step, f"{loss:.6g}", f"{rate:.6g}", "", "", *("" for _ in self._classes), ""])

    def epoch(self, scores: EpochScores) -> None:
        for tracker in self.trackers:
            tracker.epoch(scores.epoch * self.steps, scores)
        self._rows.writerow(self._epoch_row(scores))

    def _epoch_row(self, scores: EpochScores) -> list[str]:
        row: list[object] = [scores.epoch, "", scores.loss, scores.learning_rate, scores.mean_iou, scores.pixel_accuracy]
        row += [scores.iou_per_class.get(name) for name in self._classes]
        return [*(_cell(value) for value in row), f"{scores.seconds:.1f}"]


def epoch_sentence(event: EpochDone, epochs: int) -> str:
    """A line of train.log."""
    scores = event.scores
    line = f"epoch {scores.epoch} of {epochs}: loss {scores.loss:.4f}"
    if scores.mean_iou is not None:
        per_class = ", ".join(f"{name} {_rounded(value)}" for name, value in scores.iou_per_class.items())
        line += f", mIoU {scores.mean_iou:.3f} ({per_class}){' – the best so far' if scores.best else ''}"
    return f"{line}, {scores.seconds:.0f} s"


def _rounded(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
