"""The app of docker_sdk_api: settings in, routes out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from annotations.archives import Limits
from contracts.errors import Invalid, Problem
from contracts.origins import AllowedOrigins
from docker_sdk_api.datasets import Datasets
from docker_sdk_api.ends import Ends
from docker_sdk_api.imports import Imports
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers import Launcher
from docker_sdk_api.machine import VERSION, engine_python
from docker_sdk_api.models import Models
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
    recommend,
    uploads,
    weights,
)
from docker_sdk_api.settings import Settings
from docker_sdk_api.speed import Speeds
from docker_sdk_api.streams import Watch
from docker_sdk_api.uploads import Uploads


def create_app(settings: Settings) -> FastAPI:
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    app = FastAPIOffline(title="Maskwright: training jobs", version=VERSION, lifespan=_look_after_jobs)
    app.state.settings = settings
    app.state.datasets = Datasets(settings.datasets.resolve())
    app.state.uploads = Uploads(settings.datasets.resolve(), settings.largest_dataset_upload)
    app.state.watches = WeakValueDictionary[str, Watch]()
    limits = Limits(total=settings.largest_unpacked, ratio=settings.largest_unpacked_ratio)
    app.state.imports = Imports(settings.datasets.resolve(), app.state.uploads, limits)
    app.state.jobs = Jobs(settings, create_launcher(settings), app.state.datasets.check)
    app.state.models = Models(app.state.jobs)
    app.state.speeds = Speeds(app.state.jobs)
    data = (artefacts, augmented, datasets, deleted, imports, models, uploads, weights)
    work = (forecast, jobs, machine, original, recommend)
    for module in (*data, *work):
        app.include_router(module.routes)

    app.include_router(jobs.names)
    app.add_middleware(AllowedOrigins, origins=settings.allowed_origins)

    @app.exception_handler(Problem)
    async def say(_: Request, problem: Problem) -> JSONResponse:
        return JSONResponse(problem.as_dict(), problem.status)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "header", "path"))
        problem = Invalid(f"{place or 'The request'}: {first['msg']}.", "See /docs for what this route takes.")
        return JSONResponse(problem.as_dict(), problem.status)

    return app


@asynccontextmanager
async def _look_after_jobs(app: FastAPI) -> AsyncIterator[None]:
    with Ends(app.state.jobs).looking():
        yield


def create_launcher(settings: Settings) -> Launcher:
    """The launcher that the settings ask for; the container launcher's packages are imported only then."""
    if settings.launcher == "container":
        from docker_sdk_api.launchers.container import create_container_launcher

        return create_container_launcher(settings.checkpoints.resolve(), settings.images_arch)
    from docker_sdk_api.launchers.process import ProcessLauncher

    pythons = {engine: engine_python(settings, engine) for engine in ("pytorch", "gluon", "majority")}
    return ProcessLauncher(settings.checkpoints.resolve(), pythons)
