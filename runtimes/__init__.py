"""A published graph, ready to answer: by which runtime, in which numbers. Compared at publish and served through the same code.

`float32` is what was trained. `bfloat16` has a shorter mantissa, where the processor computes with it; `int8` is a graph of its
own, quantised after the training. Both are taken by themselves only where a comparison says that the masks stay as good.
"""

import importlib
import importlib.util
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from contracts.errors import Broken, Unavailable
from contracts.model import Comparison

GRAPHS = {"float32": "model.onnx", "bfloat16": "model.onnx", "int8": "model.int8.onnx"}
"""Precision → file in the model's folder."""
MODULES = {"openvino": "runtimes.openvino", "onnxruntime": "runtimes.onnxruntime"}
LARGEST_DROP = 0.005
"""So much mIoU (0…1) may a lower precision cost and still be used without being asked for."""
LEAST_EQUAL = 0.999
"""Share of the pixels to which float32 must give the same class in every runtime."""


class Graph(Protocol):
    """An opened graph. `describe`: such as “openvino 2026.4.1, bfloat16, 2 threads”."""

    describe: str

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Normalised float32 (n, 3, height, width) → scores before the softmax, float32 (n, classes, height, width).

        Callable from several threads at once.
        """
        ...


@dataclass(frozen=True)
class Machine:
    """What can answer here: precisions by installed runtime, and whether ONNX Runtime can use a GPU."""

    precisions: dict[str, tuple[str, ...]]
    gpu: bool = False


def open_graph(folder: Path, runtime: str, precision: str, threads: int | None = None) -> Graph:
    """The graph of a model's folder. Raises Unavailable where the model has none in this precision or the runtime cannot read it."""
    file = folder / GRAPHS[precision]
    if file.is_file():
        graph: Graph = importlib.import_module(MODULES[runtime]).open_graph(file, precision, threads or count_cores())
        return graph
    if precision == "int8":
        raise Unavailable("This model has no int8 graph.", "Train it again, its job makes one where it can; or set PRECISION=auto.")
    raise Broken(f"The model in {folder} has no {file.name}.", "Its folder is damaged: train or import it again.")


def choose(runtime: str, precision: str, comparisons: list[Comparison], machine: Machine) -> tuple[str, str]:
    """The runtime and the precision to serve a model with; `auto` leaves one or both to this function.

    ONNX Runtime where it can use a GPU, else OpenVINO where it is installed and sees what ONNX Runtime sees, else ONNX Runtime; and
    of the precisions whose masks were compared, with that runtime, and found as good, the one that was quickest then: a light
    network may gain nothing by int8. Raises Unavailable, saying what there is.
    """
    if runtime == "auto":
        differs = any(row.runtime == "openvino" and row.precision == "float32" and not is_as_good(row) for row in comparisons)
        runtime = "openvino" if "openvino" in machine.precisions and not machine.gpu and not differs else "onnxruntime"
    if runtime not in machine.precisions:
        raise Unavailable(f"The runtime {runtime} is not installed here.", f"Set RUNTIME=auto, or install it: pip install {runtime}.")
    possible = machine.precisions[runtime]
    if precision == "auto":
        good = [row for row in comparisons if row.runtime == runtime and row.precision in possible and is_as_good(row)]
        quickest = min(good, key=lambda row: row.seconds or math.inf, default=None)
        return runtime, "float32" if quickest is None or machine.gpu else quickest.precision
    if precision not in possible:
        raise Unavailable(f"{runtime} cannot compute in {precision} on this machine.", f"Set PRECISION to auto, {' or '.join(possible)}.")
    return runtime, precision


def is_as_good(comparison: Comparison) -> bool:
    """Whether this precision may be used without being asked for."""
    if comparison.precision == "float32":
        return comparison.equal_pixels >= LEAST_EQUAL
    return comparison.drop is not None and comparison.drop <= LARGEST_DROP


@lru_cache(maxsize=1)
def look_around() -> Machine:
    """This machine."""
    modules = {name: importlib.import_module(module) for name, module in MODULES.items() if importlib.util.find_spec(name)}
    multiplies_bytes = has_vnni()
    precisions = {
        name: tuple(precision for precision in module.precisions() if precision != "int8" or multiplies_bytes)
        for name, module in modules.items()
    }
    return Machine(precisions, modules["onnxruntime"].has_gpu())


def has_vnni() -> bool:
    """Whether the processor sums products of bytes without overflow; others would give other masks than were compared."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return bool(words & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def count_cores() -> int:
    """How many processors this process may use: a container's share of their time may be less than what it sees."""
    seen = len(os.sched_getaffinity(0))
    limit = Path("/sys/fs/cgroup/cpu.max")
    share, _, period = limit.read_text().partition(" ") if limit.is_file() else ("max", "", "")
    return seen if share == "max" else max(1, min(seen, round(int(share) / int(period))))
