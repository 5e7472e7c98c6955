"""What would come of a training: its time, its memory, which classes teach and score, and what keeps it from going well.

Nothing is started and nothing is written. What is an obstacle here must fail; what may only turn out badly is a caution.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from annotations.doctor.findings import Report
from annotations.split import Split
from contracts.errors import Problem
from contracts.events import now
from contracts.hyperparameters import Hyperparameters, heeded_by, read_hyperparameters
from contracts.job import Job, JobRequest
from contracts.networks import Network, find_network
from contracts.room import needed
from docker_sdk_api.jobs import Jobs, refuse_processes
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import Place, place_of, step_bytes
from docker_sdk_api.speed import Speed, Speeds, training_seconds
from docker_sdk_api.weights import check_weights

SURE = 0.6
"""Of the memory that is reckoned: where even this is not free, a step cannot fit."""
SPARE = 0.8
"""Of the free memory a training takes at most: training_api/engines/pytorch_memory.py refuses more on a processor."""
LISTED = 5
"""Classes that are named in one sentence."""


class Remark(BaseModel):
    """Something that keeps a training from starting or from going well, at the field that it is about."""

    field: str
    cause: str
    cure: str


class ClassSides(BaseModel):
    """In how many pictures a class is shown: of those that teach, and of those that score."""

    name: str
    training: int
    validation: int


class Forecast(BaseModel):
    """`seconds` of the whole training and of one epoch, None where nothing says; `basis`: what they come from. Memory in bytes:
    what one step takes, None where nobody counted, and what is free where it would run."""

    seconds: float | None = None
    epoch_seconds: float | None = None
    basis: str = ""
    memory: int | None = None
    memory_free: int = 0
    classes: list[ClassSides] = []
    obstacles: list[Remark] = []
    cautions: list[Remark] = []


def forecast(request: JobRequest, folder: Path, jobs: Jobs, speeds: Speeds) -> Forecast:
    """Raises Invalid where the request names a network or a setting that there is not: then there is nothing to look at."""
    network = find_network(request.engine, request.network, request.backbone)
    settings = read_hyperparameters(request.hyperparameters, network.defaults, request.engine)
    machine, report = describe_machine(jobs.settings, jobs.launcher), jobs.check(folder)
    place = place_of(machine, request.gpus)
    given = request.model_dump(exclude={"hyperparameters"})
    job = Job(**given, dataset_folder=folder, created=now(), hyperparameters=settings)
    found = Forecast(memory_free=place.memory, obstacles=list(_refusals(request, job, network, report, jobs, machine)))
    narrow = settings.precision in ("bfloat16", "float16") or (settings.precision == "auto" and bool(place.gpu or machine["bfloat16"]))
    if not report.errors and len(report.pairs) > 1:
        split = report.split_for(request.validation_share, request.seed)
        found.classes = class_sides(report, split)
        _judge_classes(found)
        _reckon_time(found, job, split, speeds.of(network, place, narrow))
    if request.engine != "majority":
        _reckon_memory(found, job, network, place, narrow)
    need = needed(network, settings)
    if machine["disk_free"] < need:
        cause = f"Weights and previews need about {need / 1e6:.0f} MB of disk, and {machine['disk_free'] / 1e6:.0f} MB are free."
        found.obstacles.append(Remark(field="network", cause=cause, cure="Make room where the checkpoints lie, or take a smaller network."))
    return found


def class_sides(report: Report, split: Split) -> list[ClassSides]:
    """For every class that some mask shows, how many pictures of each side show it."""
    shown = {pair.stem: set(pair.classes) for pair in report.pairs}
    return [
        ClassSides(
            name=name,
            training=sum(index in shown.get(stem, ()) for stem in split.training),
            validation=sum(index in shown.get(stem, ()) for stem in split.validation),
        )
        for index, name in enumerate(report.classes)
        if any(index in classes for classes in shown.values())
    ]


def _refusals(request: JobRequest, job: Job, network: Network, report: Report, jobs: Jobs, machine: dict[str, Any]) -> Iterator[Remark]:
    """What starting the job would refuse, each at its field."""
    state = next(state for state in machine["engines"] if state["engine"] == request.engine)
    if not state["available"]:
        cause = f"The engine {request.engine} is not available. {state['cause']}"
        yield Remark(field="network", cause=cause, cure=state["cure"])
    missing = sorted(set(request.gpus) - {gpu["id"] for gpu in machine["gpus"]})
    if missing:
        cause = f"There is no GPU {', '.join(map(str, missing))} on this machine."
        yield Remark(field="gpus", cause=cause, cure="Choose the processor, or a GPU that is there.")
    if not report.errors and len(report.pairs) < 2:
        yield Remark(field="dataset", cause="There are not two pictures with masks.", cure="Add more: one teaches, one scores.")
    checks: list[tuple[str, Callable[[], object]]] = [
        ("dataset", report.refuse_errors),
        ("crop", lambda: network.refuse_small_crop(job.hyperparameters.crop)),
        ("weights", lambda: check_weights(request, network, jobs.settings)),
        ("processes", lambda: refuse_processes(job)),
    ]
    for field, check in checks:
        try:
            check()
        except Problem as problem:
            yield Remark(field=field, cause=problem.cause, cure=problem.cure)


def _judge_classes(found: Forecast) -> None:
    """A class that no picture teaches cannot be learnt; one that next to none scores has a score that says little."""
    things = found.classes[1:] if len(found.classes) > 1 else found.classes
    untaught = [row.name for row in things if not row.training]
    unscored = [row.name for row in things if not row.validation]
    by_one = [row.name for row in things if row.validation == 1]

    def say(kind: list[Remark], cause: str) -> None:
        cure = "Choose another share or another seed on the first step, or label more pictures that show it."
        kind.append(Remark(field="validation", cause=cause, cure=cure))

    if untaught:
        say(found.obstacles, f"No picture that teaches shows {_list(untaught)}: it would be scored, and cannot be learnt.")
    if things and len(unscored) == len(things):
        nothing = f"No picture that scores shows anything but {found.classes[0].name}"
        say(found.obstacles, f"{nothing}: nothing would tell good weights from bad ones.")
    elif unscored:
        say(found.cautions, f"No picture that scores shows {_list(unscored)}: nothing would say how well it was learnt.")
    if by_one:
        say(found.cautions, f"One picture alone scores {_list(by_one)}: the IoU will say more of that picture than of the model.")


def _reckon_time(found: Forecast, job: Job, split: Split, speed: Speed) -> None:
    found.basis = speed.basis
    if speed.seconds is None:
        return
    shared = len(job.gpus) or 1  # processes on one processor share it
    seconds = training_seconds(speed.seconds, job.hyperparameters, len(split.training), len(split.validation)) / shared
    found.seconds, found.epoch_seconds = seconds, seconds / job.hyperparameters.epochs


def _reckon_memory(found: Forecast, job: Job, network: Network, place: Place, narrow: bool) -> None:
    settings = job.hyperparameters
    each = -(-settings.batch_size // job.together)
    at_once = -(-each // settings.accumulate)
    shared = 1 if job.gpus else job.together  # processes on one processor share its memory
    need = step_bytes(network, settings.crop, at_once, narrow) * shared
    least = step_bytes(network, settings.crop, 1, narrow) * shared
    found.memory = round(need) if network.kept else None
    spare = place.memory if place.gpu else place.memory * SPARE
    if least * SURE > spare:
        cause = f"Not even one crop of {settings.crop} × {settings.crop} pixels fits: it needs about {_gigabytes(least)}, {_free(place)}."
        found.obstacles.append(Remark(field="crop", cause=cause, cure="Choose a smaller crop, or a lighter network."))
    elif need * SURE > spare and not settings.fit_memory:
        found.obstacles.append(_too_many(settings, need, place, job.engine))
    elif need > spare and not settings.fit_memory:
        found.cautions.append(_too_many(settings, need, place, job.engine))


def _too_many(settings: Hyperparameters, need: float, place: Place, engine: str) -> Remark:
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    cause = f"{settings.batch_size} crops of {settings.crop} × {settings.crop} pixels{parts} need about {_gigabytes(need)}, {_free(place)}."
    by_parts = engine in heeded_by("fit_memory")
    cure = "Switch on fit_memory: it takes the batch in parts and learns the same." if by_parts else "Choose a smaller batch size or crop."
    return Remark(field="batch_size", cause=cause, cure=cure)


def _free(place: Place) -> str:
    return f"and {_gigabytes(place.memory)} are free on {f'the {place.gpu}' if place.gpu else 'this machine'}"


def _list(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more classes" if more > 0 else "")


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
