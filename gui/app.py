"""The pages as an app: routes, one answer to every problem, and what the browser may load."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from contracts.bodies import WORDS, BodyLimit
from contracts.doors import Doors, Failures
from contracts.errors import Invalid, NotFound, NoToken, Problem
from contracts.metrics import Counted, Metrics
from contracts.tokens import Who
from contracts.traffic import Traffic
from gui import compare, datasets, jobs, login, machine, models, queue, start, tokens, trying, uploads, wizard
from gui.backend import Backend
from gui.guard import POLICY, Guard
from gui.pages import FOLDER, build_templates, page
from gui.settings import Settings

FOR_PROGRAMS = {"ready", "predict", "new_upload", "upload", "forget_upload", "upload_chunk"}
"""Routes that scripts and programs ask; their problems are JSON."""


def create_app(settings: Settings, backend: Backend | None = None) -> FastAPI:
    """The pages over the APIs that the settings name, or over a backend that is given (tests mount the APIs in process)."""
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, settings.largest_picture)  # Pillow's own guard is one for the process
    urls = (settings.docker_sdk_api_url, settings.inference_api_url)
    asks = backend or Backend.at(*urls, settings.token, settings.api_certificate)
    app = FastAPI(title="Maskwright", lifespan=_closing(asks), docs_url=None, redoc_url=None, openapi_url=None)
    app.state.backend, app.state.settings, app.state.templates, app.state.shapes = asks, settings, build_templates(), {}
    app.state.failures, app.state.metrics = Failures(), Metrics()
    first = (start, login, tokens, machine)
    for module in (*first, uploads, datasets, wizard, jobs, queue, compare, models, trying):  # /datasets/new before /datasets/{name}
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_odd)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)

    async def find(token: str) -> Who | None:
        return await login.find_who(asks, settings.token, token)

    cure = "Send smaller files, or fewer at a time."
    app.add_middleware(BodyLimit, limits=_limits(settings), cure=cure, refuse=login.turn_away)
    app.add_middleware(Traffic, settings=settings, refuse=login.turn_away)
    app.add_middleware(Doors, settings=settings, find=find, refuse=login.turn_away, policy=POLICY)
    app.add_middleware(Counted, metrics=app.state.metrics)
    app.add_middleware(Guard, root_path=settings.root_path)
    return app


def _limits(settings: Settings) -> list[tuple[str, int | None]]:
    """Bytes that a request may have; what is passed on as it comes has its limit where it ends."""
    sent = f"(PUT|POST) (/{re.escape(settings.root_path.strip('/'))})?"
    passed_on = f"{sent}/(uploads(/[^/]+/files/[^/]+)?|models/import|models/[^/]+/predict(/batch)?)"
    kept = [(f"{sent}/datasets/new", settings.largest_dataset_upload), (f"{sent}/models/[^/]+/try", settings.largest_upload)]
    return [(passed_on, None), *kept, (".*", WORDS)]


def _closing(backend: Backend) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await backend.close()

    return lifespan


async def _answer_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    if getattr(request.scope.get("route"), "name", "") in FOR_PROGRAMS:
        return JSONResponse(problem.as_dict(), problem.status, problem.headers)
    if isinstance(problem, NoToken):
        return login.turn_away(request.scope, problem)
    return page(request, "problem.html", {"problem": problem}, problem.status)


async def _answer_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: an address that is not there, a method that it does not take."""
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        problem: Problem = NotFound(f"There is no page {request.url.path}.", "Choose one of the pages on the left.")
    else:
        problem = Invalid(f"This cannot be done: {error.detail.rstrip('.')}.", "Go back, and ask for less or otherwise.")
    return page(request, "problem.html", {"problem": problem}, error.status_code)


async def _answer_odd(request: Request, error: Exception) -> Response:
    """What an address or a form holds that its route does not take."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    cause = f"“{found['loc'][-1]}” cannot be read: {found['msg'][:1].lower()}{found['msg'][1:]}."
    return await _answer_problem(request, Invalid(cause, "Correct the address, or choose one of the pages on the left."))


async def _answer_nobody(_request: Request, _gone: Exception) -> Response:
    """A browser that paused an upload or lost its connection: what it had sent is kept, and nobody reads this."""
    return Response(status_code=400)
