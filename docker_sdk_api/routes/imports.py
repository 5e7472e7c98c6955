"""/v1/imports and /v1/formats: uploads and folders on the machine become datasets."""

from fastapi import APIRouter, Request

from annotations import formats
from contracts.answers import ImportView
from docker_sdk_api.imports import ImportRequest, Imports

routes = APIRouter(prefix="/v1", tags=["datasets"])


def _imports(request: Request) -> Imports:
    imports: Imports = request.app.state.imports
    return imports


@routes.get("/formats")
def list_formats() -> list[dict[str, str]]:
    """The formats that are read, each with the name that people know it by."""
    return formats.list_formats()


@routes.get("/imports")
def list_imports(request: Request) -> list[ImportView]:
    """Every import since the service was started, newest first."""
    return _imports(request).views()


@routes.post("/imports", status_code=202)
def start(request: Request, wish: ImportRequest) -> ImportView:
    """Import an upload or a folder in the background."""
    return _imports(request).start(wish)


@routes.get("/imports/{id}")
def show(request: Request, id: str) -> ImportView:
    return _imports(request).view(id)
