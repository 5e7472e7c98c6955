"""The catalogue: every network that can be trained, the engine that trains it, and the defaults it learns well with.

An engine is available where its packages are; that is asked of the machine (docker_sdk_api/machine.py), not said here.
"""

from typing import Any

from pydantic import BaseModel

from contracts.errors import Invalid

ENGINES = {
    "pytorch": "PyTorch: the fast one, on any machine.",
    "gluon": "GluonCV on MXNet: the networks of the GluonCV training GUI. Its upstream is frozen.",
    "majority": "Always answers the commonest class: what “no better than nothing” scores. Trains in seconds.",
}


class Network(BaseModel):
    """A row of the catalogue. `parameters` in millions (None: depends on the classes only); `seconds` is one training
    step on one crop of 256 × 256 pixels on two AVX2 cores, measured (docs/networks.md)."""

    engine: str
    network: str
    backbone: str
    title: str
    advice: str
    parameters: float
    seconds: float
    multiple_of: int = 32
    defaults: dict[str, Any] = {}

    @property
    def key(self) -> str:
        return f"{self.engine}/{self.network}/{self.backbone}"


CATALOGUE = (
    Network(
        engine="pytorch",
        network="unet",
        backbone="resnet18",
        title="U-Net on ResNet-18",
        advice="The one to start with: learns from a few dozen pictures, no GPU needed.",
        parameters=3.6,
        seconds=0.27,
        multiple_of=16,
    ),
    Network(
        engine="gluon",
        network="fastscnn",
        backbone="fastscnn",
        title="Fast-SCNN",
        advice="The lightest of GluonCV's networks: for a CPU with the gluon engine.",
        parameters=1.1,
        seconds=0.34,
        defaults={"short_side": 768, "crop": 256, "learning_rate": 0.004, "epochs": 6},
    ),
    Network(
        engine="gluon",
        network="fcn",
        backbone="resnet50",
        title="FCN on ResNet-50",
        advice="For those who know it from the GluonCV training GUI. Slow without a GPU.",
        parameters=33.0,
        seconds=2.3,
        multiple_of=8,
        defaults={"short_side": 480, "crop": 256, "batch_size": 4, "crops_per_picture": 4, "learning_rate": 0.001, "epochs": 20},
    ),
    Network(
        engine="majority",
        network="majority",
        backbone="none",
        title="Majority class",
        advice="Not a model to use: the score that every real model must beat.",
        parameters=0,
        seconds=0,
        multiple_of=1,
        defaults={"epochs": 1},
    ),
)


def find_network(engine: str, network: str, backbone: str) -> Network:
    """The row of the catalogue. Raises Invalid with what there is to choose from."""
    for row in CATALOGUE:
        if (row.engine, row.network, row.backbone) == (engine, network, backbone):
            return row
    known = ", ".join(row.key for row in CATALOGUE)
    raise Invalid(f"There is no network {engine}/{network}/{backbone}.", f"Choose one of: {known}.")
