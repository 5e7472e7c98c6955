"""Supervisely: a project with meta.json, and datasets with img/ and ann/; polygons, bitmaps and the other shapes."""

import base64
import io
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, FiniteFloat

from annotations.dataset import picture_files
from annotations.formats.finding import mentions
from annotations.formats.layers import lay, place
from annotations.formats.naming_classes import classes_of_labels, ids_of_labels
from annotations.formats.pairs import SIDES, left_out, side_of
from annotations.formats.reading import fit, naming, read_frame, read_model, require_size, shown
from annotations.formats.source import Choices, Labelled, Source
from annotations.shapes import draw_line, draw_point, draw_polygon, draw_rectangle
from contracts.errors import Invalid

NAME = "Supervisely (meta.json, and datasets with img/ and ann/)"
MOST_BYTES = 64 * 1024 * 1024
"""A bitmap that unpacks to more than this is no mask."""
FEWEST_POINTS = {"polygon": 3, "rectangle": 2, "line": 2, "polyline": 2, "point": 1}


class MetaClass(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    title: str


class Meta(BaseModel):
    classes: list[MetaClass]


class Points(BaseModel):
    exterior: list[tuple[FiniteFloat, FiniteFloat]]
    interior: list[list[tuple[FiniteFloat, FiniteFloat]]] = []


class Bitmap(BaseModel):
    data: str
    origin: tuple[int, int]


class Thing(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    classTitle: str
    geometryType: str | None = None
    points: Points | None = None
    bitmap: Bitmap | None = None


class Size(BaseModel):
    height: int
    width: int


class Annotation(BaseModel):
    size: Size
    objects: list[Thing]


def recognise(folder: Path) -> bool:
    meta = folder / "meta.json"
    return meta.is_file() and mentions(meta, "classes") and bool(_datasets(folder))


def read(folder: Path, choices: Choices) -> Source:
    """Objects are drawn in the order of the file. A dataset that is named train, val or test is that side of the split."""
    meta = read_model(folder / "meta.json", Meta)
    classes = classes_of_labels([each.title for each in meta.classes], choices)
    items, bare = [], []
    for dataset in _datasets(folder):
        side = SIDES.get(dataset.name.lower()) or side_of(dataset, folder)
        for picture in picture_files(dataset / "img"):
            names = (f"{picture.name}.json", f"{picture.stem}.json")
            file = next((dataset / "ann" / name for name in names if (dataset / "ann" / name).is_file()), None)
            if file is None:
                bare.append(picture)
                continue
            annotation = read_model(file, Annotation)
            ids = ids_of_labels([thing.classTitle for thing in annotation.objects], classes, shown(file))
            items.append(Labelled(picture.stem, picture, partial(_draw, file, annotation, picture, ids), side))
    return Source("supervisely", classes, items, left_out(bare, "no annotation"))


def _datasets(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("ann") if path.is_dir() and (path.parent / "img").is_dir())


def _draw(file: Path, annotation: Annotation, picture: Path, ids: dict[str, int]) -> np.ndarray:
    frame = read_frame(picture, shown(picture))
    size = (annotation.size.height, annotation.size.width)
    require_size(size, frame, shown(file))
    layers = ((ids[thing.classTitle], _area(thing, size, file)) for thing in annotation.objects)
    return fit(lay(layers, size), frame, shown(file))


def _area(thing: Thing, size: tuple[int, int], file: Path) -> np.ndarray:
    """bool (height, width)."""
    if thing.bitmap is not None:
        return place(_unpack(thing.bitmap.data, file), thing.bitmap.origin, size)
    kind = thing.geometryType or "polygon"
    if thing.points is None or len(thing.points.exterior) < FEWEST_POINTS.get(kind, 1):
        raise Invalid(f"{shown(file)} holds a {kind} of “{thing.classTitle}” without enough points.", "Correct or delete it.")
    points = thing.points.exterior
    match kind:
        case "polygon":
            return draw_polygon(points, size, thing.points.interior)
        case "rectangle":
            return draw_rectangle(points, size)
        case "line" | "polyline":
            return draw_line(points, size, 1)
        case "point":
            return draw_point(points[0], size, 0)
    raise Invalid(f"{shown(file)} holds a {kind} of “{thing.classTitle}”, which covers no area.", "Draw it as a polygon or a mask.")


def _unpack(data: str, file: Path) -> np.ndarray:
    """A bitmap: a PNG, packed with zlib and written in base64. bool (height, width), from its alpha where it has one."""
    with naming(shown(file)):
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(data), MOST_BYTES)
        if unpacking.unconsumed_tail:
            raise ValueError("a bitmap in it is too large")
        with Image.open(io.BytesIO(content)) as image:
            channels = np.asarray(image.getchannel("A") if image.mode in ("LA", "RGBA") else image)
    return np.asarray(channels.reshape(*channels.shape[:2], -1).any(axis=2))
