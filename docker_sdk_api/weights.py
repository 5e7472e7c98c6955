"""What a network can start from on this machine now, and what a training needs of this machine for it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePath

from contracts.errors import Invalid, NotFound, Problem
from contracts.job import Job, JobRequest, is_name
from contracts.job_folder import JobFolder
from contracts.model import MODEL_FILE, read_model
from contracts.networks import Network
from contracts.weights import (
    CHECKPOINT_FILES,
    CLASSIFIER_FILES,
    NAMED,
    WEIGHTS,
    Origin,
    WeightsChoice,
    WeightsType,
    file_patterns,
    licence_of,
    read_classifier,
    same_backbone,
    types_of,
    zoo_names,
)
from docker_sdk_api.launchers import Task
from docker_sdk_api.settings import Settings

PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "HF_ENDPOINT")
"""What a training that fetches something is told of this service's environment."""


def list_weights(row: Network, settings: Settings) -> list[WeightsChoice]:
    """Every type of weights for one row of the catalogue: whether it can be had now, and from what."""
    return [_choice(kind, row, settings) for kind in WEIGHTS]


def check_weights(request: JobRequest, row: Network, settings: Settings) -> Path | None:
    """The folder that `weights_from` names. Raises Invalid or NotFound, with what there is to choose from, where it cannot be used."""
    name = request.weights_from
    if request.weights not in types_of(row):
        raise Invalid(f"There are no weights {request.weights} for {row.key}.", f"It can start from: {', '.join(types_of(row))}.")
    if request.weights in NAMED:
        return _named_folder(request, row, settings)
    known = zoo_names(row) if request.weights != "from_scratch" else []
    if name and name not in known:
        cure = f"Leave the name out, or choose one of: {', '.join(known)}." if known else "Leave the name out."
        raise Invalid(f"There are no weights {request.weights} “{name}” for {row.key}.", cure)
    return None


def add_weights(task: Task, job: Job, settings: Settings) -> Task:
    """The task of a job, with the folders that its weights lie in, and with a network only where they may have to be fetched."""
    if job.weights_folder is not None:
        return replace(task, read_only=[*task.read_only, job.weights_folder])
    if job.weights not in ("pre_trained", "pre_trained_offline"):
        return task
    cache = settings.weights.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    mirrors = [settings.weights_mirror.resolve()] if settings.weights_mirror is not None else []
    network = job.weights == "pre_trained"
    environment = {"WEIGHTS": str(cache), "WEIGHTS_MIRROR": "".join(map(str, mirrors)), "WEIGHTS_URL": settings.weights_url}
    environment |= {name: os.environ[name] for name in PASSED_ON if network and name in os.environ}
    return replace(
        task,
        read_only=[*task.read_only, *mirrors],
        writable=[*task.writable, cache],
        network=network,
        environment={**task.environment, **environment},
    )


def add_all_weights(task: Task, job: Job, settings: Settings) -> Task:
    """The task of a job that waits for an old client: where it is asked, and whatever the client may choose weights from.

    Of the other jobs it sees no more: a training that can be reached, and can reach others, has no business with pictures and tokens.
    """
    task = add_weights(task, job.model_copy(update={"weights": "pre_trained"}), settings)
    checkpoints, classifiers = settings.checkpoints.resolve(), settings.classifiers.resolve()
    parts = (JobFolder(checkpoints).job_file.name, *(PurePath(file).parts[0] for file in CHECKPOINT_FILES[job.engine]))
    earlier = [place / part for place in _with_weights(job.engine, settings) if place.name != job.name for part in parts]
    read_only = [path for path in (*earlier, classifiers) if path.exists()]
    told = {"CHECKPOINTS": str(checkpoints), "CLASSIFIERS": str(classifiers)}
    told |= {"ALLOWED_ORIGINS": settings.allowed_origins, "HOSTS": settings.hosts}
    return replace(task, port=job.api_port, read_only=[*task.read_only, *read_only], environment={**task.environment, **told})


def _choice(kind: WeightsType, row: Network, settings: Settings) -> WeightsChoice:
    choice = WeightsChoice(type=kind, about=WEIGHTS[kind], available=kind in types_of(row), named=kind in NAMED)
    if not choice.available:
        choice.cause, choice.cure = f"There are none for {row.key}.", "Choose another network, or other weights."
    elif kind in ("pre_trained", "pre_trained_offline"):
        choice.origins = [Origin(name=name, licence=licence_of(row)) for name in zoo_names(row) or [""]]
        if kind == "pre_trained" and _is_there(row, settings):
            choice.about += " It is on this machine already."
        if kind == "pre_trained_offline" and settings.launcher == "process" and not _is_there(row, settings):
            choice.available = False
            choice.cause = f"No file like {' or '.join(file_patterns(row))} is in {settings.weights.name}/."
            choice.cure = f"“python -m training_api.weights --engine {row.engine} --list” says where each can be had: docs/weights.md."
    elif kind in NAMED:
        choice.origins = _classifiers(row, settings) if kind == "pre_trained_classifier" else _checkpoints(row, settings)
        choice.available = bool(choice.origins)
        if not choice.available and kind == "from_checkpoint":
            choice.cause, choice.cure = f"No earlier training of {row.key} has weights.", "Train it once from other weights."
        elif not choice.available:
            choice.cause = f"No classifier in {settings.classifiers.name}/ is a {row.backbone} with weights for {row.engine}."
            choice.cure = "Put its folder there, with config.json and its weights: see docs/weights.md."
    return choice


def _is_there(row: Network, settings: Settings) -> bool:
    folders = [folder for folder in (settings.weights, settings.weights_mirror) if folder is not None and folder.is_dir()]
    return any(fnmatch(file.name, pattern) for folder in folders for file in folder.iterdir() for pattern in file_patterns(row))


def _classifiers(row: Network, settings: Settings) -> list[Origin]:
    """The classifiers on the row's backbone; folders that are none are left out here, and said when they are asked for."""
    found = []
    for folder in sorted(settings.classifiers.iterdir()) if settings.classifiers.is_dir() else []:
        if not folder.is_dir() or not any((folder / name).is_file() for name in CLASSIFIER_FILES[row.engine]):
            continue
        try:
            classifier = read_classifier(folder)
        except Problem:
            continue
        if same_backbone(classifier.network, row.backbone):
            found.append(Origin(name=folder.name, about=classifier.network, licence=classifier.licence))
    return found


def _checkpoints(row: Network, settings: Settings) -> list[Origin]:
    """Earlier jobs of the same network that have weights, published or the best so far; newest first."""
    found = []
    for place in _with_weights(row.engine, settings):
        if (folder := JobFolder(place)).exists():
            job = folder.job()
            if (job.engine, job.network, job.backbone) == (row.engine, row.network, row.backbone):
                found.append((job.created, _checkpoint(folder, job)))
    return [origin for _, origin in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _with_weights(engine: str, settings: Settings) -> Iterator[Path]:
    """Folders of the jobs that have weights for an engine."""
    checkpoints = str(settings.checkpoints.resolve())
    names = os.listdir(checkpoints) if os.path.isdir(checkpoints) else []  # noqa: PTH112, PTH208  # no Path: for each page of the wizard
    for name in names:
        if not name.startswith(".") and any(os.path.isfile(f"{checkpoints}/{name}/{file}") for file in CHECKPOINT_FILES[engine]):  # noqa: PTH113
            yield Path(checkpoints, name)


def _checkpoint(folder: JobFolder, job: Job) -> Origin:
    if not (folder.model / MODEL_FILE).is_file():
        return Origin(name=folder.name, about=f"not published, trained on {job.dataset}")
    model = read_model(folder.model)
    score = "n/a" if model.scores.mean_iou is None else f"{model.scores.mean_iou:.3f}"
    return Origin(name=folder.name, about=f"mIoU {score} on {job.dataset}: {', '.join(model.classes)}", licence=model.weights_licence)


def _named_folder(request: JobRequest, row: Network, settings: Settings) -> Path:
    classifier = request.weights == "pre_trained_classifier"
    what, root = ("classifier", settings.classifiers) if classifier else ("job", settings.checkpoints)
    origins = _classifiers(row, settings) if classifier else _checkpoints(row, settings)
    known = f"Choose one of: {', '.join(origin.name for origin in origins)}." if origins else "There is none yet for this network."
    if not request.weights_from:
        raise Invalid(f"{request.weights} needs the name of a {what}.", known)
    if request.weights_from in [origin.name for origin in origins]:
        return (root / request.weights_from).resolve()
    if not is_name(request.weights_from) or not (root / request.weights_from).is_dir():
        raise NotFound(f"There is no {what} “{request.weights_from}” to start from.", known)
    if classifier:
        found = read_classifier(root / request.weights_from).network
        if not same_backbone(found, row.backbone):
            raise Invalid(f"The classifier “{request.weights_from}” is a {found}, and {row.key} needs a {row.backbone}.", known)
        raise Invalid(f"The classifier “{request.weights_from}” has no {' or '.join(CLASSIFIER_FILES[row.engine])}.", known)
    raise Invalid(f"The job “{request.weights_from}” is of another network than {row.key}, or has no weights yet.", known)
