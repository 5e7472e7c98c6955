"""OpenVINO on the processor: compiled for it, with its bfloat16 and int8 instructions where it has them."""

import sys
from collections import deque
from functools import lru_cache
from pathlib import Path

import numpy as np

# OpenVINO's tools for converting models, which its package imports and nothing here uses, would load what reports their use.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

from contracts.errors import Unavailable  # noqa: E402


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    return openvino.Core()


@lru_cache(maxsize=1)
def precisions() -> tuple[str, ...]:
    native = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("float32", "bfloat16", "int8") if native else ("float32", "int8")


class Compiled:
    """A graph compiled for this processor."""

    def __init__(self, graph: Path, precision: str, threads: int) -> None:
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            # One picture after the other, each on all cores: the quickest answer, and no slower for many.
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            # Other services live on the same processors: threads go where there is room.
            "ENABLE_CPU_PINNING": "NO",
            # Said in any case: left to itself OpenVINO takes bfloat16 wherever the processor has it. What int8 leaves is float32.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        }
        try:
            self.compiled = _core().compile_model(graph, "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise Unavailable(f"OpenVINO cannot read {graph.name}: {reason}", "Set RUNTIME=onnxruntime.") from error
        self.waiting: deque[openvino.InferRequest] = deque()
        version = openvino.__version__.partition("-")[0]
        self.describe = f"openvino {version}, {precision}, {threads} thread{'s' * (threads > 1)}"

    def predict(self, batch: np.ndarray) -> np.ndarray:
        # A request holds one caller's answer, so that each at the same time needs its own.
        try:
            request = self.waiting.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        scores: np.ndarray = request.infer({0: batch}, share_inputs=True)[0]
        self.waiting.append(request)
        return scores


def open_graph(graph: Path, precision: str, threads: int) -> Compiled:
    return Compiled(graph, precision, threads)
