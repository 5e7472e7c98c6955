"""labelme: one JSON file a picture, with shapes, and the picture beside it or inside it."""

import base64
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, FiniteFloat

from annotations.formats.finding import PictureIndex, any_mentions, json_files, mentions
from annotations.formats.layers import lay, place
from annotations.formats.naming_classes import classes_of_labels, ids_of_labels
from annotations.formats.pairs import left_out, side_of
from annotations.formats.reading import fit, naming, read_frame, read_model, require_size, shown
from annotations.formats.source import Choices, Labelled, Picture, Source
from annotations.shapes import draw_circle, draw_line, draw_point, draw_polygon, draw_rectangle
from contracts.errors import Invalid

NAME = "labelme (one JSON file a picture, with polygons, rectangles, circles, lines, points or masks)"
LINE_THICKNESS = 10
POINT_RADIUS = 5
"""What labelme itself draws lines and points with, in pixels."""
FEWEST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1, "mask": 2}


class Shape(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)  # Class names may be digits.

    label: str
    points: list[tuple[FiniteFloat, FiniteFloat]]
    shape_type: str | None = None
    mask: str | None = None


class Document(BaseModel):
    shapes: list[Shape]
    imagePath: str | None = None
    imageHeight: int | None = None
    imageWidth: int | None = None


class Embedded(BaseModel):
    imageData: str | None = None


def recognise(folder: Path) -> bool:
    return any_mentions(folder, "shapes", "imagePath") or any_mentions(folder, "shapes", "imageData")


def read(folder: Path, choices: Choices) -> Source:
    """Shapes are drawn as labelme draws them, later ones over earlier ones. The label __ignore__ is 255."""
    index = PictureIndex(folder)
    files = [file for file in json_files(folder) if mentions(file, "shapes")]
    documents = {file: read_model(file, Document) for file in files}
    labels = sorted({shape.label for document in documents.values() for shape in document.shapes} - {"__ignore__", "_background_"})
    classes = classes_of_labels(labels, choices)
    items, used = [], set()
    for file, document in documents.items():
        picture = _picture(file, document, index)
        ids = ids_of_labels([shape.label for shape in document.shapes], classes, shown(file))
        for shape in document.shapes:
            _require_points(shape, file)
        items.append(Labelled(file.stem, picture, partial(_draw, file, document, picture, ids), side_of(file, index.root)))
        used.add(picture)
    bare = [path for path in sorted({path for file in files for path in index.beside(file)}) if path not in used]
    return Source("labelme", classes, items, left_out(bare, "no labels"))


def _picture(file: Path, document: Document, index: PictureIndex) -> Picture:
    """The picture's own file where there is one, since it may say how it was held; else the copy inside the JSON."""
    found = index.find(document.imagePath, file) if document.imagePath else None
    found = found or next((path for path in index.beside(file) if path.stem == file.stem), None)
    if found is not None:
        return found
    if mentions(file, "imageData") and read_model(file, Embedded).imageData:
        return partial(_embedded, file)
    raise Invalid(
        f"{shown(file)} names the picture {document.imagePath}, which is not there, and holds none itself.",
        "Put the picture beside it, or save it in labelme with its image data.",
    )


def _embedded(file: Path) -> bytes:
    with naming(shown(file)):
        return base64.b64decode(read_model(file, Embedded).imageData or "")


def _require_points(shape: Shape, file: Path) -> None:
    kind = shape.shape_type or "polygon"
    if kind not in FEWEST_POINTS:
        known = ", ".join(FEWEST_POINTS)
        raise Invalid(f"{shown(file)} holds a shape of the kind “{kind}”.", f"Draw it in labelme as one of: {known}.")
    if len(shape.points) < FEWEST_POINTS[kind]:
        cause = f"{shown(file)} holds a {kind} of “{shape.label}” with {len(shape.points)} points."
        raise Invalid(cause, "Complete it or delete it in labelme.")


def _draw(file: Path, document: Document, picture: Picture, ids: dict[str, int]) -> np.ndarray:
    frame = read_frame(picture, shown(file))
    size = (document.imageHeight or frame.upright[0], document.imageWidth or frame.upright[1])
    require_size(size, frame, shown(file))
    layers = ((ids[shape.label], _area(shape, size, file)) for shape in document.shapes)
    return fit(lay(layers, size), frame, shown(file))


def _area(shape: Shape, size: tuple[int, int], file: Path) -> np.ndarray:
    """bool (height, width)."""
    points = shape.points
    match shape.shape_type or "polygon":
        case "rectangle":
            return draw_rectangle(points[:2], size)
        case "circle":
            return draw_circle(points[0], points[1], size)
        case "line" | "linestrip":
            return draw_line(points, size, LINE_THICKNESS)
        case "point":
            return draw_point(points[0], size, POINT_RADIUS)
        case "mask":
            return _stamp(shape, size, file)
    return draw_polygon(points, size)


def _stamp(shape: Shape, size: tuple[int, int], file: Path) -> np.ndarray:
    """A brushed mask: a small picture in base64, laid with its corner on the first point."""
    with naming(shown(file)), Image.open(io.BytesIO(base64.b64decode(shape.mask or ""))) as image:
        stamp = np.asarray(image.convert("L")) > 0
    return place(stamp, (round(shape.points[0][0]), round(shape.points[0][1])), size)
