"""Trying models: pictures of one's own or those that scored, what one model sees in them, or two beside each other."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from PIL import Image
from starlette.datastructures import FormData, UploadFile

from annotations.colours import class_colours
from annotations.dataset import as_rgb
from contracts.errors import Invalid, Problem, TooLarge
from contracts.model import PublishedModel
from gui.answers import ClassShare, Seen
from gui.backend import Asks, Backend
from gui.pages import page, path_to

router = APIRouter(include_in_schema=False)
LONGEST_SIDE = 2400
"""Pictures are shown no larger than this; the figures are of the whole picture."""
AT_ONCE = 24
"""Pictures of one form; the page's script sends them one by one."""
MOST_SAVED = 1000
"""Pictures of one form whose answers are saved; the inference API may take fewer."""
SHOWN = 24
"""Pictures of the dataset that are offered."""
DRAWN = ("mask", "overlay", "confidence")
"""Answers that are pictures."""


@dataclass(frozen=True)
class Sight:
    """What one model sees in a picture. Pictures and files are data URLs; `shares` by class name."""

    model: PublishedModel
    seconds: float
    overlay: str
    unsure: str
    mask: str
    listed: str
    regions: int
    shares: dict[str, ClassShare]


@dataclass(frozen=True)
class Look:
    """A picture and what each model sees in it, or why it cannot be read. `classes`: of all models, by name; their order gives the colours.

    `agree`: share of the pixels (0…1) to which two models give the same class. `truth`: where the dataset's own mask over it can be had.
    """

    file: str
    problem: Problem | None = None
    size: tuple[int, int] = (0, 0)
    picture: str = ""
    truth: str = ""
    classes: Sequence[str] = ()
    sights: list[Sight] = field(default_factory=list)
    agree: float | None = None


@router.get("/try", name="try")
async def choose_model(request: Request, backend: Asks, model: str = "", against: str = "", stem: str = "") -> Response:
    """To the chosen model's page, to the newest one's where none is chosen, or how to get one where there is none."""
    served = [row for row in await backend.models() if not row.retired]
    if not served:
        return page(request, "try.html", {"model": None})
    words = [(name, value) for name, value in (("against", against), ("stem", stem)) if value]
    return RedirectResponse(path_to(request, "try_model", words, name=model or served[0].name), status_code=303)


@router.get("/models/{name}/try", name="try_model")
async def choose_picture(request: Request, backend: Asks, name: str, against: str = "", stem: str = "") -> HTMLResponse:
    """The form; with `stem`, what the models see in that picture of the dataset."""
    models = await _models(backend, name, against)
    looks = []
    if stem:
        content, kind = await backend.picture_file(models[0].dataset, stem)
        words = [("width", "1200"), ("opacity", "1")]
        truth = path_to(request, "overlay", words, name=models[0].dataset, stem=stem)
        looks = [await look(backend, models, f"{stem}.{kind.partition('/')[2]}", content, truth)]
    return await _try_page(request, backend, models, looks)


@router.post("/models/{name}/try", name="try_picture")
async def try_pictures(request: Request, backend: Asks, name: str, against: str = "", save: str = "") -> Response:
    """The same page with its answers; the pictures are kept nowhere. `save`: instead one kind of answer of both models, as a file."""
    if save and against:
        return await _save_both(request, backend, (name, against), save)
    models = await _models(backend, name, against)
    async with request.form(max_files=AT_ONCE) as form:
        looks = [await look(backend, models, upload.filename or "", await upload.read()) for upload in _uploads(form)]
    if not looks:
        looks = [Look("", Invalid("No picture was chosen.", "Choose a picture file, then ask again."))]
    failed = [row.problem for row in looks if row.problem]
    return await _try_page(request, backend, models, looks, failed[0].status if len(failed) == len(looks) else 200)


@router.post("/models/{name}/predict", name="predict")
async def predict(request: Request, backend: Asks, name: str) -> Response:
    """The inference API's own answer, for programs that know the pages' address alone."""
    return await backend.pass_on_predict(name, request)


@router.post("/models/{name}/predict/batch", name="predict_batch")
async def predict_batch(request: Request, backend: Asks, name: str, answer: str = "mask") -> Response:
    """The answers about many pictures as a file to save: a zip of masks, or their segments as JSON."""
    found = await backend.pass_on_predict(name, request, "batch")
    found.headers["Content-Disposition"] = _saved_as(answer, name)
    return found


async def _save_both(request: Request, backend: Backend, names: Sequence[str], answer: str) -> Response:
    """The same of two models in one file."""
    async with request.form(max_files=MOST_SAVED) as form:
        pictures = [(upload.filename or "", upload.file) for upload in _uploads(form)]
        answers = {name: await backend.predict_batch(name, answer, pictures) for name in names}
    content, kind = (_one_zip(answers), "application/zip") if answer in DRAWN else (_one_json(answers), "application/json")
    return Response(content, media_type=kind, headers={"Content-Disposition": _saved_as(answer, *names)})


def _saved_as(answer: str, *names: str) -> str:
    file = "-".join([*names, "masks.zip" if answer in DRAWN else f"{answer}.json"])
    return f'attachment; filename="{file}"'


def _one_zip(answers: dict[str, bytes]) -> bytes:
    """Of each model's zip a folder with its name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as whole:
        for name, content in answers.items():
            with zipfile.ZipFile(io.BytesIO(content)) as part:
                for file in part.namelist():
                    whole.writestr(f"{name}/{file}", part.read(file))
    return packed.getvalue()


def _one_json(answers: dict[str, bytes]) -> bytes:
    """What each model says, by its name."""
    return b"{" + b", ".join(json.dumps(name).encode() + b": " + content for name, content in answers.items()) + b"}"


async def look(backend: Backend, models: list[PublishedModel], file: str, content: bytes, truth: str = "") -> Look:
    """A picture through all models, one after the other."""
    classes = list(dict.fromkeys(name for model in models for name in model.classes))
    try:
        timed = [await _timed(backend, model, content, file) for model in models]
        return await asyncio.to_thread(_draw, models, timed, file, content, truth, classes)
    except Problem as problem:
        return Look(file, problem)


def _draw(models: list[PublishedModel], timed: list[tuple[Seen, float]], file: str, content: bytes, truth: str, classes: list[str]) -> Look:
    ids = [in_common(read_ids(seen.mask), model.classes, classes) for model, (seen, _) in zip(models, timed, strict=True)]
    sights = [
        Sight(
            model=model,
            seconds=seconds,
            overlay=shown_mask(mask, len(classes)),
            unsure=shown_doubt(seen.confidence),
            mask=data_url(seen.mask, "image/png"),
            listed=data_url(seen.listed, "application/json"),
            regions=len(seen.segments.segments),
            shares={row.name: row for row in seen.segments.classes},
        )
        for model, (seen, seconds), mask in zip(models, timed, ids, strict=True)
    ]
    agree = float((ids[0] == ids[1]).mean()) if len(ids) == 2 else None
    found = timed[0][0].segments
    return Look(file, None, (found.width, found.height), shown_picture(content), truth, classes, sights, agree)


async def _timed(backend: Backend, model: PublishedModel, content: bytes, file: str) -> tuple[Seen, float]:
    before = time.perf_counter()
    return await backend.see(model.name, content, file), time.perf_counter() - before


def shown_picture(content: bytes) -> str:
    """Any picture as one that every browser shows, upright, as a data URL."""
    with _opened(content) as opened:
        opened.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # a large JPEG is read no larger than it is shown
        picture = as_rgb(opened)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _encode(picture, "JPEG", quality=90)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Raises TooLarge."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            yield picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        cause = "The picture has more pixels than these pages show."
        raise TooLarge(cause, "Start them with the LARGEST_PICTURE of inference_api, or save its mask.") from error


def read_ids(mask: bytes) -> np.ndarray:
    """Class ids, uint8 (height, width), no larger than they are shown."""
    with _opened(mask) as opened:
        opened.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
        return np.asarray(opened)


def in_common(ids: np.ndarray, own: Sequence[str], common: Sequence[str]) -> np.ndarray:
    """A model's class ids as places in a list of classes that several models share."""
    table = np.arange(256).astype(np.uint8)
    table[: len(own)] = [common.index(name) for name in own]
    return table[ids]


def shown_mask(ids: np.ndarray, classes: int) -> str:
    """Class ids in the classes' colours, the background left clear, as a data URL."""
    table = np.zeros((256, 4), np.uint8)
    table[1:classes, :3] = class_colours(classes)[1:]
    table[1:classes, 3] = 255
    return _encode(Image.fromarray(table[ids]), "PNG")


def shown_doubt(confidence: bytes) -> str:
    """Where a model is unsure, as a data URL: clear where it is certain, the denser the less it is."""
    with _opened(confidence) as opened:
        opened.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        sure = np.asarray(opened)
    doubt = np.full((*sure.shape, 4), (214, 39, 140, 0), np.uint8)
    doubt[..., 3] = np.minimum(255, (255 - sure.astype(np.uint16)) * 2)
    return _encode(Image.fromarray(doubt), "PNG")


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _encode(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_url(buffer.getvalue(), f"image/{kind.lower()}")


def _uploads(form: FormData) -> list[UploadFile]:
    return [upload for upload in form.getlist("picture") if isinstance(upload, UploadFile) and upload.filename]


async def _models(backend: Backend, name: str, against: str) -> list[PublishedModel]:
    return [await backend.model(each) for each in dict.fromkeys((name, against)) if each]


async def _try_page(request: Request, backend: Backend, models: list[PublishedModel], looks: list[Look], status: int = 200) -> HTMLResponse:
    model = models[0]
    context = {
        "model": model,
        "against": models[1] if len(models) > 1 else None,
        "models": [row for row in await backend.models() if not row.retired or row.name == model.name],
        "stems": (await backend.scored_pictures(model.name))[:SHOWN],
        "looks": looks,
        "url": str(request.url_for("predict", name=model.name)),
    }
    return page(request, "try.html", context, status)
