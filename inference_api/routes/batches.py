"""/v1/batches: many pictures, or a zip of them, answered in the background."""

from typing import Annotated

from fastapi import APIRouter, File, Query, Request, UploadFile
from fastapi.responses import FileResponse

from contracts.doors import note_pictures
from inference_api.answers import Wish
from inference_api.batches import Batch, Batches
from inference_api.routes import REFUSALS

routes = APIRouter(prefix="/v1", tags=["batches"], responses=REFUSALS)


@routes.post("/models/{name}/batches", status_code=202)
def start(
    request: Request,
    name: str,
    picture: Annotated[list[UploadFile], File(description="Pictures, or zip and tar archives of them: the field is repeated.")],
    wish: Annotated[Wish, Query()],
) -> Batch:
    """Take pictures in and answer them when nobody else is waiting. `answer` chooses the PNGs; segments are always there."""
    batch = _batches(request).add(name, picture, wish)
    note_pictures(batch.model, batch.total)
    return batch


@routes.get("/batches")
def list_batches(request: Request) -> list[Batch]:
    """Every batch that is kept, newest first."""
    return _batches(request).all()


@routes.get("/batches/{identifier}")
def show(request: Request, identifier: str) -> Batch:
    """How far a batch is, and which files could not be read."""
    return _batches(request).get(identifier)


@routes.get("/batches/{identifier}/result.zip", response_class=FileResponse)
def fetch(request: Request, identifier: str) -> FileResponse:
    """A PNG for every picture under its name, segments.json, and problems.json where some could not be read."""
    return FileResponse(_batches(request).result(identifier), media_type="application/zip", filename=f"{identifier}.zip")


@routes.delete("/batches/{identifier}", status_code=204)
def remove(request: Request, identifier: str) -> None:
    """Cancel a batch, or delete its result."""
    _batches(request).remove(identifier)


def _batches(request: Request) -> Batches:
    batches: Batches = request.app.state.batches
    return batches
