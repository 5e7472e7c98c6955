"""MODEL-<output_dir>/: what the plugin's users look into, to the file name and the column.

config.list          a copy
log.csv              a row an iteration and a row a validation
checkpoint.pth.tar   after the last validation: all that going on takes
model_best.pth.tar   after the best one
split.json           which pictures teach, which ones score
visualization_viz/   a tile of validation pictures for each validation
"""

import csv
import io
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
from torch import Tensor

from contracts.durable import force
from contracts.job_folder import write_aside
from contracts.waggle import CONFIG_FILE, WaggleRun
from training_api.metrics import ConfusionMatrix
from training_api.waggle.checkpoint import BEST, FILE
from training_api.waggle.engine import WaggleStep
from training_api.waggle.tiles import Tile

FIGURES = ("loss", "acc", "acc_cls", "mean_iu", "fwavacc")
COLUMNS = ["epoch", "iteration", *(f"{side}/{name}" for side in ("train", "valid") for name in FIGURES), "elapsed_time"]
NOTHING = [""] * len(FIGURES)


class Results:
    """The open output folder of a run that has taken `iteration` steps. Rows of later ones, of a run that broke off, go."""

    def __init__(self, run: WaggleRun, iteration: int, split_file: Path) -> None:
        self.folder = run.output
        self.tiles = self.folder / "visualization_viz"
        self.tiles.mkdir(parents=True, exist_ok=True)
        if run.config_file != self.folder / CONFIG_FILE:
            shutil.copyfile(run.config_file, self.folder / CONFIG_FILE)
        shutil.copyfile(split_file, self.folder / split_file.name)
        kept = _rows_before(self.folder / "log.csv", iteration)
        self._began = time.monotonic() - (float(kept[-1][-1]) if kept else 0.0)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *kept])
        write_aside(self.folder / "log.csv", text.getvalue())
        self._file = open(self.folder / "log.csv", "a", newline="", buffering=1)  # noqa: SIM115  # open as long as the run
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._waiting: list[tuple[int, WaggleStep, float]] = []
        self._written = time.monotonic()

    def step(self, turn: int, step: WaggleStep) -> None:
        """A row of an iteration in pass `turn` over the pictures. Written once a second, so that the device need not wait."""
        self._waiting.append((turn, step, self._elapsed()))
        if time.monotonic() - self._written >= 1:
            self.flush()

    def flush(self) -> None:
        self._written = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for turn, step, elapsed in waiting:
            figures = _figures(float(step.loss), matrix_of(step.counts))
            self._rows.writerow(_row(turn, step.iteration, [*figures, *NOTHING], elapsed))

    def validated(self, turn: int, iteration: int, loss: float | None, matrix: ConfusionMatrix, tile: Tile) -> None:
        """The row of a validation after `iteration` steps, and its tile. `loss` None: it is not known."""
        self.flush()
        self._rows.writerow(_row(turn, iteration, [*NOTHING, *_figures(loss, matrix)], self._elapsed()))
        tile.save(self.tiles / f"iter{iteration:012d}.jpg")

    def keep(self, state: Path, best: bool) -> None:
        """A checkpoint that the job keeps, here too: one file on the disk where both folders are on the same."""
        for name in (FILE, *([BEST] if best else [])):
            aside = self.folder / f".{name}.new"
            aside.unlink(missing_ok=True)
            try:
                os.link(state, aside)
            except OSError:  # another disk, or one that knows no links
                shutil.copyfile(state, aside)
            force(aside)
            aside.replace(self.folder / name)
        force(self.folder)

    def close(self) -> None:
        self._file.close()

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def matrix_of(counts: Tensor) -> ConfusionMatrix:
    classes = math.isqrt(len(counts))
    matrix = ConfusionMatrix(classes)
    matrix.counts = counts.cpu().numpy().reshape(classes, classes)
    return matrix


def scores_of(matrix: ConfusionMatrix) -> tuple[float | None, ...]:
    """Pixel accuracy, mean accuracy of a class, mean IoU, and IoU weighted by share (Long et al. 2015, arXiv 1411.4038), means
    over the classes that have true pixels; None where no pixel counted."""
    true = matrix.counts.sum(axis=1)
    if not true.sum():
        return None, None, None, None
    present = true > 0
    recall = np.diag(matrix.counts)[present] / true[present]
    iou = np.array([value for value in matrix.iou() if value is not None])
    return matrix.pixel_accuracy(), float(recall.mean()), matrix.mean_iou(), float((iou * true[present]).sum() / true.sum())


def _figures(loss: float | None, matrix: ConfusionMatrix) -> list[float | None]:
    return [loss, *scores_of(matrix)]


def _row(turn: int, iteration: int, figures: list[object], elapsed: float) -> list[object]:
    cells = ["" if value is None else f"{value:.8g}" if isinstance(value, float) else value for value in figures]
    return [turn, iteration, *cells, f"{elapsed:.3f}"]


def _rows_before(file: Path, iteration: int) -> list[list[str]]:
    """The rows of a former log up to a number of steps; none where it is of another kind."""
    if not iteration or not file.exists():
        return []
    with open(file, newline="") as text:
        rows = list(csv.reader(text))
    if rows[:1] != [COLUMNS]:
        return []
    whole = [row for row in rows[1:] if len(row) == len(COLUMNS)]
    learnt = COLUMNS.index("train/loss")  # a validation's row has none, and may have no loss of its own either
    return [row for row in whole if int(row[1]) < iteration or (int(row[1]) == iteration and not row[learnt])]
