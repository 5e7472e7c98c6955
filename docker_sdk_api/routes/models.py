"""/v1/models: what was trained, and its download."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, StreamingResponse

from contracts.errors import NotFound
from contracts.model import Model, read_model
from docker_sdk_api.jobs import Jobs

routes = APIRouter(prefix="/v1/models", tags=["models"])
CHUNK = 2**20


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


@routes.get("")
def list_models(request: Request) -> list[Model]:
    """Every published model, newest first."""
    return _jobs(request).models()


@routes.get("/{name}")
def show(request: Request, name: str) -> Model:
    return read_model(_jobs(request).model_folder(name))


@routes.get("/{name}/example", response_class=FileResponse)
def example(request: Request, name: str) -> FileResponse:
    """A validation picture as the model sees it."""
    file = _jobs(request).model_folder(name) / "example.jpg"
    if not file.exists():
        raise NotFound(f"The model “{name}” has no example picture.", "Models of an older version have none.")
    return FileResponse(file)


@routes.get("/{name}/download", response_class=StreamingResponse)
def download(request: Request, name: str) -> StreamingResponse:
    """The model as a zip, packed while it is sent."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(pack(_jobs(request).model_folder(name)), media_type="application/zip", headers=headers)


def pack(folder: Path) -> Iterator[bytes]:
    """A zip of a folder's files in parts, never whole in memory. Weights do not compress, so nothing is compressed."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as source, archive.open(zipfile.ZipInfo.from_file(path, path.name), "w") as entry:
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
