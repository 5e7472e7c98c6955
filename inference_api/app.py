"""The app of inference_api: settings in, routes out."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from contracts.errors import Invalid, Problem
from inference_api.routes import routes
from inference_api.settings import Settings
from inference_api.store import Store


def create_app(settings: Settings) -> FastAPI:
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    app = FastAPIOffline(title="Maskwright: inference", version="0.1.0")
    app.state.settings = settings
    app.state.store = Store(settings.checkpoints.resolve(), settings.models_in_memory)
    app.include_router(routes)

    @app.exception_handler(Problem)
    async def say(_: Request, problem: Problem) -> JSONResponse:
        return JSONResponse(problem.as_dict(), problem.status)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        problem = Invalid(f"{first['loc'][-1]}: {first['msg']}.", "See /docs for what this route takes.")
        return JSONResponse(problem.as_dict(), problem.status)

    return app
