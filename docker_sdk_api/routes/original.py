"""The routes of the GluonCV training GUI's docker_sdk_api, so that its clients need no change: docs/old-clients.md.

A job that such a client starts waits for it on a port of its own (training_api/original.py), and stays in its list until it is
closed there with /jobs/stop, as it did: that list is where those clients offer logs and downloads.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from annotations.dataset import read_classes
from contracts.errors import NotFound, Unavailable
from contracts.job import JobRequest
from contracts.model import Model
from contracts.networks import CATALOGUE
from contracts.original import BACKBONES, ENGINE, NETWORKS, DatasetName, JobName, JobStart, envelope, gpus_of, read_body
from contracts.weights import CHECKPOINT_FILES, CLASSIFIER_FILES, GLUON_ZOO, read_classifier
from docker_sdk_api.datasets import Datasets
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers.alike import log_lines
from docker_sdk_api.machine import list_gpus
from docker_sdk_api.routes.models import pack

routes = APIRouter(tags=["the original's"])
PATIENCE, LOOK = 30.0, 0.1
"""Seconds in which a job's own API must answer, or a job end that was stopped, and between two looks."""
MB = 2**20
Route = TypeVar("Route", bound=Callable[..., Any])
Kind = TypeVar("Kind", bound=BaseModel)


def _route(method: str, path: str, body: type[BaseModel] | None = None) -> Callable[[Route], Route]:
    """With and without a slash at the end, as clients call it."""
    sent = {"requestBody": {"content": {"application/json": {"schema": body.model_json_schema()}}}} if body else None

    def add(function: Route) -> Route:
        routes.add_api_route(path, function, methods=[method], openapi_extra=sent)
        routes.add_api_route(f"{path}/", function, methods=[method], include_in_schema=False)
        return function

    return add


def _body(kind: type[Kind]) -> Callable[[Request], Any]:
    async def read(request: Request) -> Kind:
        return read_body(kind, await request.body())

    return read


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _datasets(request: Request) -> Datasets:
    datasets: Datasets = request.app.state.datasets
    return datasets


@_route("GET", "/dataset")
def datasets(request: Request) -> list[str]:
    return _datasets(request).names()


@_route("POST", "/dataset/validate", DatasetName)
def validate(request: Request, wish: Annotated[DatasetName, Depends(_body(DatasetName))]) -> dict[str, Any]:
    """The full check; 400 with its first errors where the dataset cannot be trained on."""
    report = _datasets(request).check(_datasets(request).path(wish.dataset_name))
    report.refuse_errors()
    return envelope(f"{report.pictures} sound pictures, {len(report.classes)} classes.")


@_route("POST", "/dataset/classes", DatasetName)
def classes(request: Request, wish: Annotated[DatasetName, Depends(_body(DatasetName))]) -> dict[str, Any]:
    names = read_classes(_datasets(request).path(wish.dataset_name))
    return {"dataset_name": wish.dataset_name, "num_classes": len(names), "classes": names}


@_route("GET", "/infrastructure/gpu/info")
def gpus(request: Request) -> dict[str, str]:
    """What can be trained on, by id; -1 is the CPU."""
    found = {
        str(gpu.id): f"GPU {gpu.id} - {gpu.name} - Available Memory: {gpu.memory_free // MB}MB/{gpu.memory_total // MB}MB"
        for gpu in list_gpus(request.app.state.settings, _jobs(request).launcher)
    }
    return {**found, "-1": "CPU"}


@_route("GET", "/infrastructure/used/ports")
def used_ports(request: Request) -> list[str]:
    """Also those of jobs that wait for their client."""
    jobs = _jobs(request)
    waiting = [job.api_port for job in jobs.all() if job.api_port and job.waiting and not jobs.status(job.name).ended_already]
    return sorted(map(str, {*jobs.launcher.used_ports(), *waiting}), key=int)


@_route("GET", "/jobs")
def running(request: Request) -> list[str]:
    """The jobs that run, and those that an old client started and has not closed yet."""
    jobs = _jobs(request)
    return [job.name for job in jobs.all() if not _closed(jobs, job.name, job.api_port)]


def _closed(jobs: Jobs, name: str, api_port: int | None) -> bool:
    if not jobs.status(name).ended_already:
        return False
    return api_port is None or jobs.folder(name).asked_to_stop() is not None


@_route("POST", "/jobs/start", JobStart)
def start(request: Request, wish: Annotated[JobStart, Depends(_body(JobStart))]) -> dict[str, Any]:
    """A job that waits on `api_port` for its client to say what to train; its API answers when this does."""
    jobs = _jobs(request)
    # What it will train is not known yet. What is known already, such as the dataset, is checked by starting with something.
    asked = JobRequest(
        name=wish.name, dataset=wish.dataset_name, engine=ENGINE, network=NETWORKS[0], backbone=BACKBONES[0], gpus=gpus_of(wish.gpus)
    )
    jobs.start(asked, _datasets(request).path(wish.dataset_name), api_port=wish.api_port)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        status = jobs.status(wish.name)
        if status.ended_already:
            raise Unavailable(status.cause or "The job was stopped.", status.cure or "Start it again.")
        if status.stage != "starting":
            return envelope("Container Started")
        time.sleep(LOOK)
    raise Unavailable(f"The job “{wish.name}” does not answer yet.", "Ask its /health/ in a minute; its log says more.")


@_route("POST", "/jobs/stop", JobName)
def stop(request: Request, wish: Annotated[JobName, Depends(_body(JobName))]) -> dict[str, Any]:
    """Stop a job, without a model; one that has ended keeps what it has, and leaves the list of running ones."""
    jobs = _jobs(request)
    if jobs.status(wish.name).ended_already:
        jobs.folder(wish.name).ask_to_stop(keep_best=False)
        return envelope("Job Closed")
    jobs.stop(wish.name, keep_best=False)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not jobs.status(wish.name).ended_already:
        time.sleep(LOOK)
    return envelope("Job Killed")


@_route("POST", "/jobs/container/logs", JobName)
def logs(request: Request, wish: Annotated[JobName, Depends(_body(JobName))]) -> list[str]:
    """Everything that a job printed so far."""
    return list(log_lines(_jobs(request).folder(wish.name)))


@_route("GET", "/jobs/container/finished")
def finished(request: Request) -> list[str]:
    """The jobs that ended with a model."""
    jobs = _jobs(request)
    return [name for name in jobs.names() if jobs.status(name).state == "finished"]


@_route("GET", "/models/architecture")
def architecture() -> dict[str, list[str]]:
    there = [row for row in CATALOGUE if row.engine == ENGINE]
    return {
        "networks": [name for name in NETWORKS if any(row.network == name for row in there)],
        "backbones": [name for name in BACKBONES if any(row.backbone == name for row in there)],
    }


@_route("GET", "/models/architecture/pretrained_networks")
def pretrained_networks() -> dict[str, list[str]]:
    return {"pretrained_networks": [name for name in GLUON_ZOO if name.startswith(NETWORKS)]}


@_route("GET", "/models/checkpoints")
def checkpoints(request: Request) -> dict[str, str]:
    """Earlier trainings of GluonCV's networks that have weights, each with its network and backbone."""
    jobs = _jobs(request)
    weighed = [job for job in jobs.all() if any((jobs.folder(job.name).path / file).is_file() for file in CHECKPOINT_FILES[ENGINE])]
    return {job.name: f"{job.network}_{job.backbone}" for job in weighed if job.engine == ENGINE}


@_route("GET", "/models/classifiers")
def classifiers(request: Request) -> dict[str, str]:
    """Classifiers whose backbone a network can start from, each with its network."""
    root = _jobs(request).settings.classifiers
    folders = sorted(root.iterdir()) if root.is_dir() else []
    sound = [folder for folder in folders if (folder / CLASSIFIER_FILES[ENGINE][0]).is_file() and (folder / "config.json").is_file()]
    return {folder.name: read_classifier(folder).network for folder in sound}


@_route("GET", "/models/downloadable")
def downloadable(request: Request) -> dict[str, str]:
    """The zips of all models, each with its folder under /models_services/."""
    return {f"{model.name}.zip": _folder(model) for model in request.app.state.models.all()}


@routes.get("/models_services/{folder}/{file}", response_class=StreamingResponse)
def download(request: Request, folder: str, file: str) -> StreamingResponse:
    jobs = _jobs(request)
    if downloadable(request).get(file) != folder:
        raise NotFound(f"There is no {folder}/{file}.", "GET /models/downloadable says what there is.")
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    content = pack(jobs.model_folder(file.removesuffix(".zip")))
    return StreamingResponse(content, media_type="application/zip", headers=headers)


def _folder(model: Model) -> str:
    return f"{model.network}_{model.backbone}"
