"""/v1/models: what was trained: shown, downloaded, taken out of service and back, deleted and brought back."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from contracts.answers import DeletedJob
from contracts.model import PublishedModel
from contracts.plain import is_plain, open_plain
from docker_sdk_api.models import EXAMPLE, GRAPH, Models
from docker_sdk_api.routes import PlainFile

routes = APIRouter(prefix="/v1", tags=["models"])
CHUNK = 2**20


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


@routes.get("/models")
def list_models(request: Request, limit: Annotated[int | None, Query(ge=0, le=1000)] = None) -> list[PublishedModel]:
    """Every published model, newest first; retired ones too."""
    return _models(request).all(limit)


@routes.get("/models/{name}")
def show(request: Request, name: str) -> PublishedModel:
    return _models(request).one(name)


@routes.get("/models/{name}/pictures")
def pictures(request: Request, name: str) -> list[str]:
    """Stems of the pictures of its dataset that scored it; none where the dataset is not here any more."""
    return _models(request).pictures(name, request.app.state.datasets.folder)


@routes.delete("/models/{name}")
def delete(request: Request, name: str) -> DeletedJob:
    """Move a model aside; its job stays. /v1/deleted-models brings it back, until it goes for good."""
    return _models(request).delete(name)


@routes.post("/models/{name}/retire", status_code=204)
def retire(request: Request, name: str) -> Response:
    """Keep a model, and serve it no longer."""
    _models(request).retire(name)
    return Response(status_code=204)


@routes.post("/models/{name}/publish", status_code=204)
def publish(request: Request, name: str) -> Response:
    """Serve a retired model again."""
    _models(request).publish(name)
    return Response(status_code=204)


@routes.get("/models/{name}/example", response_class=FileResponse)
def example(request: Request, name: str) -> FileResponse:
    """A validation picture as the model sees it."""
    return PlainFile(_models(request).file(name, EXAMPLE), "image/jpeg", headers={"Cache-Control": "private, max-age=60"})


@routes.get("/models/{name}/model.onnx", response_class=FileResponse)
def graph(request: Request, name: str) -> FileResponse:
    """The network alone, in float32, for other programs."""
    return PlainFile(_models(request).file(name, GRAPH), "application/octet-stream", filename=f"{name}.onnx")


@routes.get("/models/{name}/download", response_class=StreamingResponse)
def download(request: Request, name: str) -> StreamingResponse:
    """The model as a zip, packed while it is sent."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(pack(_models(request).folder(name).model), media_type="application/zip", headers=headers)


@routes.get("/deleted-models")
def list_deleted(request: Request) -> list[DeletedJob]:
    """The last one first, each with the moment at which it goes for good."""
    return _models(request).deleted.all()


@routes.post("/deleted-models/{id}/undo")
def undo(request: Request, id: str) -> PublishedModel:
    """Bring a deleted model back as it was."""
    models = _models(request)
    return models.one(models.deleted.bring_back(id))


@routes.delete("/deleted-models/{id}", status_code=204)
def remove(request: Request, id: str) -> Response:
    """Remove a deleted model for good, at once: its disk space is free then."""
    _models(request).deleted.remove(id)
    return Response(status_code=204)


def pack(folder: Path) -> Iterator[bytes]:
    """A zip of a folder's files in parts, never whole in memory. Weights do not compress, so nothing is compressed."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(filter(is_plain, folder.iterdir())):
            with open_plain(path, folder.parent) as source, archive.open(zipfile.ZipInfo.from_file(path, path.name), "w") as entry:
                while part := source.read(CHUNK):
                    entry.write(part)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that zipfile writes to and that is emptied as it fills."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
