"""What clients of the GluonCV training GUI send, and what a job of ours makes of it. Keys that are not listed here do not matter.

What such a client does not know how to say (optimiser, losses, crops per picture, …) gets the network's own defaults.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from contracts.errors import Invalid, NotFound
from contracts.hyperparameters import read_hyperparameters
from contracts.job import NAME_PATTERN, Job
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE, Network, find_network
from contracts.weights import CHECKPOINT_FILES, WeightsType, read_classifier, same_backbone, zoo_names

ENGINE = "gluon"
NETWORKS, BACKBONES = ("fcn", "deeplab", "psp"), ("resnet50", "resnet101", "resnet50v1b", "resnet101v1b")
CPU = -1
"""What these clients call the processor where they list GPUs."""
Kind = TypeVar("Kind", bound=BaseModel)


class DatasetName(BaseModel):
    dataset_name: str


class JobName(BaseModel):
    name: str


class JobStart(JobName, DatasetName):
    """POST /jobs/start."""

    name: str = Field(pattern=NAME_PATTERN)
    gpus: list[int] = [CPU]
    api_port: int = Field(ge=1, le=65535)


class DatasetInfo(BaseModel):
    """`train_ratio`: share of the pictures that teach, as a fraction or in percent."""

    num_classes: int | None = None
    classes: list[str] = []
    train_ratio: float = 0.8


class Config(BaseModel):
    """Hyper-parameters by the names and with the defaults that these clients know."""

    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0001
    num_workers: int = 1
    batch_size: int = 1
    validation_batch_size: int = 1
    """Heard and not used: validation pictures are read whole, one at a time."""
    epochs: int = 15
    augment_data: bool = True
    gpus: list[int] | None = None
    weight_type: str = "pre_trained"
    backbone: str = "resnet101"
    network: str = "deeplab"
    base_weight_name: str = "deeplab_resnet101"
    base_model_name: str = ""
    pretrained_dataset: str = "voc"
    model_name: str = ""
    crop_size: int = 480
    base_size: int = 520


class Wish(BaseModel):
    """POST /data_preparation and /training."""

    dataset_info: DatasetInfo
    config: Config


def read_body(kind: type[Kind], body: bytes) -> Kind:
    """A body that is JSON, whatever its content type says: these clients call it text/plain. Raises Invalid."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "The body"
        known = ", ".join(kind.model_fields)
        raise Invalid(f"{place}: {first['msg'].rstrip('.')}.", f"Send a JSON object with: {known}.") from None


def envelope(data: Any = None) -> dict[str, Any]:
    """The form of the original's answers where all went well."""
    return {"success": True, "data": data, "error": None}


def gpus_of(gpus: list[int]) -> list[int]:
    """GPUs as we list them: none is the processor."""
    return [] if CPU in gpus else gpus


def job_of(wish: Wish, waiting: Job, checkpoints: Path, classifiers: Path) -> Job:
    """The job that a client tells a waiting one to be. Raises Invalid or NotFound with what there is to choose from."""
    config = wish.config
    row, weights, origin, folder = _start_from(config, checkpoints, classifiers)
    crop = -(-config.crop_size // 32) * 32  # sizes in between were allowed there
    values = {
        "learning_rate": config.lr,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "workers": config.num_workers,
        "batch_size": config.batch_size,
        "epochs": config.epochs,
        "augment": config.augment_data,
        "crop": crop,
        "short_side": config.base_size,
    }
    settings = read_hyperparameters(values, row.defaults, row.engine)
    row.refuse_small_crop(settings.crop)
    start = {"network": row.network, "backbone": row.backbone, "weights": weights, "weights_from": origin, "weights_folder": folder}
    share = _validation_share(wish.dataset_info.train_ratio)
    told = {"gpus": _gpus(config, waiting), "validation_share": share, "hyperparameters": settings, "waiting": False}
    return waiting.model_copy(update={**start, **told})


def _gpus(config: Config, waiting: Job) -> list[int]:
    gpus = waiting.gpus if config.gpus is None else gpus_of(config.gpus)
    if unknown := sorted(set(gpus) - set(waiting.gpus)):
        have = ", ".join(map(str, waiting.gpus)) or "the CPU alone"
        cure = "Name the same GPUs when the job is started and when it is told what to train."
        raise Invalid(f"This job was started with {have}, and not with GPU {', '.join(map(str, unknown))}.", cure)
    return gpus


def _validation_share(train_ratio: float) -> float:
    ratio = train_ratio / 100 if train_ratio > 1 else train_ratio
    if not 0 < ratio < 1:
        raise Invalid(f"train_ratio cannot be {train_ratio:g}.", "Give a fraction such as 0.8, or a percentage such as 80.")
    return round(1 - ratio, 6)


Origin = tuple[Network, WeightsType, str, Path | None]


def _start_from(config: Config, checkpoints: Path, classifiers: Path) -> Origin:
    """Network, type of weights, which of them, and the folder that they lie in."""
    kind, base = config.weight_type.lower(), config.base_model_name
    if kind == "from_checkpoint" or (kind == "pre_trained_offline" and _is_name(base) and (checkpoints / base).is_dir()):
        return _checkpoint(base, checkpoints)
    if kind == "pre_trained_classifier":
        return _classifier(config, classifiers)
    network, backbone, dataset = _named(config)
    row = _network(network, backbone)
    if kind == "from_scratch":
        return row, "from_scratch", "", None
    if kind == "pre_trained":
        return row, "pre_trained", _zoo(row, dataset), None
    if kind == "pre_trained_offline":
        return row, "pre_trained_offline", _zoo(row, dataset), None
    known = "from_scratch, pre_trained, pre_trained_offline, pre_trained_classifier and from_checkpoint"
    raise Invalid(f"There is no weight_type “{config.weight_type}”.", f"The types are {known}.")


def _network(network: str, backbone: str) -> Network:
    """A row by the names of these clients, of which a backbone's may be written in several ways."""
    for row in CATALOGUE:
        if (row.engine, row.network) == (ENGINE, network) and same_backbone(row.backbone, backbone):
            return row
    there = [(row.network, row.backbone) for row in CATALOGUE if row.engine == ENGINE and row.network in NETWORKS]
    known = "; ".join(f"{name} on {', '.join(on for of, on in there if of == name)}" for name in dict.fromkeys(name for name, _ in there))
    raise Invalid(f"There is no network “{network}” on “{backbone}” for clients of this kind.", f"There are: {known}.")


def _named(config: Config) -> tuple[str, str, str]:
    """Network, backbone and dataset of the pre-trained weights; a base name such as deeplab_resnet101_ade where it alone was sent."""
    sent = config.model_fields_set
    if "base_weight_name" not in sent or {"network", "backbone"} & sent:
        return config.network, config.backbone, config.pretrained_dataset
    network, _, rest = config.base_weight_name.partition("_")
    backbone, _, dataset = rest.partition("_")
    return network, backbone, dataset or config.pretrained_dataset


def _zoo(row: Network, dataset: str) -> str:
    name = f"{row.network}_{row.backbone}_{dataset}"
    known = zoo_names(row)
    if name not in known:
        cure = f"There are: {', '.join(known)}." if known else "Start from_scratch, or choose another network."
        raise Invalid(f"There are no pre-trained weights “{name}”.", cure)
    return name


def _checkpoint(name: str, checkpoints: Path) -> Origin:
    """An earlier model; the network is its own, whatever else was said."""
    folder = JobFolder(checkpoints / name)
    cure = "GET /models/checkpoints says what there is."
    if not _is_name(name) or not folder.exists():
        raise NotFound(f"There is no checkpoint “{name}” (base_model_name).", cure)
    job = folder.job()
    if job.engine != ENGINE or not any((folder.path / file).is_file() for file in CHECKPOINT_FILES[ENGINE]):
        raise Invalid(f"The job “{name}” has no weights of a GluonCV network.", cure)
    return find_network(job.engine, job.network, job.backbone), "from_checkpoint", name, folder.path


def _classifier(config: Config, classifiers: Path) -> Origin:
    """A classifier's backbone under the network that was asked for."""
    name = config.base_model_name
    if not _is_name(name) or not (classifiers / name).is_dir():
        raise NotFound(f"There is no classifier “{name}” (base_model_name).", "GET /models/classifiers says what there is.")
    row = _network(config.network, read_classifier(classifiers / name).network)
    return row, "pre_trained_classifier", name, classifiers / name


def _is_name(name: str) -> bool:
    """Whether a name that somebody sent can be a folder's here."""
    return bool(name) and "/" not in name and not name.startswith(".") and "\0" not in name and len(name) < 64
