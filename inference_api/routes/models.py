"""/v1/models: which there are, and what each runs on."""

from fastapi import APIRouter, Request
from pydantic import Field

from contracts.model import Model
from inference_api.routes import REFUSALS, store_of

routes = APIRouter(prefix="/v1")


class ModelView(Model):
    """A published model as it is served."""

    runtime: str | None = Field(
        None, description="What it runs on, once it is loaded.", examples=["openvino 2026.4.1, bfloat16, 2 threads"]
    )


@routes.get("/models", tags=["models"])
def list_models(request: Request) -> list[Model]:
    """Every model that can be asked, newest first."""
    return store_of(request).models()


@routes.get("/models/{name}", tags=["models"], responses=REFUSALS)
def show(request: Request, name: str) -> ModelView:
    """A model's classes, scores and geometry; `runtime` is there once it was asked for the first time."""
    store = store_of(request)
    loaded = store.in_memory(name)
    return ModelView(**store.model(name).model_dump(), runtime=None if loaded is None else loaded.runtime)
