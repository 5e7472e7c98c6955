"""From a GluonCV network to ONNX, through MXNet's own exporter with three converters of our own."""

import tempfile
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
from mxnet.onnx import export_model
from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph

OPSET = 13
"""The newest operator set that MXNet's converters write. The exporter stamps the installed onnx's newest on the file instead."""
PICTURE, SCORES = "picture", "scores"


def write_onnx(network: Any, shape: tuple[int, int, int, int], path: Path) -> None:
    """Write a network's first output as an ONNX graph of a fixed input size (1, 3, height, width), float32."""
    symbol = network(mx.sym.var(PICTURE))[0]
    parameters = {name: value.data().as_in_context(mx.cpu()) for name, value in network.collect_params().items()}
    _convert_pooling(_shapes(symbol, shape))
    _convert_weights()
    _convert_largest()
    with tempfile.TemporaryDirectory() as folder:
        raw = str(Path(folder) / "raw.onnx")
        export_model(symbol, parameters, [shape], np.float32, raw)
        model = onnx.load(raw)
    _tidy(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _shapes(symbol: Any, shape: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of every node's first output, by the node's name."""
    inside = symbol.get_internals()
    _, shapes, _ = inside.infer_shape(**{PICTURE: shape})
    return {name.removesuffix("_output"): found for name, found in zip(inside.list_outputs(), shapes, strict=True)}


def _convert_pooling(shapes: dict[str, tuple[int, ...]]) -> None:
    """Teach the exporter adaptive average pooling to any size, which ONNX has no operator for: it is a product with two
    constant matrices, rows × map × columns."""

    def convert(node: dict[str, Any], **context: Any) -> list[Any]:
        name, source = node["name"], _source(node, context)
        height, width = shapes[source][2:]
        wanted = [int(part) for part in node["attrs"].get("output_size", "1").strip("()[]").split(",") if part.strip()]
        rows, columns = averaging(height, wanted[0]), averaging(width, wanted[-1]).T
        for matrix, side in ((rows, "rows"), (columns, "columns")):
            context["initializer"].append(onnx.numpy_helper.from_array(np.ascontiguousarray(matrix), f"{name}_{side}"))
        return [
            onnx.helper.make_node("MatMul", [source, f"{name}_columns"], [f"{name}_narrow"], f"{name}_narrow"),
            onnx.helper.make_node("MatMul", [f"{name}_rows", f"{name}_narrow"], [name], name),
        ]

    MXNetGraph.register("_contrib_AdaptiveAvgPooling2D", OPSET)(convert)


def _convert_largest() -> None:
    """Teach the exporter the largest number along the last axis, kept as one: its own way is checked against rules that came later,
    which refuse it."""

    def convert(node: dict[str, Any], **context: Any) -> list[Any]:
        name, attributes = node["name"], node["attrs"]
        if attributes.get("axis") not in ("-1", "(-1,)") or attributes.get("keepdims") not in ("True", "1"):
            raise NotImplementedError(f"{name}: the largest along {attributes} has no converter")
        context["initializer"].append(onnx.numpy_helper.from_array(np.array([1], np.int64), f"{name}_one"))
        inputs, outputs = [_source(node, context), f"{name}_one"], [name, f"{name}_places"]
        return [onnx.helper.make_node("TopK", inputs, outputs, name, axis=-1)]

    MXNetGraph.register("max", OPSET)(convert)


def _source(node: dict[str, Any], context: dict[str, Any]) -> str:
    """The name of a node's first input in the graph that is being written."""
    place, output, *_ = node["inputs"][0]
    return str(context["outputs_lookup"][place][output].name)


def _convert_weights() -> None:
    """Teach the exporter to write weights as bytes. Its own way makes a Python number of each: minutes for a ResNet-50."""
    original = MXNetGraph.registry_[12]["null"]

    def convert(node: dict[str, Any], **context: Any) -> Any:
        if context["is_input"]:
            return original(node, **context)
        name = node["name"]
        values = np.ascontiguousarray(context["weights"][name])
        tensor = onnx.numpy_helper.from_array(values, name)
        context["initializer"].append(tensor)
        return [onnx.helper.make_tensor_value_info(name, tensor.data_type, values.shape)], (values.dtype,)

    MXNetGraph.register("null", OPSET)(convert)


def averaging(length: int, bins: int) -> np.ndarray:
    """The matrix float32 (bins, length) whose product averages a line of `length` values into `bins`, as MXNet cuts them."""
    matrix = np.zeros((bins, length), np.float32)
    for row in range(bins):
        start, end = row * length // bins, -(-(row + 1) * length // bins)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


def _tidy(model: Any) -> None:
    """Name the output, say the operator set that was written, drop constants that no node reads, and take the weights out of the
    graph's inputs: ONNX Runtime folds them into the operators only where a caller cannot replace them."""
    graph = model.graph
    del model.opset_import[1:]
    model.opset_import[0].version = OPSET
    constants = {weight.name for weight in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    former = graph.output[0].name
    graph.output[0].name = SCORES
    for node in graph.node:
        node.output[:] = [SCORES if name == former else name for name in node.output]
