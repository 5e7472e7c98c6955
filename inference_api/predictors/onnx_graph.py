"""Answers with model.onnx, by ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime

from contracts.errors import Broken
from contracts.model import Model


class OnnxGraph:
    def __init__(self, graph: Path) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def predict(self, batch: np.ndarray) -> np.ndarray:
        scores: np.ndarray = self.session.run(["scores"], {"picture": batch})[0]
        return scores


def load(folder: Path, model: Model) -> OnnxGraph:
    graph = folder / "model.onnx"
    if not graph.is_file():
        raise Broken(f"The model “{model.name}” has no model.onnx.", "Its folder is damaged: train or import it again.")
    return OnnxGraph(graph)
