"""Answers with model.onnx, or the int8 graph beside it: by the runtime and the precision that suit machine and model."""

from pathlib import Path

from contracts.model import Model
from runtimes import Graph, choose, look_around, open_graph


def load(folder: Path, model: Model, runtime: str, precision: str) -> Graph:
    return open_graph(folder, *choose(runtime, precision, model.comparisons, look_around()))
