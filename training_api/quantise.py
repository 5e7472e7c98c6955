"""An int8 graph from a float32 one: python quantise.py SOURCE TARGET FOLDER, which holds the tiles to calibrate with as *.npy.

A program of its own, so that a graph which ONNX Runtime's quantiser cannot take, or takes too long over, costs no training its
model. Post-training static quantisation, a scale for each channel of the weights (Jacob et al. 2018, arXiv 1712.05877).
"""

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

QUANTISED = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Concat", "Relu", "Clip", "MaxPool", "GlobalAveragePool"]
"""What multiplies, and what lies between: numbers stay narrow from one to the next. Resizing to the answer's size is not among them."""


class Tiles(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    def __init__(self, folder: Path) -> None:
        self.tiles: Iterator[Path] = iter(sorted(folder.glob("*.npy")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        file = next(self.tiles, None)
        return None if file is None else {"picture": np.load(file)}


def quantise(source: Path, target: Path, tiles: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        fused = str(Path(scratch) / "fused.onnx")
        quant_pre_process(str(source), fused, skip_symbolic_shape=True)
        quantize_static(
            fused,
            str(target),
            Tiles(tiles),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            # All eight bits of the weights: seven cost a point of mIoU. Processors without VNNI, which then overflow, get no int8.
            reduce_range=False,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    quantise(*map(Path, sys.argv[1:4]))
