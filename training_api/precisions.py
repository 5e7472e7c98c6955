"""Narrower numbers: an int8 graph beside model.onnx, and what each precision costs on the validation pictures, read as served.

Both may take a tenth of the training's time, and always a minute; what is not done by then is not used by default.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from annotations.dataset import Pair, read_mask, read_picture
from annotations.whole_picture import read_whole_picture
from contracts.errors import Unavailable
from contracts.model import Comparison
from runtimes import GRAPHS, Graph, choose, is_as_good, look_around, open_graph
from training_api.engines import Engine
from training_api.metrics import ConfusionMatrix

CALIBRATED = 16
"""Training pictures whose activations set the scales of the int8 graph."""
COMPARED, LEAST = 40, 4
"""Validation pictures that are compared at most, and that a judgement needs where the dataset has them."""
SHARE, ALWAYS = 0.1, 60.0
"""Of the training's seconds, and seconds."""
SOURCES = Path(__file__).resolve().parents[1]


def compare_precisions(
    folder: Path, engine: Engine, classes: int, training: list[Pair], validation: list[Pair], trained: float
) -> list[Comparison]:
    """Write the int8 graph into a model's folder and compare every precision that this machine computes in.

    `trained`: seconds of the training. An int8 graph whose masks are not as good is kept: it can be asked for.
    """
    allowed = max(ALWAYS, SHARE * trained) / 2
    note = _quantise(folder, engine, classes, _spread(training, CALIBRATED), allowed)
    runtime, _ = choose("auto", "float32", [], look_around())
    opened: dict[str, Graph] = {}
    missing: list[Comparison] = []
    for precision in GRAPHS:
        try:
            if precision == "int8" and note:
                raise Unavailable(note, "")
            choose(runtime, precision, [], look_around())
            opened[precision] = open_graph(folder, runtime, precision)
        except Unavailable as problem:
            missing.append(Comparison.model_validate({"precision": precision, "runtime": runtime, "note": problem.cause}))
    reference = open_graph(folder, "onnxruntime", "float32")
    rows = Comparing(engine, classes, runtime, reference, opened).run(_spread(validation, COMPARED), allowed) + missing
    for row in rows:
        print(_sentence(row))
    return sorted(rows, key=lambda row: list(GRAPHS).index(row.precision))


class Comparing:
    """The same pictures read in float32 by ONNX Runtime and by every opened graph."""

    def __init__(self, engine: Engine, classes: int, runtime: str, reference: Graph, graphs: dict[str, Graph]) -> None:
        self.engine, self.runtime, self.graphs = engine, runtime, graphs
        self.readers = {"": reference, **graphs}
        self.matrices = {name: ConfusionMatrix(classes) for name in self.readers}
        self.seconds: dict[str, list[float]] = {name: [] for name in self.readers}
        self.equal = dict.fromkeys(self.readers, 0)
        self.pixels = 0

    def run(self, pairs: list[Pair], allowed: float) -> list[Comparison]:
        """What was found on so many of the pairs as were read in the seconds allowed. Too few say nothing against float32."""
        until, read = time.monotonic() + allowed, 0
        for pair in pairs:
            if time.monotonic() > until:
                break
            self._add(pair)
            read += 1
        if read < min(LEAST, len(pairs)):
            note = f"In {allowed:.0f} s only {read} pictures could be compared."
            return [
                Comparison.model_validate({"precision": name, "runtime": self.runtime, "note": note})
                for name in self.graphs
                if name != "float32"
            ]
        return [self._row(name, read) for name in self.graphs]

    def _add(self, pair: Pair) -> None:
        picture, truth = read_picture(pair.picture), read_mask(pair.mask)
        expected = np.empty(0)
        for name, graph in self.readers.items():
            started = time.monotonic()
            mask = read_whole_picture(picture, self.engine.geometry, self.engine.normalisation, graph.predict, confidence=None).mask
            self.seconds[name].append(time.monotonic() - started)
            expected = expected if name else mask
            self.matrices[name].add(truth, mask)
            self.equal[name] += int((mask == expected).sum())
        self.pixels += truth.size

    def _row(self, name: str, read: int) -> Comparison:
        before, after = self.matrices[""].mean_iou(), self.matrices[name].mean_iou()
        return Comparison.model_validate(
            {
                "precision": name,
                "runtime": self.runtime,
                "pictures": read,
                "equal_pixels": self.equal[name] / self.pixels,
                "mean_iou": after,
                "drop": None if before is None or after is None else before - after,
                "seconds": statistics.median(self.seconds[name]),
            }
        )


def _quantise(folder: Path, engine: Engine, classes: int, pairs: list[Pair], allowed: float) -> str:
    """Write the int8 graph; why there is none, or an empty sentence."""
    with tempfile.TemporaryDirectory() as tiles:
        for number, pair in enumerate(pairs):
            keep = keep_tile(Path(tiles), number, classes)
            read_whole_picture(read_picture(pair.picture), engine.geometry, engine.normalisation, keep, confidence=None)
        command = [sys.executable, "-m", "training_api.quantise", str(folder / GRAPHS["float32"]), str(folder / GRAPHS["int8"]), tiles]
        try:
            subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, errors="replace", timeout=allowed, check=True)
        except subprocess.TimeoutExpired:
            note = f"An int8 graph was not made within {allowed:.0f} s."
        except subprocess.CalledProcessError as error:
            note = f"No int8 graph could be made: {(error.stderr.strip().splitlines() or ['the quantiser was ended'])[-1]}"
        else:
            return ""
    (folder / GRAPHS["int8"]).unlink(missing_ok=True)
    return note


def keep_tile(folder: Path, number: int, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A `predict` that sees nothing, and writes down one of the tiles that a network would be asked about picture `number`: of the
    first picture the first, of the second the second or the last that it has, and so on, so that not all are top left corners."""
    asked = count()

    def keep(batch: np.ndarray) -> np.ndarray:
        if next(asked) <= number:
            np.save(folder / f"{number:04d}.npy", batch)
        return np.zeros((len(batch), classes, *batch.shape[2:]), np.float32)

    return keep


def _spread(pairs: list[Pair], most: int) -> list[Pair]:
    """So many of them at most, evenly from first to last."""
    return [pairs[index * len(pairs) // min(most, len(pairs))] for index in range(min(most, len(pairs)))]


def _sentence(row: Comparison) -> str:
    if row.note:
        return f"{row.precision} was not compared: {row.note}"
    use = "" if is_as_good(row) else ": not used unless asked for"
    score = "n/a" if row.drop is None else f"{row.mean_iou:.4f}, {100 * row.drop:.2f} points lost"
    return f"{row.precision} by {row.runtime}: mIoU {score}, {row.equal_pixels:.3%} equal pixels, {row.seconds:.3f} s a picture{use}"
