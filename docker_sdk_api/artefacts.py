"""Models from elsewhere: the product's own are published as they are, the GluonCV training GUI's are converted by a short job."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from annotations.archives import Limits, unpack
from annotations.dataset import MOST_CLASSES
from contracts.artefact import CONFIGURATION, FILES, PALETTE, Artefact, read_artefact, read_palette, read_small
from contracts.errors import Invalid, NotFound
from contracts.events import EpochDone, Finished, now
from contracts.hyperparameters import Hyperparameters, read_hyperparameters
from contracts.job import NAME_RULE, Job, is_name
from contracts.job_folder import JobFolder
from contracts.model import MODEL_FILE, Model, read_model
from contracts.networks import Network
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import refuse_engine

GRAPHS = {"onnx_graph": "model.onnx", "majority": "majority.json"}
"""What a model of each predictor cannot answer without."""
ENDINGS = {".json", ".onnx", ".params", ".safetensors", ".txt", ".md", ".jpg"}
"""Files of a model; what else may lie beside them is left out."""
UNKNOWN = "unknown"
"""The dataset of a model that does not say which it was taught with."""


class Imported(NamedTuple):
    """The name of a model, and whether it is there already or a job of that name converts it."""

    name: str
    ready: bool


def import_model(jobs: Jobs, source: Path, name: str = "", limits: Limits = Limits()) -> Imported:  # noqa: B008  # it is frozen
    """Bring a model in from a zip or a folder; `name`: another one than its own.

    Raises Invalid or Taken where it cannot be had, with the reason; then nothing of it is left.
    """
    if not source.exists():
        raise NotFound(f"There is no {source}.", "Give a model's zip, or a folder with its files.")
    if name and not is_name(name):
        raise Invalid(f"A model cannot be named “{name}”.", NAME_RULE)
    if source.is_dir():
        return _import_folder(jobs, _root(source), name)
    # Unpacked beside the jobs, where there is room for it; hidden, so that nobody takes it for one.
    with tempfile.TemporaryDirectory(prefix=".import-", dir=jobs.settings.checkpoints) as work:
        folder = Path(work) / source.stem
        unpack(source, folder, limits, lambda _done, _total: None)
        return _import_folder(jobs, _root(folder), name)


def _root(folder: Path) -> Path:
    """The folder itself, or the one in it that holds the files: zips are packed in both ways."""
    for place in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())):
        if any((place / name).is_file() for name in (MODEL_FILE, *FILES)):
            return place
    raise Invalid(
        f"No model is in {folder.name}.",
        f"A model of Maskwright has {MODEL_FILE}; one of the GluonCV training GUI has {', '.join(FILES)}.",
    )


def _import_folder(jobs: Jobs, folder: Path, name: str) -> Imported:
    if (folder / MODEL_FILE).is_file():
        return _publish(jobs, folder, name)
    artefact = read_artefact(folder)
    refuse_engine(artefact.row.engine, jobs.settings, jobs.launcher, "which converts such a model")
    return _convert(jobs, folder, artefact, name or legal_name(artefact.checkpoint_name) or legal_name(folder.name) or "imported")


def _publish(jobs: Jobs, folder: Path, name: str) -> Imported:
    """A model of the product, as it is."""
    try:
        model = read_model(folder)
    except (ValidationError, FileNotFoundError):
        raise Invalid(f"{MODEL_FILE} cannot be read.", "Download the model again: its zip is damaged, or of a newer version.") from None
    if not (folder / GRAPHS[model.predictor]).is_file():
        raise Invalid(f"There is no {GRAPHS[model.predictor]} in it.", "Download the model again, and pack nothing out of it.")
    if not 2 <= len(model.classes) == len(model.palette) <= MOST_CLASSES:
        cause = f"{MODEL_FILE} names {len(model.classes)} classes and {len(model.palette)} colours."
        raise Invalid(cause, f"Download the model again: it has 2 to {MOST_CLASSES} classes, and a colour of each.")
    if not {number for colour in model.palette for number in colour} <= {*range(256)}:
        raise Invalid(f"A colour in {MODEL_FILE} is none.", "Download the model again: red, green and blue are numbers of 0 to 255.")
    _refuse_broken(folder, len(model.classes))
    name = name or model.name
    if not is_name(name):
        raise Invalid(f"A model cannot be named “{name}”.", NAME_RULE)

    def fill(place: JobFolder) -> None:
        _copy(folder, place.model, lambda file: file.suffix in ENDINGS)
        model.model_copy(update={"name": name, "job": name}).write(place.model)
        place.add_event(EpochDone(scores=model.scores.model_copy(update={"best": True})))
        place.add_event(Finished())

    jobs.add(_job(jobs, name, model, Hyperparameters()), fill, launch=False)
    return Imported(name, ready=True)


def _refuse_broken(folder: Path, classes: int) -> None:
    """What is published for old clients beside the model's own file, and need not be there."""
    if (folder / PALETTE).is_file():
        read_palette(folder, classes)
    if not (folder / CONFIGURATION).is_file():
        return
    try:
        said = json.loads(read_small(folder / CONFIGURATION))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Invalid(f"{CONFIGURATION} holds no JSON object.", "Download the model again: its zip is damaged.")


def _convert(jobs: Jobs, folder: Path, artefact: Artefact, name: str) -> Imported:
    """A model of the GluonCV training GUI, by a job that needs its interpreter (training_api/artefact.py)."""
    job = _job(jobs, name, artefact.row, read_hyperparameters({}, artefact.row.defaults))
    jobs.add(job, lambda place: _copy(folder, place.artefact, lambda file: file.name in FILES))
    return Imported(name, ready=False)


def _job(jobs: Jobs, name: str, of: Model | Network, settings: Hyperparameters) -> Job:
    return Job(
        name=name,
        dataset=of.dataset if isinstance(of, Model) else UNKNOWN,
        engine=of.engine,
        network=of.network,
        backbone=of.backbone,
        dataset_folder=(jobs.settings.checkpoints / name).resolve() / "artefact",
        created=now(),
        imported=True,
        hyperparameters=settings,
    )


def _copy(source: Path, to: Path, belongs: Callable[[Path], bool]) -> None:
    to.mkdir()
    for file in source.iterdir():
        if belongs(file) and file.is_file() and not file.is_symlink():
            shutil.copyfile(file, to / file.name)


def legal_name(name: str) -> str:
    """The nearest name that a job can have; empty where nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64]
