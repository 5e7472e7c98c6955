"""The app of inference_api: settings in, routes out."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from contracts.bodies import BodyLimit
from contracts.doors import Doors
from contracts.errors import Full, Invalid, NotFound, Problem
from contracts.metrics import Counted
from contracts.refusals import REFUSALS
from contracts.room import full, is_full
from contracts.tokens import Tokens
from contracts.traffic import Traffic
from inference_api.batches import Batches
from inference_api.metrics import PredictionMetrics
from inference_api.predicted import Predictions
from inference_api.routes import batches, machine, models, original, predict
from inference_api.settings import Settings
from inference_api.store import Store
from inference_api.turns import Turns
from runtimes import count_cores

FILES = frozenset({"picture", "image", "input_data"})
"""Fields that hold a file, whichever route."""


def create_app(settings: Settings) -> FastAPI:
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    # Pillow's own guard is one number for the process. The settings' is asked before anything is decoded.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, settings.largest_picture)
    app = FastAPIOffline(title="Maskwright: inference", version="0.1.0", lifespan=_working, responses=REFUSALS)
    app.state.settings = settings
    app.state.store = Store(settings.checkpoints.resolve(), settings.memory_for_models, settings.runtime, settings.precision)
    app.state.large_pictures = threading.Lock()
    app.state.turns = Turns(settings.predictions_at_once or max(2, count_cores()), settings.queue)
    app.state.batches = Batches(settings, app.state.store, app.state.turns, app.state.large_pictures)
    app.state.metrics = PredictionMetrics(app.state.turns, app.state.store)
    for module in (machine, models, predict, batches, original):
        app.include_router(module.routes)
    largest = [(".*", settings.largest_upload)]
    app.add_middleware(BodyLimit, limits=largest, cure="Send a smaller picture, or fewer at a time.", refuse=_refused)
    app.add_middleware(Traffic, settings=settings, refuse=_refused)
    app.state.predictions = Predictions(settings.checkpoints)
    app.add_middleware(Doors, settings=settings, tokens=Tokens(settings.checkpoints), note=app.state.predictions.note)
    app.add_middleware(Counted, metrics=app.state.metrics)

    @app.exception_handler(Problem)
    async def say(request: Request, problem: Problem) -> JSONResponse:
        return refusal(request.url.path, problem, problem.status)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        problem = _of_a_field(error.errors()[0])
        return refusal(request.url.path, problem, problem.status)

    @app.exception_handler(HTTPException)
    async def repeat(request: Request, error: HTTPException) -> JSONResponse:
        problem = _of_the_request(request, error)
        status = problem.status if isinstance(problem, Full) else error.status_code
        return refusal(request.url.path, problem, status, error.headers)

    return app


@asynccontextmanager
async def _working(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.batches.working():
        yield
    app.state.predictions.write()


def refusal(path: str, problem: Problem, status: int, headers: Any = None) -> JSONResponse:
    """An answer that says what is wrong, in the form that the path's clients know."""
    body = original.envelope(error=str(problem)) if original.asked_the_original(path) else problem.as_dict()
    return JSONResponse(body, status, {**(headers or {}), **problem.headers})


def _refused(scope: Any, problem: Problem) -> ASGIApp:
    return refusal(scope["path"], problem, problem.status)


def _of_a_field(error: dict[str, Any]) -> Problem:
    field = str(error["loc"][-1])
    if "body" in error["loc"] and FILES.intersection(map(str, error["loc"])):
        return Invalid(f"The request's form has no file “{field}”.", f"Send it as a file of a form: curl -F {field}=@photo.jpg.")
    return Invalid(f"{field}: {error['msg']}.", "See /docs for what this route takes.")


def _of_the_request(request: Request, error: HTTPException) -> Problem:
    said = str(error.detail).rstrip(".")
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"There is nothing at {request.url.path}.", "See /docs for what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Invalid(f"{request.url.path} does not take {request.method}.", "See /docs for what it takes.")
    if is_full(error, aside := Path(gettempdir())):  # where a form's files lie until they are looked at
        return full(aside)
    return Invalid(f"The request cannot be read ({said}).", "Send a multipart form with the picture as a file: curl -F picture=@photo.jpg.")
