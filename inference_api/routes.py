"""/v1/models: list them, ask them."""

import io
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, File, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from PIL import Image, UnidentifiedImageError

from annotations.colours import overlay
from annotations.dataset import as_rgb
from annotations.whole_picture import Reading
from contracts.errors import Invalid
from contracts.model import Model
from inference_api.regions import list_segments
from inference_api.settings import Settings
from inference_api.store import Store

routes = APIRouter(prefix="/v1")
Answer = Literal["mask", "overlay", "segments"]


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


@routes.get("/health", tags=["machine"])
def health() -> dict[str, str]:
    return {"status": "ok"}


@routes.get("/models", tags=["models"])
def list_models(request: Request) -> list[Model]:
    """Every model that can be asked, newest first."""
    return _store(request).models()


@routes.get("/models/{name}", tags=["models"])
def show(request: Request, name: str) -> Model:
    return _store(request).model(name)


@routes.post(
    "/models/{name}/predict",
    tags=["models"],
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "application/json": {}}, "description": "A PNG, or segments as JSON."}},
)
def predict(
    request: Request,
    name: str,
    picture: Annotated[UploadFile, File(description="A picture: JPEG, PNG, WebP, BMP or TIFF.")],
    answer: Annotated[Answer, Query(description="mask: an index PNG of the picture's size; overlay: a PNG; segments: JSON.")] = "mask",
) -> Response:
    """What a model sees in a picture. The answer has exactly the size of the (upright) picture."""
    loaded = _store(request).load(name)
    pixels = read_upload(picture, request.app.state.settings)
    reading = loaded.read(pixels)
    if answer == "segments":
        return JSONResponse(list_segments(reading, loaded.model))
    if answer == "overlay":
        return _png(Image.fromarray(overlay(pixels, reading.mask, loaded.model.palette)))
    return _png(index_png(reading, loaded.model))


def read_upload(upload: UploadFile, settings: Settings) -> np.ndarray:
    """The picture of an upload as uint8 (height, width, 3), upright. Raises Invalid for what is no picture or too large."""
    content = upload.file.read(settings.largest_upload + 1)
    name = upload.filename or "The file"
    if len(content) > settings.largest_upload:
        raise Invalid(f"{name} has more than {settings.largest_upload // 2**20} MB.", "Send a smaller file.")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > settings.largest_picture:
                raise Invalid(f"{name} has {picture.width} × {picture.height} pixels, too many.", "Send it in parts.")
            return np.asarray(as_rgb(picture))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Invalid(f"{name} cannot be read as a picture ({error}).", "Send a JPEG, PNG, WebP, BMP or TIFF file.") from error


def index_png(reading: Reading, model: Model) -> Image.Image:
    """Pixel value = class id, with the model's colours as palette."""
    mask = Image.fromarray(reading.mask)
    mask.putpalette([channel for colour in model.palette for channel in colour])
    return mask


def _png(image: Image.Image) -> Response:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return Response(file.getvalue(), media_type="image/png")
