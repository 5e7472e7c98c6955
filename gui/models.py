"""Models: what has been published, its download, and trying one on a picture of one's own."""

import base64
import io
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from PIL import Image
from starlette.datastructures import UploadFile

from annotations.colours import class_colours
from annotations.dataset import as_rgb
from contracts.errors import Invalid, Problem
from contracts.model import Model
from gui.backend import Asks, Backend
from gui.pages import page
from gui.start import last_sheets

router = APIRouter(prefix="/models", include_in_schema=False)
LONGEST_SIDE = 2400
"""Pictures are shown no larger than this; the figures are of the whole picture."""


@router.get("", name="models")
async def models(request: Request, backend: Asks) -> HTMLResponse:
    return page(request, "models.html", {"models": await backend.models(), "sheets": last_sheets(await backend.jobs())})


@router.get("/{name}", name="model")
async def model(request: Request, backend: Asks, name: str) -> HTMLResponse:
    found = await backend.model(name)
    return page(request, "model.html", {"model": found, "sheets": last_sheets(await backend.jobs())})


@router.get("/{name}/download", name="download")
async def download(backend: Asks, name: str) -> Response:
    return await backend.pass_on(f"/v1/models/{quote(name, safe='')}/download")


@router.post("/{name}/predict", name="predict")
async def predict(request: Request, backend: Asks, name: str) -> Response:
    """The inference API's own answer, for programs that know the pages' address alone."""
    return await backend.pass_on_predict(name, request)


@router.get("/{name}/try", name="try_model")
async def choose_picture(request: Request, backend: Asks, name: str) -> HTMLResponse:
    return await _try_page(request, backend, await backend.model(name))


@router.post("/{name}/try", name="try_picture")
async def try_picture(request: Request, backend: Asks, name: str) -> HTMLResponse:
    """The same page with its answer; the picture is kept nowhere."""
    found = await backend.model(name)
    try:
        async with request.form(max_files=1) as form:
            seen = await see(backend, found, form.get("picture"))
    except Problem as problem:
        return await _try_page(request, backend, found, problem=problem, status=problem.status)
    return await _try_page(request, backend, found, seen=seen)


async def see(backend: Backend, model: Model, upload: Any) -> dict[str, Any]:
    """What the model sees in an uploaded picture: picture and overlay as data URLs, and the classes in figures."""
    if not isinstance(upload, UploadFile) or not upload.filename:
        raise Invalid("No picture was chosen.", "Choose a picture file, then ask again.")
    content = await upload.read()
    segments = await backend.predict_segments(model.name, content, upload.filename)
    mask = await backend.predict_mask(model.name, content, upload.filename)
    return {
        "file": upload.filename,
        "width": segments.width,
        "height": segments.height,
        "picture": shown_picture(content),
        "overlay": shown_mask(mask, len(model.classes)),
        "shares": {row.name: row for row in segments.classes},
        "regions": len(segments.segments),
    }


def shown_picture(content: bytes) -> str:
    """Any picture as one that every browser shows, upright, as a data URL."""
    with Image.open(io.BytesIO(content)) as opened:
        picture = as_rgb(opened)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _data_url(picture, "JPEG", quality=90)


def shown_mask(mask: bytes, classes: int) -> str:
    """A mask of class ids in the classes' colours, the background left clear, as a data URL."""
    with Image.open(io.BytesIO(mask)) as opened:
        opened.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
        ids = np.asarray(opened)
    table = np.zeros((256, 4), np.uint8)
    table[1:classes, :3] = class_colours(classes)[1:]
    table[1:classes, 3] = 255
    return _data_url(Image.fromarray(table[ids]), "PNG")


def _data_url(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def _try_page(
    request: Request, backend: Backend, model: Model, seen: dict[str, Any] | None = None, problem: Problem | None = None, status: int = 200
) -> HTMLResponse:
    url = request.app.state.settings.inference_api_url
    context = {"model": model, "models": await backend.models(), "seen": seen, "problem": problem, "url": url}
    return page(request, "try.html", context, status)
