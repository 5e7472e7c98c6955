"""/v1/models/import: a model's zip, of this product or of the GluonCV training GUI."""

import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse

from annotations.archives import Limits
from docker_sdk_api.artefacts import import_model, legal_name
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.settings import Settings

routes = APIRouter(prefix="/v1/models", tags=["models"])
CHUNK = 2**20


@routes.post("/import", status_code=201, responses={202: {"description": "A job of the name in `job` converts it."}})
def import_(
    request: Request,
    file: Annotated[UploadFile, File(description="The model's zip.")],
    name: Annotated[str, Form(description="Another name than its own.")] = "",
) -> JSONResponse:
    """201 with `model`: it is there. 202 with `job`: it is there when that job has finished."""
    settings: Settings = request.app.state.settings
    jobs: Jobs = request.app.state.jobs
    with tempfile.TemporaryDirectory(prefix=".upload-", dir=settings.checkpoints) as work:
        named = legal_name(Path((file.filename or "").replace("\\", "/")).stem)
        archive = Path(work) / f"{named or 'model'}.zip"
        with archive.open("wb") as sink:
            while part := file.file.read(CHUNK):
                sink.write(part)
        imported = import_model(jobs, archive, name, Limits(total=settings.largest_unpacked, ratio=settings.largest_unpacked_ratio))
    return JSONResponse({"model": imported.name}, 201) if imported.ready else JSONResponse({"job": imported.name}, 202)
