"""What can be asked for, and the answer made from it: one file per request, small ones in memory, large ones on the disk."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, BinaryIO, Literal, cast

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from annotations.colours import overlay
from annotations.whole_picture import Picture, Reading
from contracts.doors import note_pictures
from contracts.errors import Invalid
from contracts.model import Model
from inference_api.pictures import decode, is_large
from inference_api.png import write_png
from inference_api.regions import SMALLEST, find_regions, list_coco, list_segments, list_shares
from inference_api.store import LoadedModel

Answer = Literal["mask", "overlay", "confidence", "segments", "coco", "shares", "all"]
DRAWN = ("mask", "overlay", "confidence")
"""Answers that are PNGs; the others are JSON, and `all` is a zip."""
PACKED: tuple[Answer, ...] = ("mask", "confidence")
"""Those that are in that zip."""
IN_MEMORY = 2**24
"""Bytes of an answer; what is larger is put on the disk on its way."""
ROWS_OF = 2**20
"""Pixels that are drawn at once."""


class Wish(BaseModel):
    """What is asked for about a picture. Everything but `answer`, `simplify` and `short_side` acts on the mask, and so on every answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Annotated[
        Answer | None,
        Field(
            description="mask: PNG whose pixel value is the class id, with the classes' colours as palette; overlay: PNG of the picture "
            "under its classes; confidence: PNG, grey, 255 = certain; segments: JSON with outlines; coco: JSON as COCO's, with "
            "run lengths; shares: JSON with how much each class covers; all: zip of mask.png, confidence.png and segments.json, of one "
            "reading. Without it the header Accept decides: application/json is "
            "segments, everything else mask.",
            examples=["mask"],
        ),
    ] = None
    classes: Annotated[list[str], Field(description="Only these classes, by name or id; the others become background.")] = []
    min_confidence: Annotated[float, Field(ge=0, le=1, description="Pixels that are less certain become background.")] = 0.0
    min_area: Annotated[
        int | None,
        Field(ge=0, description=f"Regions of fewer pixels become background. Without it lists leave out those below {SMALLEST}."),
    ] = None
    simplify: Annotated[float, Field(ge=0, le=1000, description="Outlines may be so many pixels off, and have fewer corners.")] = 0.0
    short_side: Annotated[
        int | None,
        Field(
            ge=16,
            le=65_535,
            description="Read the picture with its shorter side at so many pixels, in tiles where that is large, instead of the size "
            "that the model was taught with. A large number is the picture's own size: right for maps and scans whose cut-outs it learnt.",
        ),
    ] = None


@dataclass(frozen=True)
class Made:
    """An answer: a file to be read from its begin, and its content type."""

    file: BinaryIO
    media_type: str


def answer_to(loaded: LoadedModel, picture: Image.Image, name: str, wish: Wish, answer: Answer) -> Made:
    """What a model sees in an opened picture, as asked for. Raises Invalid for a picture that cannot be read."""
    reading, pixels = see(loaded, picture, name, wish, whole=answer == "overlay", sure=answer not in ("mask", "overlay"))
    file = new_file()
    if answer in DRAWN:
        draw(file, answer, reading, pixels, loaded.model)
        return Made(file, "image/png")
    if answer == "all":
        _pack(file, reading, pixels, loaded.model, wish)
        return Made(file, "application/zip")
    file.write(json.dumps(list_answer(answer, reading, loaded.model, wish)).encode())
    return Made(file, "application/json")


def new_file() -> BinaryIO:
    """A file for an answer, which the response closes."""
    return cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY))


def see(
    loaded: LoadedModel, picture: Image.Image, name: str, wish: Wish, *, whole: bool = False, sure: bool = True
) -> tuple[Reading, Picture]:
    """The reading of an opened picture, with the wishes that act on its mask, and its pixels: all of them if `whole`.

    `sure`: whether confidences are needed. Those of large pictures are kept in bytes.
    """
    model = loaded.model
    note_pictures(model.name)
    kept = None if not (sure or wish.min_confidence) else np.uint8 if is_large(picture) else np.float32
    allowed = class_table(model, wish.classes)
    uploaded = decode(picture, name, None if whole else wish.short_side or model.geometry.short_side)
    reading = loaded.read(uploaded.pixels, uploaded.size, kept, wish.short_side)
    _clear(reading, allowed, wish)
    return reading, uploaded.pixels


def _pack(file: BinaryIO, reading: Reading, pixels: Picture, model: Model, wish: Wish) -> None:
    with zipfile.ZipFile(file, "w") as archive:  # PNGs are packed already
        for drawn in PACKED:
            with archive.open(f"{drawn}.png", "w", force_zip64=True) as entry:
                draw(cast(BinaryIO, entry), drawn, reading, pixels, model)
        archive.writestr("segments.json", json.dumps(list_answer("segments", reading, model, wish)))


def list_answer(answer: Answer, reading: Reading, model: Model, wish: Wish) -> dict[str, Any]:
    """An answer in JSON."""
    smallest = SMALLEST if wish.min_area is None else max(1, wish.min_area)
    if answer == "segments":
        return list_segments(reading, model, smallest, wish.simplify)
    return list_coco(reading, model, smallest) if answer == "coco" else list_shares(reading, model)


def draw(file: BinaryIO, answer: Answer, reading: Reading, pixels: Picture, model: Model) -> None:
    """An answer as a PNG of exactly the picture's size."""
    mask, sure = reading.mask, reading.confidence
    if answer == "mask":
        write_png(file, mask.shape, (mask[rows] for rows in _strips(mask)), model.palette)
    elif answer == "confidence":
        grey = (sure[rows] if sure.dtype == np.uint8 else np.rint(sure[rows] * 255).astype(np.uint8) for rows in _strips(mask))
        write_png(file, mask.shape, grey)
    else:
        write_png(file, mask.shape, (overlay(pixels[rows], mask[rows], model.palette) for rows in _strips(mask)))


def class_table(model: Model, wanted: list[str]) -> np.ndarray | None:
    """For every class id the one it becomes, uint8 (256), if only some are wanted. Raises Invalid for an unknown one."""
    if not wanted:
        return None
    table = np.zeros(256, np.uint8)
    for name in wanted:
        known = name in model.classes
        if not known and not (name.isdecimal() and int(name) < len(model.classes)):
            raise Invalid(f"The model “{model.name}” has no class “{name}”.", f"It has: {', '.join(model.classes)}.")
        index = model.classes.index(name) if known else int(name)
        table[index] = index
    return table


def _clear(reading: Reading, table: np.ndarray | None, wish: Wish) -> None:
    """Make background of what is not asked for; nothing is certain about it then."""
    mask, sure = reading.mask, reading.confidence
    least = wish.min_confidence * (255 if sure.dtype == np.uint8 else 1)
    for rows in _strips(mask) if table is not None or least else ():
        kept = np.ones(mask[rows].shape, bool) if table is None else (table[mask[rows]] == mask[rows])
        if least:
            kept &= sure[rows] >= least
        mask[rows] *= kept
        if sure.size:
            sure[rows] *= kept
    if wish.min_area:
        for region in find_regions(mask, range(1, int(mask.max()) + 1), 1, wish.min_area - 1):
            mask[region.window][region.pixels] = 0
            if sure.size:
                sure[region.window][region.pixels] = 0


def _strips(mask: np.ndarray) -> Iterator[slice]:
    step = max(1, ROWS_OF // mask.shape[1])
    return (slice(top, top + step) for top in range(0, len(mask), step))
