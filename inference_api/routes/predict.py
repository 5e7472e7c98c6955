"""/v1/models/{name}/predict: what a model sees, in one picture or in many."""

import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, File, Header, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse

from contracts.errors import Invalid, Late, Problem, TooLarge, Unavailable
from inference_api.answers import DRAWN, IN_MEMORY, Answer, Made, Wish, answer_to, new_file
from inference_api.batch_files import free_name
from inference_api.pictures import is_large, name_of, opened
from inference_api.routes import REFUSALS, TURN, store_of
from inference_api.store import LoadedModel
from inference_api.turns import Left, heed

routes = APIRouter(prefix="/v1", tags=["predict"])
PATIENCE = 60.0
"""Seconds that a large picture waits for another one to be done: two at once might not fit into memory."""
PIECE = 2**20
"""Bytes of an answer that are sent at once."""
SEGMENTS = {
    "width": 640,
    "height": 480,
    "classes": [
        {"id": 0, "name": "background", "colour": [0, 0, 0], "pixels": 291_200, "share": 0.948, "confidence": 0.991},
        {"id": 1, "name": "crack", "colour": [230, 159, 0], "pixels": 16_000, "share": 0.052, "confidence": 0.913},
    ],
    "segments": [
        {
            "class_id": 1,
            "class_name": "crack",
            "box": [100, 80, 300, 160],
            "area": 16_000,
            "confidence": 0.913,
            "polygon": [[100, 80], [100, 159], [299, 159], [299, 80]],
            "holes": [],
        }
    ],
}
PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
JSON = {"application/json": {"example": SEGMENTS}}
ZIP = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
SEVERAL = {"application/json": {"example": [{"file": "photo.jpg", **SEGMENTS}, {"file": "notes.txt", "error": "Invalid", "cause": "…"}]}}


@routes.post(
    "/models/{name}/predict",
    response_class=Response,
    dependencies=TURN,
    responses={**REFUSALS, 200: {"content": PNG | JSON | ZIP, "description": "A PNG of exactly the picture's size, JSON, or a zip."}},
)
def predict(
    request: Request,
    name: str,
    picture: Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP, TIFF or GIF, of up to 20,000 × 20,000 pixels.")],
    wish: Annotated[Wish, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """What a model sees in a picture.

    The answer has exactly the size of the picture as it is seen: turned upright where its EXIF data say so.
    """
    made = look(request, store_of(request).load(name), picture, wish, chosen_answer(wish, accept))
    return respond(made.file, made.media_type)


@routes.post(
    "/models/{name}/predict/batch",
    response_class=Response,
    dependencies=TURN,
    responses={**REFUSALS, 200: {"content": SEVERAL | ZIP, "description": "A list in the order of the pictures, or a zip of PNGs."}},
)
def predict_batch(
    request: Request,
    name: str,
    picture: Annotated[list[UploadFile], File(description="As many as wanted: the field is repeated.")],
    wish: Annotated[Wish, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """What a model sees in many pictures, one after another.

    A picture that cannot be read does not keep back the others: it has its cause and cure in the list, or in the zip's problems.json.
    """
    most = request.app.state.settings.most_pictures
    if len(picture) > most:
        raise TooLarge(f"{len(picture)} pictures came in one request.", f"Send up to {most} at a time.")
    answer = chosen_answer(wish, accept)
    if answer == "all":
        raise Invalid("Many pictures have one kind of answer at a time.", "Ask for masks or segments here, or start a batch: it has both.")
    loaded = store_of(request).load(name)
    each = [(upload, _look_or_problem(request, loaded, upload, wish, answer)) for upload in picture]
    if answer in DRAWN:
        return respond(_zip(each), "application/zip")
    rows = [{"file": name_of(upload), **(made.as_dict() if isinstance(made, Problem) else _loads(made))} for upload, made in each]
    file = new_file()
    file.write(json.dumps(rows).encode())
    return respond(file, "application/json")


def look(request: Request, loaded: LoadedModel, upload: UploadFile, wish: Wish, answer: Answer) -> Made:
    """The one way from an upload to an answer."""
    with opened(upload, request.app.state.settings) as picture, one_at_a_time(request, is_large(picture)):
        return answer_to(loaded, picture, name_of(upload), wish, answer)


@contextmanager
def one_at_a_time(request: Request, large: bool) -> Iterator[None]:
    """Lets one large picture in at once. Raises Unavailable where it would have to wait for long."""
    lock: threading.Lock = request.app.state.large_pictures
    if large and not lock.acquire(timeout=PATIENCE):
        raise Unavailable("Another large picture is being read.", "Send it again in a minute, or send pictures one after another.")
    try:
        yield
    finally:
        if large:
            lock.release()


def chosen_answer(wish: Wish, accept: str) -> Answer:
    """The answer that was asked for by name, or by what the client accepts first."""
    if wish.answer is not None:
        return wish.answer
    for part in accept.split(","):
        kind = part.split(";")[0].strip().lower()
        if kind in ("application/json", "image/png"):
            return "segments" if kind == "application/json" else "mask"
    return "mask"


def respond(file: BinaryIO, media_type: str) -> Response:
    """A file as an answer; closed at the end."""
    size = file.tell()
    file.seek(0)
    if size <= IN_MEMORY:
        with file:
            return Response(file.read(), media_type=media_type)
    return StreamingResponse(_pieces(file), media_type=media_type, headers={"Content-Length": str(size)})


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece


def _look_or_problem(request: Request, loaded: LoadedModel, upload: UploadFile, wish: Wish, answer: Answer) -> Made | Problem:
    try:
        heed()
        return look(request, loaded, upload, wish, answer)
    except (Left, Late):  # nobody waits for the others either
        raise
    except Problem as problem:
        return problem


def _loads(made: Made) -> dict[str, Any]:
    with made.file as file:
        file.seek(0)
        content: dict[str, Any] = json.load(file)
        return content


def _zip(each: list[tuple[UploadFile, Made | Problem]]) -> BinaryIO:
    """The PNGs under the names of their pictures, numbered where two have the same; and what went wrong."""
    file, problems, taken = new_file(), dict[str, dict[str, str]](), set[PurePath]()
    with zipfile.ZipFile(file, "w") as archive:  # PNGs are packed already
        for upload, made in each:
            name = PurePath(name_of(upload).replace("\\", "/"))
            name = name if name.name else PurePath("picture")
            if isinstance(made, Problem):
                problems[str(free_name(name, lambda found: str(found) in problems))] = made.as_dict()
                continue
            name = free_name(PurePath(f"{name.stem}.png"), taken.__contains__)
            taken.add(name)
            with made.file as png, archive.open(str(name), "w") as entry:
                png.seek(0)
                while piece := png.read(PIECE):
                    entry.write(piece)
        if problems:
            archive.writestr("problems.json", json.dumps(problems, indent=2))
    file.seek(0, 2)
    return file
