"""What would come of a training: its time, its memory, which classes teach and score, and what keeps it from going well.

Nothing is started and nothing is written. What is an obstacle here must fail; what may only turn out badly is a caution.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from annotations.doctor.findings import Report
from annotations.split import Split
from contracts.answers import ClassSides, Forecast, Remark, Speed
from contracts.errors import Problem
from contracts.hyperparameters import Hyperparameters, heeded_by
from contracts.job import Job, JobRequest
from contracts.networks import Network, find_network
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import Place, place_of, step_bytes
from docker_sdk_api.speed import Speeds, job_seconds

SURE = 0.6
"""Of the memory that is reckoned: where even this is not free, a step cannot fit."""
SPARE = 0.8
"""Of the free memory a training takes at most: training_api/engines/pytorch_memory.py refuses more on a processor."""
LISTED = 5
"""Classes that are named in one sentence."""


def forecast(request: JobRequest, folder: Path, jobs: Jobs, speeds: Speeds) -> Forecast:
    """Raises Invalid where the request names a network or a setting that there is not: then there is nothing to look at."""
    job, checks = jobs.check_request(request, folder)
    settings, network = job.hyperparameters, find_network(job.engine, job.network, job.backbone)
    machine, report = describe_machine(jobs.settings, jobs.launcher), jobs.check(folder)
    place = place_of(machine, request.gpus)
    found = Forecast(memory_free=place.memory, obstacles=list(_refusals(checks)))
    if machine.launcher == "ray" and request.nodes > machine.nodes:
        there = f"{machine.nodes} {'lives' if machine.nodes == 1 else 'live'}"
        cause = f"It will wait: {request.nodes} nodes are to learn together, and {there} in the cluster now."
        found.cautions.append(Remark(field="nodes", cause=cause, cure="Choose fewer nodes, or let more machines join."))
    narrow = settings.precision in ("bfloat16", "float16") or (settings.precision == "auto" and bool(place.gpu or machine.bfloat16))
    if not report.errors and len(report.pairs) > 1:
        split = report.split_for(request.validation_share, request.seed)
        found.classes = class_sides(report, split)
        _judge_classes(found)
        _reckon_time(found, job, split, speeds.of(network, place, narrow))
    if request.engine != "majority":
        _reckon_memory(found, job, network, place, narrow)
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


def _refusals(checks: list[tuple[str, Callable[[], object]]]) -> Iterator[Remark]:
    """What starting the job would refuse, each at its field."""
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
    seconds = job_seconds(speed.seconds, job, split)
    found.seconds, found.epoch_seconds = seconds, seconds / job.hyperparameters.epochs


def _reckon_memory(found: Forecast, job: Job, network: Network, place: Place, narrow: bool) -> None:
    settings = job.hyperparameters
    each = -(-settings.batch_size // (job.together * job.nodes))
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
