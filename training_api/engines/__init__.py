"""The protocol of an engine: one network being trained. train.py drives every engine through the same loop.

Engines are modules with a function `create(plan) -> Engine`, imported on demand, so that MXNet and PyTorch never meet.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, SupportsFloat

import numpy as np

from annotations.whole_picture import Normalisation
from contracts.errors import Unavailable
from contracts.hyperparameters import Hyperparameters
from contracts.model import Geometry
from contracts.networks import Network
from training_api.data import Crops
from training_api.group import ALONE, Group

MODULES = {"pytorch": "training_api.engines.pytorch", "gluon": "training_api.engines.gluon", "majority": "training_api.engines.majority"}


@dataclass(frozen=True)
class Start:
    """The weights that an engine takes in before it learns. `file` None: none. `part`: what of the network they are for.

    `keep_head`: what depends on the classes is taken in as well, because the classes are the same.
    """

    file: Path | None = None
    name: str = ""
    part: Literal["network", "backbone"] = "network"
    keep_head: bool = False


FROM_SCRATCH = Start()


@dataclass(frozen=True)
class Plan:
    """All that an engine is made from. `class_shares`: share of the training pixels per class. `gpus` empty: the CPU."""

    network: Network
    settings: Hyperparameters
    classes: int
    class_shares: list[float]
    crops: Crops
    gpus: list[int]
    seed: int
    start: Start = FROM_SCRATCH
    group: Group = ALONE


@dataclass(frozen=True)
class Step:
    """One step of the optimiser. `loss` may still be on its way from the device: read it seldom."""

    loss: SupportsFloat
    crops: int
    learning_rate: float

    @property
    def name(self) -> str:
        """What its engine calls it, such as “iteration 7”; "": by its number in its epoch."""
        return ""


class Engine(Protocol):
    """A network being trained. `device` and `remarks` are what a person reads; `geometry` is how whole pictures come to the network."""

    device: str
    remarks: list[str]
    """What was found out before the first epoch and should be known."""
    geometry: Geometry
    normalisation: Normalisation

    def train_epoch(self, epoch: int) -> Iterator[Step]:
        """Learn from every crop of an epoch (counted from 1), one step at a time."""
        ...

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Normalised float32 (n, 3, height, width) → scores before the softmax, float32 (n, classes, height, width), computed
        in float32, as what is published will be served, however narrow the numbers are that the network learns in."""
        ...

    def save(self, folder: Path) -> None:
        """Weights, optimiser, schedule and random state: all that going on takes."""
        ...

    def load(self, folder: Path) -> None:
        """The state that `save` wrote."""
        ...

    def export(self, folder: Path) -> None:
        """What is served and downloaded: model.onnx (input `picture`, output `scores`, as in predict) and own weights."""
        ...


def create_engine(plan: Plan) -> Engine:
    """The engine of a plan. Raises Unavailable where its packages are not installed."""
    name = plan.network.engine
    try:
        module = importlib.import_module(MODULES[name])
    except ImportError as error:
        raise Unavailable(
            f"The engine {name} cannot start: {error}.", "Look at the machine page for the reason, or choose another engine."
        ) from error
    engine: Engine = module.create(plan)
    return engine
