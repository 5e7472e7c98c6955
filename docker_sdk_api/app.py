"""The app of docker_sdk_api: settings in, routes out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import gettempdir
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from annotations.archives import Limits
from contracts.audit import PREDICTIONS, Audit
from contracts.bodies import WORDS, BodyLimit
from contracts.doors import Doors
from contracts.errors import Full, Invalid, NotFound, Problem, Unavailable
from contracts.metrics import Counted
from contracts.refusals import REFUSALS
from contracts.room import full, is_full
from contracts.tokens import Tokens
from contracts.traffic import Traffic
from docker_sdk_api.datasets import Datasets
from docker_sdk_api.dispatch import Dispatch
from docker_sdk_api.ends import Ends
from docker_sdk_api.imports import Imports
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers import Launcher
from docker_sdk_api.machine import VERSION, engine_python
from docker_sdk_api.metrics import JobMetrics
from docker_sdk_api.models import Models
from docker_sdk_api.retention import Retention
from docker_sdk_api.routes import (
    artefacts,
    augmented,
    datasets,
    deleted,
    forecast,
    imports,
    jobs,
    machine,
    models,
    original,
    queue,
    recommend,
    retention,
    tokens,
    uploads,
    weights,
)
from docker_sdk_api.settings import Settings
from docker_sdk_api.speed import Speeds
from docker_sdk_api.streams import Watch
from docker_sdk_api.uploads import Uploads


def create_app(settings: Settings) -> FastAPI:
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    app = FastAPIOffline(title="Maskwright: training jobs", version=VERSION, lifespan=_look_after_jobs, responses=REFUSALS)
    app.state.settings = settings
    app.state.datasets = Datasets(settings.datasets.resolve())
    app.state.uploads = Uploads(settings.datasets.resolve(), settings.largest_dataset_upload)
    app.state.watches = WeakValueDictionary[str, Watch]()
    limits = Limits(total=settings.largest_unpacked, ratio=settings.largest_unpacked_ratio)
    app.state.imports = Imports(settings.datasets.resolve(), app.state.uploads, limits)
    app.state.jobs = Jobs(settings, create_launcher(settings), app.state.datasets.check)
    app.state.models = Models(app.state.jobs)
    app.state.speeds = Speeds(app.state.jobs)
    app.state.dispatch = Dispatch(app.state.jobs, app.state.speeds, app.state.datasets.known)
    app.state.retention = Retention(app.state.jobs, app.state.models.deleted)
    data = (artefacts, augmented, datasets, deleted, imports, models, retention, uploads, weights)
    work = (forecast, jobs, machine, original, queue, recommend, tokens)
    for module in (*data, *work):
        app.include_router(module.routes)

    app.include_router(jobs.names)
    app.state.tokens, app.state.audit = Tokens(settings.checkpoints), Audit(settings.checkpoints)
    app.state.predictions = Audit(settings.checkpoints, PREDICTIONS)  # of inference_api, only read here
    app.add_middleware(BodyLimit, limits=_limits(settings), cure="Send less at a time; files have routes of their own, see /docs.")
    app.state.metrics = JobMetrics(app.state.jobs)
    app.add_middleware(Traffic, settings=settings)
    app.add_middleware(Doors, settings=settings, tokens=app.state.tokens, note=app.state.audit.note)
    app.add_middleware(Counted, metrics=app.state.metrics)

    @app.exception_handler(Problem)
    async def say(_: Request, problem: Problem) -> JSONResponse:
        return JSONResponse(problem.as_dict(), problem.status, problem.headers)

    @app.exception_handler(OSError)
    async def say_full(_: Request, error: OSError) -> JSONResponse:
        if not is_full(error, settings.checkpoints):
            raise error
        problem = full(settings.checkpoints)
        return JSONResponse(problem.as_dict(), problem.status)

    @app.exception_handler(HTTPException)
    async def repeat(request: Request, error: HTTPException) -> JSONResponse:
        problem = _of_the_request(request, error)
        status = problem.status if isinstance(problem, Full) else error.status_code
        return JSONResponse(problem.as_dict(), status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "header", "path"))
        problem = Invalid(f"{place or 'The request'}: {first['msg']}.", "See /docs for what this route takes.")
        return JSONResponse(problem.as_dict(), problem.status)

    return app


def _limits(settings: Settings) -> list[tuple[str, int | None]]:
    """Bytes that a request may have."""
    return [
        ("PUT /v1/uploads/[^/]+/files/[^/]+", None),  # as many as were announced, and written as they come
        ("POST /v1/uploads", 16 * WORDS),  # the names of all files
        ("POST /v1/models/import", settings.largest_dataset_upload),
        (".*", WORDS),
    ]


def _of_the_request(request: Request, error: HTTPException) -> Problem:
    """What the framework itself refuses, in the words of everything else."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"There is nothing at {request.url.path}.", "See /docs for what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Invalid(f"{request.url.path} does not take {request.method}.", "See /docs for what it takes.")
    if is_full(error, aside := Path(gettempdir())):  # where a form's files lie until they are looked at
        return full(aside)
    return Invalid(f"The request cannot be read ({str(error.detail).rstrip('.')}).", "See /docs for what this route takes.")


@asynccontextmanager
async def _look_after_jobs(app: FastAPI) -> AsyncIterator[None]:
    with app.state.dispatch.launching(), Ends(app.state.jobs).looking(), app.state.retention.looking():
        yield


def create_launcher(settings: Settings) -> Launcher:
    """The launcher that the settings ask for; what the container and the Ray launcher need is imported only then."""
    if settings.launcher == "container":
        from docker_sdk_api.launchers.container import create_container_launcher

        return create_container_launcher(settings.checkpoints.resolve(), settings.images_arch)
    pythons = {engine: engine_python(settings, engine) for engine in ("pytorch", "gluon", "majority")}
    if settings.launcher == "ray":
        from docker_sdk_api.launchers.ray import RayLauncher
        from docker_sdk_api.launchers.ray_head import Head

        ray = (settings.checkpoints.resolve(), pythons, Head(settings.ray_address), settings.ray_python, settings.ray_cpus)
        if settings.store:
            try:
                from docker_sdk_api.launchers.store import StoreLauncher
            except ModuleNotFoundError as error:
                cure = "Install build/requirements/store.txt beside docker_sdk_api, or leave STORE empty."
                raise Unavailable(f"STORE is set, and the package {error.name} is not installed.", cure) from error

            return StoreLauncher(*ray, store=settings.store)
        return RayLauncher(*ray)
    from docker_sdk_api.launchers.process import ProcessLauncher

    return ProcessLauncher(settings.checkpoints.resolve(), pythons)
