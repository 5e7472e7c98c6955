"""The networks of the gluon engine: how GluonCV builds each of the catalogue's rows, always with random weights."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import mxnet as mx
    from gluoncv.model_zoo import fastscnn, pspnet, resnetv1b, segbase
    from gluoncv.model_zoo.danet import DANet
    from gluoncv.model_zoo.deeplabv3 import DeepLabV3
    from gluoncv.model_zoo.deeplabv3 import _AsppPooling as GlobalPooling
    from gluoncv.model_zoo.deeplabv3_plus import DeepLabV3Plus
    from gluoncv.model_zoo.deeplabv3_plus import _AsppPooling as GlobalPoolingPlus
    from gluoncv.model_zoo.fastscnn import FastSCNN
    from gluoncv.model_zoo.fcn import FCN
    from gluoncv.model_zoo.icnet import ICNet
    from gluoncv.model_zoo.pspnet import PSPNet

LARGEST_TILE = 1024
"""Longest side of a tile in pixels: beyond it a picture is read in parts, so that memory stays bounded."""


@dataclass(frozen=True)
class Recipe:
    """How GluonCV builds a network: make(classes, height=, width=, aux=).

    `others`: what the losses of its outputs after the first count, where it has several. `largest_tile`: in pixels.
    """

    make: Callable[..., Any]
    others: tuple[float, ...] = ()
    largest_tile: int = LARGEST_TILE


def _backbone(name: str, **options: Any) -> Any:
    """GluonCV's networks know the resnets whose first layer is three small convolutions (v1s), and those with a single large one
    (v1b) only where people added them, as the GluonCV training GUI did."""
    if name in V1B:
        return V1B[name](**options)
    return _usual_backbone(name, **options)


V1B = {"resnet50v1b": resnetv1b.resnet50_v1b, "resnet101v1b": resnetv1b.resnet101_v1b}
_usual_backbone = segbase.get_backbone
segbase.get_backbone = _backbone


def _make(kind: Callable[..., Any], classes: int, **options: Any) -> Any:
    """A network of random numbers; GluonCV's would fetch its backbone's otherwise, and PSPNet prints its size."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return kind(classes, pretrained_base=False, **options)


def _resnets(kind: Callable[..., Any], *names: str, **facts: Any) -> dict[str, Recipe]:
    return {name: Recipe(partial(_make, kind, backbone=name), **facts) for name in names}


RESNETS = ("resnet50", "resnet101", "resnet50v1b", "resnet101v1b")
_FAMILIES: dict[str, dict[str, Recipe]] = {
    "fcn": _resnets(FCN, *RESNETS),
    "psp": _resnets(PSPNet, *RESNETS),
    "deeplab": _resnets(DeepLabV3, *RESNETS),
    "deeplabplus": {"xception": Recipe(partial(_make, DeepLabV3Plus))},
    "icnet": _resnets(ICNet, "resnet50", others=(0.4, 0.4, 1.0)),  # as GluonCV's ICNetLoss has them
    "danet": _resnets(DANet, "resnet50", "resnet101", others=(1.0, 1.0), largest_tile=512),  # Fu et al. 2019, arXiv 1809.02983
    "fastscnn": {"fastscnn": Recipe(partial(_make, FastSCNN))},
}
RECIPES = {(network, backbone): recipe for network, on in _FAMILIES.items() for backbone, recipe in on.items()}
"""By network and backbone. What they start from is taken in afterwards (gluon_weights.py)."""


def build_network(recipe: Recipe, classes: int, size: tuple[int, int], places: list[Any], crops: int = 0) -> Any:
    """A network for pictures of one size (height, width) on one or more devices, with random weights (He et al. 2015, arXiv
    1502.01852). `crops`: how many each of them learns from at a time; 0: it does not learn."""
    network = recipe.make(classes, height=size[0], width=size[1], aux=False)
    network.initialize(mx.init.MSRAPrelu(factor_type="in", slope=0), ctx=places, force_reinit=True)
    # GluonCV gives its heads ten times the rate. Here all learn at the rate that was asked for, whatever they start from.
    network.collect_params().setattr("lr_mult", 1.0)
    if crops == 1:
        _calm_global_norms(network)
    network.hybridize(static_alloc=True)
    with _resized_by_products() if crops else contextlib.nullcontext():
        # Some weights get their shape, and so their values, from the first picture; the graph is kept from then on.
        for place in places:
            network(mx.nd.zeros((1, 3, *size), ctx=place))
    return network


@contextlib.contextmanager
def _resized_by_products() -> Iterator[None]:
    """Graphs that are made meanwhile enlarge by products. With several threads MXNet's own operator gives another gradient each
    time, as if they wrote over one another: no two trainings would be alike."""
    original = mx.sym.contrib.BilinearResize2D
    mx.sym.contrib.BilinearResize2D = resize
    try:
        yield
    finally:
        mx.sym.contrib.BilinearResize2D = original


def resize(pixels: Any, height: int, width: int, F: Any = mx.sym) -> Any:
    """Bilinear, corners on corners, as BilinearResize2D does it: (n, c, rows, columns) → (n, c, height, width)."""
    narrow = F.dot(pixels, _shares(F, pixels, 3, width))
    return F.swapaxes(F.dot(F.swapaxes(narrow, 2, 3), _shares(F, pixels, 2, height)), 2, 3)


def _shares(F: Any, pixels: Any, axis: int, length: int) -> Any:
    """(side, length): how much of each pixel along an axis goes into each of `length` new ones."""
    old = F.reshape(F.contrib.arange_like(pixels, axis=axis), (-1, 1))
    new = F.reshape(F.arange(length), (1, -1)) / max(length - 1, 1)
    new = F.broadcast_mul(new, F.max(old, axis=0, keepdims=True))
    return F.BlockGrad(F.relu(1 - F.abs(F.broadcast_sub(old, new))))


def _calm_global_norms(network: Any) -> None:
    """Let batch norm use its running statistics where the whole picture was pooled to one pixel. For batches of one crop: there is
    nothing to average over, the variance is zero, and the running variance would go there too and ruin all later answers."""
    for block in _global_poolings(network):
        norm = next(part for part in reversed(list(block._children.values())) if "gamma" in part._reg_params)
        norm._kwargs["use_global_stats"] = True


def _global_poolings(block: Any) -> Iterator[Any]:
    """The layers behind a pooling to one pixel, each with a batch norm."""
    if isinstance(block, (pspnet._PyramidPooling, fastscnn._FastPyramidPooling)):
        yield block.conv1
    elif isinstance(block, (GlobalPooling, GlobalPoolingPlus)):
        yield block.gap
    for child in block._children.values():
        yield from _global_poolings(child)
