"""The gluon engine: GluonCV's networks on MXNet, served as the running average of their weights.

The network exists twice: one learns at the size of a crop, its twin of the size of a tile holds the averaged weights and is
what is scored and exported. (GluonCV writes the output size into the graph, so that one network cannot serve both.)
On several GPUs the one that learns has its weights on each; the GPUs share out every batch and add up their gradients.
"""

import json
import os
import warnings
from collections.abc import Iterator
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
# MXNet reads these once, as it is imported. By itself it takes half of the processors, and its threads spin while they wait.
os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

with warnings.catch_warnings():
    # Up to 1.23 reading np.bool and friends only warns, as does distutils: it is MXNet's and GluonCV's to mend, and frozen.
    warnings.simplefilter("ignore", DeprecationWarning)
    import mxnet as mx
    from mxnet import autograd, gluon

    from training_api.engines.gluon_losses import SegmentationLoss
    from training_api.engines.gluon_networks import RECIPES, Recipe, build_network
    from training_api.engines.gluon_onnx import write_onnx
    from training_api.engines.gluon_weights import head_names, take_weights

WEIGHTS, AVERAGED, OPTIMIZER, PROGRESS = "weights.params", "averaged.params", "optimizer.states", "engine.json"


class Loss:
    """A loss that may still be on its way from the device: float() waits for it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value.asscalar())


class GluonEngine:
    """A GluonCV network being trained on the CPU, or on one or more GPUs. `places`: MXNet's contexts, the first of which leads."""

    normalisation = IMAGENET

    def __init__(self, plan: Plan, places: list[Any]) -> None:
        self.settings, self.crops, self.seed = plan.settings, plan.crops, plan.seed
        self.places = places[: plan.settings.batch_size]
        self.device = _describe(self.places)
        self.remarks = list(_remarks(plan.settings.batch_size, len(places)))
        recipe = RECIPES[plan.network.network, plan.network.backbone]
        tile = _tile(plan, recipe.largest_tile)
        self.geometry = Geometry(short_side=plan.settings.short_side, tile=tile, multiple_of=plan.network.multiple_of)
        self.network, self.averaged = self._build(plan, recipe, tile)
        weights = _class_weights(plan.class_shares, plan.settings.balance)
        self.losses = [(share, SegmentationLoss(weights, plan.settings.dice, self.places)) for share in (1.0, *recipe.others)]
        parameters = self.network.collect_params().values()
        self.learning = [value for value in parameters if value.grad_req != "null"]
        self.statistics = [value for value in parameters if value.grad_req == "null"]
        self.trainer = _trainer(self.network, plan.settings, self.places)
        self.step = 0
        self.steps = plan.crops.steps * plan.settings.epochs

    def _build(self, plan: Plan, recipe: Recipe, tile: tuple[int, int]) -> tuple[Any, Any]:
        """The learning network and its twin, with the same weights."""
        mx.random.seed(plan.seed)
        side = plan.settings.crop
        network = build_network(recipe, plan.classes, (side, side), self.places, crops=plan.settings.batch_size // len(self.places))
        take_weights(network, plan.start, head_names(network, recipe.make(plan.classes + 1, height=side, width=side, aux=False)))
        averaged = build_network(recipe, plan.classes, tile, self.places[:1])
        present = network._collect_params_with_prefix()
        lead = self.places[0]
        self._pairs = [(value.data(), present[name].data(lead)) for name, value in averaged._collect_params_with_prefix().items()]
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
        self._align()

    def _align(self) -> None:
        """Give every device the first one's weights: the same sums may differ in the last digit from one to the next, and a
        resumed training, which begins with the first one's, must go on as an unbroken one does."""
        if len(self.places) > 1:
            for value in self.learning:
                value.set_data(value.data(self.places[0]))

    def _learn(self, batch: Batch, rate: float) -> Any:
        # MXNet's random state cannot be read, so it is set anew for every step: a resumed training drops what an unbroken one drops.
        mx.random.seed(int(np.random.default_rng([self.seed, self.step]).integers(2**31)))
        pixels = gluon.utils.split_and_load(batch.pixels, self.places, even_split=False)
        masks = gluon.utils.split_and_load(batch.masks.astype(np.float32), self.places, even_split=False)
        with autograd.record():
            outputs = [list(scores) for scores in zip(*(self.network(share) for share in pixels), strict=True)]
            loss: Any = 0
            for (share, loss_of), scores in zip(self.losses, outputs, strict=True):
                loss = loss + share * loss_of(scores, [_at_size_of(some, truth) for some, truth in zip(scores, masks, strict=True)])
        loss.backward()
        self.trainer.allreduce_grads()
        self._update(rate)
        return loss.detach()

    def _update(self, rate: float) -> None:
        """One step of the optimiser, the same on every device. MXNet's Adam mixes the decay into the gradient; AdamW shrinks the
        weights beside it (Loshchilov & Hutter 2019, arXiv 1711.05101)."""
        self.trainer.set_learning_rate(rate)
        kept = momentum(self.settings, self.step, self.steps)
        setattr(self.trainer.optimizer, "beta1" if self.settings.optimizer == "adamw" else "momentum", kept)
        if self.settings.clip:
            self._clip()
        if self.settings.optimizer == "adamw" and self.settings.weight_decay:
            for value in self.learning:
                if _decays(value):
                    for weight in value.list_data():
                        weight *= 1 - rate * self.settings.weight_decay
        self.trainer.update(1)

    def _clip(self) -> None:
        """Shorten the gradient to `clip`, by the same number on every device: they must not drift apart."""
        parts = [value.grad(self.places[0]).reshape((-1,)) for value in self.learning]
        length = mx.nd.sqrt(mx.nd.add_n(*(mx.nd.dot(part, part) for part in parts)))
        share = mx.nd.minimum(self.settings.clip / (length + 1e-8), 1)
        for place in self.places:
            here = share.as_in_context(place)
            for value in self.learning:
                gradient = value.grad(place)
                gradient *= here

    def _average(self) -> None:
        """Move the twin's weights, and the statistics of batch norm with them, towards the present ones. What batch norm saw is
        made the same on every device: each saw a share of the batch."""
        if len(self.places) > 1:
            for value in self.statistics:
                value.set_data(sum(seen.as_in_context(self.places[0]) for seen in value.list_data()) / len(self.places))
        decay = average_decay(self.settings, self.step)
        for mean, value in self._pairs:
            mean *= decay
            mean += (1 - decay) * value

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Scores of normalised pixels. Raises ValueError where height and width are not the tile's."""
        if batch.shape[2:] != self.geometry.tile:
            raise ValueError(f"this network reads tiles of {self.geometry.tile}, not {batch.shape[2:]}")
        scores: np.ndarray = self.averaged(mx.nd.array(batch, ctx=self.places[0]))[0].asnumpy()
        return scores

    def save(self, folder: Path) -> None:
        self.network.save_parameters(str(folder / WEIGHTS))
        self.averaged.save_parameters(str(folder / AVERAGED))
        self.trainer.save_states(str(folder / OPTIMIZER))
        (folder / PROGRESS).write_text(json.dumps({"step": self.step, "seed": self.seed}))

    def load(self, folder: Path) -> None:
        self.network.load_parameters(str(folder / WEIGHTS), ctx=self.places)
        self.averaged.load_parameters(str(folder / AVERAGED), ctx=self.places[:1])
        self.trainer.load_states(str(folder / OPTIMIZER))
        progress = json.loads((folder / PROGRESS).read_bytes())
        self.step, self.seed = progress["step"], progress["seed"]

    def export(self, folder: Path) -> None:
        """model.onnx for one tile, and model_best.params, which GluonCV's load_parameters reads (aux=False)."""
        height, width = self.geometry.tile or (0, 0)
        self.averaged.save_parameters(str(folder / "model_best.params"))
        write_onnx(self.averaged, (1, 3, height, width), folder / "model.onnx")


def _at_size_of(scores: Any, masks: Any) -> Any:
    """Masks at the size of scores that a network gives before it enlarges them: every so many pixels, as nearest neighbour does."""
    step = masks.shape[1] // scores.shape[2]
    return masks if step == 1 else masks[:, ::step, ::step]


def _decays(parameter: Any) -> bool:
    """Weight decay is for what multiplies: norms and biases are left out."""
    return len(parameter.shape) > 1


def _trainer(network: Any, settings: Hyperparameters, places: list[Any]) -> Any:
    """The optimiser; between several devices MXNet's kvstore adds up the gradients."""
    parameters = network.collect_params()
    if settings.optimizer == "adamw":
        optimizer = mx.optimizer.Adam(beta1=settings.momentum)
    else:
        for value in parameters.values():
            value.wd_mult = float(_decays(value))
        kind = mx.optimizer.NAG if settings.momentum else mx.optimizer.SGD
        optimizer = kind(momentum=settings.momentum, wd=settings.weight_decay)
    store = None if len(places) == 1 else "device" if places[0].device_type == "gpu" else "local"
    return gluon.Trainer(parameters, optimizer, kvstore=store, update_on_kvstore=False)


def _class_weights(shares: list[float], balance: float) -> np.ndarray:
    """Weights of mean 1 by the inverse of each class's share, to the power of `balance` (0: all alike)."""
    weights = np.maximum(shares, 1e-4) ** -balance
    return np.asarray(weights / weights.mean(), np.float32)


def _tile(plan: Plan, largest: int) -> tuple[int, int]:
    """Height and width that hold a whole training picture of the commonest size, at working size, in multiples that the
    network halves evenly; pictures of other sizes are padded to it or read in several."""
    sizes = [_size(pair) for pair in plan.crops.pairs]
    commonest = max(sorted(set(sizes)), key=sizes.count)
    multiple = plan.network.multiple_of
    rows, columns = (min(largest, -(-side // multiple) * multiple) for side in working_size(commonest, plan.settings.short_side))
    return rows, columns


def _size(pair: Pair) -> tuple[int, int]:
    """Height and width of a mask, from the first bytes of its file."""
    with Image.open(pair.mask) as mask:
        return mask.height, mask.width


def _places(gpus: list[int]) -> list[Any]:
    """Where to compute. The launcher shows the job only its own GPUs, so that the first ones seen are those asked for."""
    if not gpus:
        return [mx.cpu()]
    cure = "Choose the CPU, or the pytorch engine, which knows newer GPUs (docs/gluon.md)."
    if mx.context.num_gpus() < len(gpus):
        raise Unavailable(f"MXNet sees {mx.context.num_gpus()} of {len(gpus)} GPUs.", cure)
    places = [mx.gpu(number) for number in range(len(gpus))]
    try:
        for place in places:
            mx.nd.ones((1,), ctx=place).asscalar()
    except mx.base.MXNetError as error:
        raise Unavailable(f"MXNet cannot compute on {place}: {str(error).strip().splitlines()[-1]}", cure) from error
    return places


def _describe(places: list[Any]) -> str:
    kind = "CPU" if places[0].device_type == "cpu" else "GPU"
    return f"{f'{len(places)} {kind}s' if len(places) > 1 else kind}, MXNet {mx.__version__}"


def _remarks(crops: int, places: int) -> Iterator[str]:
    """What a person should know of how a batch of so many crops is learnt from."""
    if places > crops:
        yield f"A batch of {crops} keeps only {crops} of {places} GPUs busy: choose a larger batch size."
    if places > 1 and crops > 1:
        yield f"Batch norm averages over the {max(1, crops // places)} crops that each GPU gets of a batch, not over all {crops}."


def create(plan: Plan) -> GluonEngine:
    return GluonEngine(plan, _places(plan.gpus))
