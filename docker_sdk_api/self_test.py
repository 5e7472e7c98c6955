"""The self-test: a real job that trains a tiny model on the dummy dataset, and what has come of it, step by step."""

import itertools
import math
from contextlib import suppress
from pathlib import Path

from annotations.dummy import draw_dummy_dataset
from contracts.answers import Step
from contracts.errors import Invalid, Unavailable
from contracts.job import JobRequest, JobStatus, JobView
from contracts.job_folder import JobFolder, folder_aside
from contracts.model import Model, read_model
from contracts.networks import CATALOGUE, ENGINES, Network
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import list_engines

DATASET = "dummy_dataset"
NAME = "self-test"
TINY = {"epochs": 1, "short_side": 96, "crop": 64, "batch_size": 4, "crops_per_picture": 1}


def start_self_test(jobs: Jobs, engine: str = "") -> JobView:
    """Start the job; of the first engine that can run here where none is named. Raises Problem where it cannot even be started."""
    network = lightest(engine or _first_engine(jobs))
    folder = _dataset(jobs.settings.datasets)
    taken = set(jobs.names())
    request = JobRequest(
        name=next(name for number in itertools.count(1) if (name := f"{NAME}-{number}") not in taken),
        dataset=DATASET,
        engine=network.engine,
        network=network.network,
        backbone=network.backbone,
        hyperparameters={"epochs": 1} if network.engine == "majority" else TINY,
    )
    return jobs.start(request, folder.resolve())


def lightest(engine: str) -> Network:
    """The network of an engine that learns quickest. Raises Invalid for an engine that there is not."""
    rows = [row for row in CATALOGUE if row.engine == engine]
    if not rows:
        raise Invalid(f"There is no engine {engine}.", f"There are: {', '.join(ENGINES)}.")
    return min(rows, key=lambda row: row.seconds or math.inf)  # 0: not measured, or nothing to learn


def steps_of(jobs: Jobs, name: str) -> list[Step]:
    """How far a self-test's job has come: its dataset, its training, its model."""
    view = jobs.view(name)
    report = jobs.check(view.job.dataset_folder) if view.job.dataset_folder.is_dir() else None
    drawn = f"{DATASET}: {report.pictures} pictures, {len(report.classes)} classes, sound." if report else f"{DATASET} is gone by now."
    folder = JobFolder(jobs.settings.checkpoints / name)
    return [Step(title="Dataset", state="good", said=drawn), _training(view), _publishing(view, folder)]


def _training(view: JobView) -> Step:
    status, what = view.status, f"{view.job.network}/{view.job.backbone} with the engine {view.job.engine}"
    if status.history:
        last = status.history[-1]
        score = "not scored" if last.mean_iou is None else f"mIoU {last.mean_iou:.3f} (so little learning gives no more)"
        return Step(title="Training", state="good", said=f"{what}: {len(status.history)} epoch in {last.seconds:.1f} s, {score}.")
    if status.ended_already:
        return _broken("Training", status)
    return Step(title="Training", state="running", said=f"{what}: {status.stage}.")


def _publishing(view: JobView, folder: JobFolder) -> Step:
    status, title = view.status, "Model"
    if status.state == "finished":
        model: Model | None = None
        with suppress(FileNotFoundError, ValueError):
            model = read_model(folder.model)
        if model is None:
            return Step(title=title, state="failed", said="The job has finished, and its model is not there.", cure="Test again.")
        same = f"The exported graph gives {model.parity.equal_pixels * 100:.5g} % of the pixels the same class as the engine"
        return Step(title=title, state="good", said=f"{same}, on {model.parity.pictures} pictures.")
    if not status.history:
        return Step(title=title)
    if status.ended_already:
        return _broken(title, status)
    return Step(title=title, state="running", said="It is scored, exported and compared.")


def _broken(title: str, status: JobStatus) -> Step:
    return Step(title=title, state="failed", said=status.cause or "It was stopped.", cure=status.cure or "Test again.")


def _first_engine(jobs: Jobs) -> str:
    states = list_engines(jobs.settings, jobs.launcher)
    ready = next((state.engine for state in states if state.available), None)
    if ready is None:
        raise Unavailable(f"No engine can train here. {states[0].cause}", states[0].cure)
    return ready


def _dataset(datasets: Path) -> Path:
    """The dummy dataset, drawn where it is not there. Raises Unavailable where it can be neither found nor drawn."""
    folder = datasets / DATASET
    if not folder.is_dir():
        try:
            with folder_aside(folder) as aside:
                draw_dummy_dataset(aside)
        except OSError as error:
            raise Unavailable(
                f"The self-test draws the dataset {DATASET}, and the datasets folder cannot be written ({error}).",
                f"Make it writable, or put {DATASET} into it: python -m annotations.dummy FOLDER.",
            ) from error
    return folder
