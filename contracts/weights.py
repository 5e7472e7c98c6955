"""What a network can start from: the five types of weights, which of them a network has, and what their files are called."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from contracts.errors import Invalid
from contracts.networks import Network

WeightsType = Literal["from_scratch", "pre_trained", "pre_trained_offline", "pre_trained_classifier", "from_checkpoint"]

WEIGHTS: dict[WeightsType, str] = {
    "from_scratch": "Random numbers: nothing is fetched, and nobody's licence applies.",
    "pre_trained": "What others taught it with large public datasets. The file is fetched once, when a training first needs it.",
    "pre_trained_offline": "The same file, from a folder of yours: nothing is fetched.",
    "pre_trained_classifier": "A backbone that was trained as a classifier, from classifiers/.",
    "from_checkpoint": "An earlier model of the same network learns on. Its head is kept where the classes are the same.",
}
NAMED: frozenset[WeightsType] = frozenset({"pre_trained_classifier", "from_checkpoint"})
"""The types that need to be told which one: `weights_from`."""

GLUON_ZOO = (
    "fcn_resnet50_ade",
    "fcn_resnet101_ade",
    "fcn_resnet101_voc",
    "psp_resnet50_ade",
    "psp_resnet101_ade",
    "psp_resnet101_voc",
    "deeplab_resnet50_ade",
    "deeplab_resnet101_ade",
    "deeplab_resnet101_voc",
    "fastscnn_citys",
    "icnet_resnet50_citys",
    "danet_resnet50_citys",
    "danet_resnet101_citys",
)
"""What GluonCV's model zoo has for the networks of the GluonCV training GUI, and for the others of the gluon engine. Which of a
network's comes first is what it starts from where none is named."""
GLUON_BACKBONES = {
    "resnet50": "resnet50_v1s",
    "resnet101": "resnet101_v1s",
    "resnet50v1b": "resnet50_v1b",
    "resnet101v1b": "resnet101_v1b",
    "xception": "xception",
}
"""Its backbones, taught with ImageNet: what a network can start from of which the zoo has no whole one."""
GLUON_LICENCE = "Apache-2.0 (GluonCV's model zoo)"

WHOLE_NETWORKS = ("fcn", "deeplabv3", "lraspp")
"""Networks of the pytorch engine whose pre-trained weights (torchvision's) are the whole network's, not the backbone's alone."""

CLASSIFIER_FILES = {"gluon": ("model_best.params",), "pytorch": ("weights.safetensors", "weights.pth")}
"""A classifier's weights in classifiers/<name>/; an engine takes the first that is there."""
CHECKPOINT_FILES = {
    "gluon": ("model/model_best.params", "best/averaged.params"),
    "pytorch": ("model/weights.safetensors", "best/state.pt"),
}
"""A job's weights in checkpoints/<job>/: the published ones, or the best so far."""


class Origin(BaseModel):
    """One thing to start from: its name, what to know of it, and whose licence applies."""

    name: str
    about: str = ""
    licence: str = ""


class WeightsChoice(BaseModel):
    """A type of weights for one network: whether it can be had now, if not why and what helps, and what there is to choose from."""

    type: WeightsType
    about: str
    available: bool
    cause: str = ""
    cure: str = ""
    named: bool = False
    origins: list[Origin] = []


class Classifier(BaseModel):
    """config.json of a classifier's folder; keys that are not listed here do not matter."""

    network: str
    licence: str = ""


def zoo_names(row: Network) -> list[str]:
    """The pre-trained weights of a row that can be told apart by name; none where there is only one."""
    if row.engine != "gluon":
        return []
    called = row.network if row.network == row.backbone else f"{row.network}_{row.backbone}"
    whole = [name for name in GLUON_ZOO if name.startswith(f"{called}_")]
    return whole or [GLUON_BACKBONES[row.backbone]]


def licence_of(row: Network) -> str:
    """Whose licence the pre-trained weights of a row have; "" where it has none."""
    if row.engine == "gluon":
        return GLUON_LICENCE if zoo_names(row) else ""
    return row.weights_licence


def types_of(row: Network) -> list[WeightsType]:
    """What a row of the catalogue can start from at all, on any machine."""
    types: list[WeightsType] = ["from_scratch"]
    if row.engine not in CHECKPOINT_FILES:
        return types
    if licence_of(row):
        types += ["pre_trained", "pre_trained_offline"]
    if row.network != row.backbone:
        types.append("pre_trained_classifier")
    return [*types, "from_checkpoint"]


def file_patterns(row: Network) -> list[str]:
    """How the files of a row's pre-trained weights are called in the weights folder, as patterns of fnmatch.

    The exact names and addresses are the engines' packages' to say, and only a training has those (training_api/engines).
    """
    if row.engine == "gluon":
        return [f"{name}-*.{ending}" for name in zoo_names(row) for ending in ("params", "zip")]
    return [f"{row.network}_{row.backbone}*-*.pth"] if row.network in WHOLE_NETWORKS else [f"{row.backbone}--*.safetensors"]


def read_classifier(folder: Path) -> Classifier:
    """Raises Invalid where config.json is missing or does not say which network it is."""
    file = folder / "config.json"
    cure = 'It must hold the name of the classifier\'s network, such as {"network": "resnet50"}.'
    if not file.is_file():
        raise Invalid(f"The classifier {folder.name} has no config.json.", cure)
    try:
        content: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise Invalid(f"config.json of the classifier {folder.name} is no JSON ({error}).", cure) from error
    network = content.get("network") if isinstance(content, dict) else None
    if not isinstance(network, str) or not network:
        raise Invalid(f"config.json of the classifier {folder.name} names no network.", cure)
    return Classifier(network=network, licence=str(content.get("licence") or content.get("license") or ""))


def same_backbone(one: str, other: str) -> bool:
    """Whether two names mean one backbone: resnet50_v1s is what the networks call resnet50, resnet50_v1b is resnet50v1b."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").removesuffix("v1s")
