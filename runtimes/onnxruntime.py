"""ONNX Runtime: on a GPU where it can, on every processor otherwise."""

from pathlib import Path

import numpy as np
import onnxruntime


def precisions() -> tuple[str, ...]:
    return ("float32", "int8")


def has_gpu() -> bool:
    """Whether this build computes with CUDA and there is a GPU to do it on."""
    devices = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers() and bool(devices)


class Session:
    """A graph in ONNX Runtime, whose sessions may be run from several threads at once."""

    def __init__(self, graph: Path, precision: str, threads: int, gpu: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if gpu else ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(graph, options, providers=providers)
        used = self.session.get_providers()[0]
        place = f"{threads} thread{'s' * (threads > 1)}" if used == "CPUExecutionProvider" else "GPU"
        self.describe = f"onnxruntime {onnxruntime.__version__}, {precision}, {place}"

    def predict(self, batch: np.ndarray) -> np.ndarray:
        scores: np.ndarray = self.session.run(["scores"], {"picture": batch})[0]
        return scores


def open_graph(graph: Path, precision: str, threads: int) -> Session:
    return Session(graph, precision, threads, has_gpu())
