"""/v1/uploads: files into the machine, in pieces, and on from where they broke off."""

from contextlib import closing, suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from docker_sdk_api.uploads import Landing, UploadRequest, Uploads, UploadView

routes = APIRouter(prefix="/v1/uploads", tags=["datasets"])
PIECE = 2**20
"""Bytes that are gathered before they are written: all that is ever in memory of an upload."""


def _uploads(request: Request) -> Uploads:
    uploads: Uploads = request.app.state.uploads
    return uploads


@routes.post("", status_code=201)
def create(request: Request, wish: UploadRequest) -> UploadView:
    """Announce files by name and size; then send each to its number."""
    return _uploads(request).create(wish)


@routes.get("/{id}")
def show(request: Request, id: str) -> UploadView:
    """How much of each file is there."""
    return _uploads(request).view(id)


@routes.put(
    "/{id}/files/{index}",
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def send(request: Request, id: str, index: int, offset: Annotated[int, Query(ge=0)] = 0) -> dict[str, int]:
    """A file's bytes from `offset` on, as many as there are in the body. 409: `received` is where to go on."""
    landing = await run_in_threadpool(_uploads(request).land, id, index, offset)
    with closing(landing):
        await _write(request, landing)
    return {"received": landing.received}


@routes.delete("/{id}", status_code=204)
def delete(request: Request, id: str) -> Response:
    _uploads(request).delete(id)
    return Response(status_code=204)


async def _write(request: Request, landing: Landing) -> None:
    """What came before a connection broke off is kept: on a bad line, that is how an upload ever ends."""
    gathered = bytearray()
    with suppress(ClientDisconnect):
        async for piece in request.stream():
            gathered += piece
            if len(gathered) >= PIECE:
                await run_in_threadpool(landing.write, bytes(gathered))
                gathered.clear()
    await run_in_threadpool(landing.write, bytes(gathered))
