"""The gluon engine: GluonCV's networks on MXNet, served as the running average of their weights.

The network exists twice: one learns at the size of a crop, its twin of the size of a tile holds the averaged weights and is
what is scored and exported. (GluonCV writes the output size into the graph, so that one network cannot serve both.)
"""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotations.dataset import Pair
from annotations.whole_picture import IMAGENET, working_size
from contracts.errors import Unavailable
from contracts.hyperparameters import Hyperparameters
from contracts.model import Geometry
from training_api.data import Batch
from training_api.engines import Plan, Step
from training_api.schedule import average_decay, learning_rate, momentum

# MXNet 1.9.1 reads np.bool, which NumPy took away in 1.24; its own message for that would be an AttributeError.
if tuple(int(part) for part in np.__version__.split(".")[:2]) >= (1, 24):
    raise ImportError(f"MXNet 1.9.1 needs NumPy below 1.24, and this is {np.__version__}")

with warnings.catch_warnings():
    # Up to 1.23 reading np.bool and friends only warns, as does distutils: it is MXNet's and GluonCV's to mend, and frozen.
    warnings.simplefilter("ignore", DeprecationWarning)
    import mxnet as mx
    from gluoncv.model_zoo.fastscnn import FastSCNN
    from gluoncv.model_zoo.fcn import FCN
    from mxnet import autograd, gluon

    from training_api.engines.gluon_onnx import write_onnx
    from training_api.engines.gluon_weights import head_names, take_weights

WEIGHTS, AVERAGED, OPTIMIZER, PROGRESS = "weights.params", "averaged.params", "optimizer.states", "engine.json"
AUXILIARY = 0.4
"""Weight of an auxiliary head's loss (Zhao et al. 2017, arXiv 1612.01105)."""
LARGEST_TILE = 1024
"""Longest side of a tile in pixels: beyond it a picture is read in parts, so that memory stays bounded."""


@dataclass(frozen=True)
class Recipe:
    """How GluonCV builds a network: make(classes, height=, width=, aux=), and whether it learns with its auxiliary head."""

    make: Callable[..., Any]
    auxiliary: bool = False


def _fcn_resnet50(classes: int, **options: Any) -> Any:
    return FCN(classes, backbone="resnet50", pretrained_base=False, **options)


RECIPES = {
    ("fastscnn", "fastscnn"): Recipe(FastSCNN),
    ("fcn", "resnet50"): Recipe(_fcn_resnet50),
}
"""By network and backbone. All are made with random numbers: what they start from is taken in afterwards (gluon_weights.py)."""


class Loss:
    """A loss that may still be on its way from the device: float() waits for it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value.asscalar())


class GluonEngine:
    """A GluonCV network being trained on the CPU or on one GPU."""

    normalisation = IMAGENET

    def __init__(self, plan: Plan) -> None:
        self.settings, self.crops, self.seed = plan.settings, plan.crops, plan.seed
        self.place = _place(plan.gpus)
        self.device = _describe(self.place)
        self.remarks: list[str] = []
        self.geometry = Geometry(short_side=plan.settings.short_side, tile=_tile(plan), multiple_of=plan.network.multiple_of)
        self.network, self.averaged = self._build(plan)
        self.loss = SegmentationLoss(_class_weights(plan.class_shares, plan.settings.balance), plan.settings.dice)
        self.loss.initialize(ctx=self.place)
        self.loss.hybridize(static_alloc=True)
        self.learning = [value for value in self.network.collect_params().values() if value.grad_req != "null"]
        self.trainer = _trainer(self.network, plan.settings)
        self.step = 0
        self.steps = plan.crops.steps * plan.settings.epochs

    def _build(self, plan: Plan) -> tuple[Any, Any]:
        """The learning network and its twin, with the same weights."""
        recipe = RECIPES[plan.network.network, plan.network.backbone]
        mx.random.seed(plan.seed)
        crop = (plan.settings.crop, plan.settings.crop)
        network = _initialised(recipe, plan.classes, crop, recipe.auxiliary, self.place)
        take_weights(network, plan.start, head_names(network, recipe.make(plan.classes + 1, height=32, width=32, aux=recipe.auxiliary)))
        averaged = _initialised(recipe, plan.classes, self.geometry.tile or crop, False, self.place)
        present = network._collect_params_with_prefix()
        self._pairs = [(value.data(), present[name].data()) for name, value in averaged._collect_params_with_prefix().items()]
        for mean, value in self._pairs:
            mean[:] = value
        return network, averaged

    def train_epoch(self, epoch: int) -> Iterator[Step]:
        """Learn from an epoch's crops, one step at a time; the steps' losses may still be on their way."""
        waiting = None
        for batch in self.crops.epoch(epoch):
            rate = learning_rate(self.settings, self.step, self.steps)
            loss = self._learn(batch, rate)
            self._average()
            self.step += 1
            if waiting is not None:
                # MXNet queues work without limit: at most one step behind, or batches pile up in memory.
                waiting.wait_to_read()
            waiting = loss
            yield Step(loss=Loss(loss), crops=len(batch.masks), learning_rate=rate)

    def _learn(self, batch: Batch, rate: float) -> Any:
        # MXNet's random state cannot be read, so it is set anew for every step: a resumed training drops what an unbroken one drops.
        mx.random.seed(int(np.random.default_rng([self.seed, self.step]).integers(2**31)))
        pixels = mx.nd.array(batch.pixels, ctx=self.place)
        masks = mx.nd.array(batch.masks, ctx=self.place, dtype="float32")
        with autograd.record():
            outputs = self.network(pixels)
            loss = self.loss(outputs[0], masks)
            for output in outputs[1:]:
                loss = loss + AUXILIARY * self.loss(output, masks)
        loss.backward()
        if self.settings.clip:
            gluon.utils.clip_global_norm([value.grad() for value in self.learning], self.settings.clip, check_isfinite=False)
        self._update(rate)
        return loss.detach()

    def _update(self, rate: float) -> None:
        """One step of the optimiser. MXNet's Adam mixes the decay into the gradient; AdamW shrinks the weights beside it
        (Loshchilov & Hutter 2019, arXiv 1711.05101)."""
        self.trainer.set_learning_rate(rate)
        kept = momentum(self.settings, self.step, self.steps)
        setattr(self.trainer.optimizer, "beta1" if self.settings.optimizer == "adamw" else "momentum", kept)
        if self.settings.optimizer == "adamw" and self.settings.weight_decay:
            for value in self.learning:
                if _decays(value):
                    weight = value.data()
                    weight *= 1 - rate * self.settings.weight_decay
        self.trainer.step(1)

    def _average(self) -> None:
        """Move the twin's weights, and the statistics of batch norm with them, towards the present ones."""
        decay = average_decay(self.settings, self.step)
        for mean, value in self._pairs:
            mean *= decay
            mean += (1 - decay) * value

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Scores of normalised pixels. Raises ValueError where height and width are not the tile's."""
        if batch.shape[2:] != self.geometry.tile:
            raise ValueError(f"this network reads tiles of {self.geometry.tile}, not {batch.shape[2:]}")
        scores: np.ndarray = self.averaged(mx.nd.array(batch, ctx=self.place))[0].asnumpy()
        return scores

    def save(self, folder: Path) -> None:
        self.network.save_parameters(str(folder / WEIGHTS))
        self.averaged.save_parameters(str(folder / AVERAGED))
        self.trainer.save_states(str(folder / OPTIMIZER))
        (folder / PROGRESS).write_text(json.dumps({"step": self.step, "seed": self.seed}))

    def load(self, folder: Path) -> None:
        self.network.load_parameters(str(folder / WEIGHTS), ctx=self.place)
        self.averaged.load_parameters(str(folder / AVERAGED), ctx=self.place)
        self.trainer.load_states(str(folder / OPTIMIZER))
        progress = json.loads((folder / PROGRESS).read_bytes())
        self.step, self.seed = progress["step"], progress["seed"]

    def export(self, folder: Path) -> None:
        """model.onnx for one tile, and model_best.params, which GluonCV's load_parameters reads (aux=False)."""
        height, width = self.geometry.tile or (0, 0)
        self.averaged.save_parameters(str(folder / "model_best.params"))
        write_onnx(self.averaged, (1, 3, height, width), folder / "model.onnx")


class SegmentationLoss(gluon.HybridBlock):  # type: ignore[misc]  # MXNet has no types
    """Cross-entropy over the known pixels, plus `dice` times one minus the soft Dice of each class present in the batch, mean
    over those (Milletari et al. 2016, arXiv 1606.04797).

    scores (n, classes, h, w) before the softmax, masks float32 (n, h, w) of class ids → (1,). A mask value that is no class,
    such as IGNORE, has no part in any sum. `weights`: of each class in the cross-entropy.
    """

    def __init__(self, weights: np.ndarray, dice: float) -> None:
        super().__init__()
        self.dice = dice
        with self.name_scope():
            self.ids = self.params.get_constant("ids", np.arange(len(weights), dtype=np.float32).reshape(1, -1, 1, 1))
            self.weights = self.params.get_constant("weights", weights.astype(np.float32).reshape(1, -1, 1, 1))

    def hybrid_forward(self, F: Any, scores: Any, masks: Any, ids: Any, weights: Any) -> Any:
        truth = F.broadcast_equal(F.expand_dims(masks, axis=1), ids)
        weighted = F.broadcast_mul(truth, weights)
        logarithms = F.log_softmax(scores, axis=1)
        entropy = -F.sum(weighted * logarithms) / F.maximum(F.sum(weighted), 1e-6)
        return entropy + self.dice * self._dice(F, F.exp(logarithms), truth) if self.dice else entropy

    @staticmethod
    def _dice(F: Any, probabilities: Any, truth: Any) -> Any:
        probabilities = F.broadcast_mul(probabilities, F.sum(truth, axis=1, keepdims=True))
        overlap = F.sum(probabilities * truth, axis=(0, 2, 3))
        pixels = F.sum(truth, axis=(0, 2, 3))
        dice = (2 * overlap + 1) / (F.sum(probabilities, axis=(0, 2, 3)) + pixels + 1)
        present = pixels > 0
        return F.sum(present * (1 - dice)) / F.maximum(F.sum(present), 1)


def _initialised(recipe: Recipe, classes: int, size: tuple[int, int], auxiliary: bool, place: Any) -> Any:
    """A network for pictures of one size (height, width), with random weights (He et al. 2015, arXiv 1502.01852)."""
    network = recipe.make(classes, height=size[0], width=size[1], aux=auxiliary)
    network.initialize(mx.init.MSRAPrelu(factor_type="in", slope=0), ctx=place, force_reinit=True)
    # GluonCV gives its heads ten times the rate. Here all learn at the rate that was asked for, whatever they start from.
    network.collect_params().setattr("lr_mult", 1.0)
    # Some weights get their shape, and so their values, from the first picture.
    network(mx.nd.zeros((1, 3, *size), ctx=place))
    network.hybridize(static_alloc=True)
    return network


def _decays(parameter: Any) -> bool:
    """Weight decay is for what multiplies: norms and biases are left out."""
    return len(parameter.shape) > 1


def _trainer(network: Any, settings: Hyperparameters) -> Any:
    parameters = network.collect_params()
    if settings.optimizer == "adamw":
        return gluon.Trainer(parameters, mx.optimizer.Adam(beta1=settings.momentum), kvstore=None)
    for value in parameters.values():
        value.wd_mult = float(_decays(value))
    kind = mx.optimizer.NAG if settings.momentum else mx.optimizer.SGD
    return gluon.Trainer(parameters, kind(momentum=settings.momentum, wd=settings.weight_decay), kvstore=None)


def _class_weights(shares: list[float], balance: float) -> np.ndarray:
    """Weights of mean 1 by the inverse of each class's share, to the power of `balance` (0: all alike)."""
    weights = np.maximum(shares, 1e-4) ** -balance
    return np.asarray(weights / weights.mean(), np.float32)


def _tile(plan: Plan) -> tuple[int, int]:
    """Height and width that hold a whole training picture of the commonest size, at working size, in multiples that the
    network halves evenly; pictures of other sizes are padded to it or read in several."""
    sizes = [_size(pair) for pair in plan.crops.pairs]
    commonest = max(sorted(set(sizes)), key=sizes.count)
    multiple = plan.network.multiple_of
    rows, columns = (min(LARGEST_TILE, -(-side // multiple) * multiple) for side in working_size(commonest, plan.settings.short_side))
    return rows, columns


def _size(pair: Pair) -> tuple[int, int]:
    """Height and width of a mask, from the first bytes of its file."""
    with Image.open(pair.mask) as mask:
        return mask.height, mask.width


def _place(gpus: list[int]) -> Any:
    """Where to compute. The launcher shows the job only its own GPUs, so that the first one seen is the one asked for."""
    if not gpus:
        return mx.cpu()
    if not mx.context.num_gpus():
        raise Unavailable("MXNet sees no GPU.", "Choose the CPU, or build the gluon engine's image with a GPU build of MXNet.")
    return mx.gpu(0)


def _describe(place: Any) -> str:
    return f"GPU, MXNet {mx.__version__}" if place.device_type == "gpu" else f"CPU, MXNet {mx.__version__}"


def create(plan: Plan) -> GluonEngine:
    return GluonEngine(plan)
