"""Small models that are served without having been trained: graphs whose right answers are known beforehand."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper

from annotations.colours import class_colours, voc_palette
from contracts.job import EpochScores
from contracts.model import Geometry, Model, Parity
from inference_api.app import create_app
from inference_api.settings import Settings

CLASSES = ["background", "dark", "bright"]
MIDDLE, REACH = 0.5, 0.25
"""Mean and deviation of the models here: grey becomes 0, black -2 and white 2."""


def serve_brightness(checkpoints: Path, name: str = "brightness", geometry: Geometry | None = None) -> Model:
    """A model that takes pixels below about 90 for dark and those above 165 for bright."""
    weights = np.array([[0, 0, 0], [-1, -1, -1], [1, 1, 1]], np.float32).reshape(3, 3, 1, 1) * 3
    return serve_graph(checkpoints, name, [(weights, np.array([5, 0, 0], np.float32))], geometry or Geometry(short_side=480, multiple_of=8))


def serve_graph(checkpoints: Path, name: str, layers: list[tuple[np.ndarray, np.ndarray]], geometry: Geometry) -> Model:
    """A model of convolutions (weights, bias) with a ReLU between them, published as a training would."""
    folder = checkpoints / name / "model"
    folder.mkdir(parents=True)
    onnx.save(_graph(layers), folder / "model.onnx")
    (folder / "configuration.json").write_text(json.dumps({"type": "semantic", "num_classes": 3, "classes_names": CLASSES}))
    (folder / "palette.txt").write_text("\n".join(str(value) for value in voc_palette().ravel()) + "\n")
    model = Model(
        name=name,
        job=name,
        created=datetime(2026, 1, 1, tzinfo=timezone.utc),
        engine="pytorch",
        network="test",
        backbone="none",
        predictor="onnx_graph",
        classes=CLASSES,
        palette=class_colours(3),
        geometry=geometry,
        mean=(MIDDLE,) * 3,
        deviation=(REACH,) * 3,
        scores=EpochScores(epoch=1, loss=0.0, learning_rate=0.0, seconds=0.0),
        parity=Parity(pictures=0, equal_pixels=1.0, largest_difference=0.0),
        dataset="none",
        weights="from_scratch",
        weights_licence="none",
        train_pictures=1,
        validation_pictures=1,
        seconds=1.0,
    )
    model.write(folder)
    return model


@contextmanager
def served(checkpoints: Path, **settings: object) -> Iterator[TestClient]:
    """The real app over a folder of models."""
    with TestClient(create_app(Settings(checkpoints=checkpoints, **settings))) as client:
        yield client


def _graph(layers: list[tuple[np.ndarray, np.ndarray]]) -> onnx.ModelProto:
    nodes, tensors, value = [], [], "picture"
    for index, (weights, bias) in enumerate(layers):
        tensors += [numpy_helper.from_array(weights, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        last = index == len(layers) - 1
        out = "scores" if last else f"c{index}"
        nodes.append(helper.make_node("Conv", [value, f"w{index}", f"b{index}"], [out], pads=[weights.shape[2] // 2] * 4))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"r{index}"]))
        value = f"r{index}"
    shape = ["n", 3, "height", "width"]
    inputs = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
