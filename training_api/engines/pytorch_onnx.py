"""A network of the pytorch engine as model.onnx: any number of pictures of any size, scores before the softmax."""

import warnings
from pathlib import Path

import torch
from torch import nn

OPSET = 18


def write_onnx(network: nn.Module, file: Path) -> None:
    """Trace a network on the CPU, in evaluation mode and contiguous, into a graph whose input is `picture` and output `scores`.

    The tracing exporter: PyTorch's newer one gives graphs that are neither faster nor nearer, and takes twenty times as long. It
    calls itself old and warns of every shape that it meets; whether the graph is right at other sizes is seen when it is compared
    with the network, before it is published (training_api/publish.py).
    """
    example = torch.zeros(1, 3, 64, 96)  # a multiple of whatever any network asks for, and not square
    free = {0: "pictures", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", kind)
        torch.onnx.export(
            network,
            (example,),
            file,
            input_names=["picture"],
            output_names=["scores"],
            dynamic_axes={"picture": free, "scores": free},
            opset_version=OPSET,
            dynamo=False,
        )
