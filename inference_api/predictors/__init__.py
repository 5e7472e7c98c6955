"""The protocol of a predictor: a trained model ready to answer. Each kind is a module with `load(folder, model, runtime, precision)`."""

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np

from contracts.model import Model

MODULES = {"onnx_graph": "inference_api.predictors.onnx_graph", "majority": "inference_api.predictors.majority"}


class Predictor(Protocol):
    """`describe`: what answers, such as “openvino 2026.4.1, bfloat16, 2 threads”."""

    describe: str

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Normalised float32 (n, 3, height, width) → scores before the softmax, float32 (n, classes, height, width).

        Callable from several threads at once.
        """
        ...


def load_predictor(folder: Path, model: Model, runtime: str = "auto", precision: str = "auto") -> Predictor:
    """The predictor of a model folder. Raises Unavailable where runtime or precision were asked for and cannot be had."""
    predictor: Predictor = importlib.import_module(MODULES[model.predictor]).load(folder, model, runtime, precision)
    return predictor
