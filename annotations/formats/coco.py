"""COCO: JSON files of images, annotations and categories; outlines as polygons or run lengths, crowds as “ignore”."""

import re
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from annotations.dataset import IGNORE
from annotations.formats.finding import PictureIndex, any_mentions, json_files, mentions
from annotations.formats.layers import lay
from annotations.formats.naming_classes import classes_of_labels, ids_of_labels, is_background
from annotations.formats.pairs import NAMED, SIDES, side_of
from annotations.formats.reading import fit, read_frame, read_model, require_size, shown
from annotations.formats.source import Choices, Labelled, Side, Source
from annotations.run_lengths import mask_of_counts, unpack_counts
from annotations.shapes import fill_area
from contracts.errors import Invalid

NAME = "COCO (JSON with images, annotations and categories; polygons or run lengths)"
KEYS = ("images", "annotations", "categories")


class Category(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: int
    name: str
    supercategory: str | None = None


class Image(BaseModel):
    id: int | str
    file_name: str
    width: int
    height: int


class RunLengths(BaseModel):
    size: tuple[int, int]
    counts: list[int] | str


class Annotation(BaseModel):
    image_id: int | str
    category_id: int
    segmentation: list[list[FiniteFloat]] | RunLengths | None = None
    bbox: list[FiniteFloat] | None = None
    iscrowd: int = 0


class Instances(BaseModel):
    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


def recognise(folder: Path) -> bool:
    return any_mentions(folder, *KEYS)


def read(folder: Path, choices: Choices) -> Source:
    """Instances of a class become one area. Later ones hide earlier ones; a crowd hides none, it lies beneath them all."""
    index = PictureIndex(folder)
    files = {file: read_model(file, Instances) for file in _instances_files(folder)}
    names = [category.name for content in files.values() for category in sorted(_used(content), key=lambda each: each.id)]
    background = next((each.name for content in files.values() for each in content.categories if _is_background(each)), None)
    if background is not None and choices.classes is None:
        names = [background, *(name for name in names if name != background)]
    classes = names if background is not None and choices.classes is None else classes_of_labels(names, choices)
    classes = list(dict.fromkeys(classes))
    items: list[Labelled] = []
    notes: list[str] = []
    for file, content in files.items():
        items += _items(file, content, classes, index, notes)
    return Source("coco", classes, items, notes)


def _instances_files(folder: Path) -> list[Path]:
    """The files to read: where there are files named instances_…, the captions and key points beside them are not."""
    files = [file for file in json_files(folder) if mentions(file, *KEYS)]
    return [file for file in files if file.name.startswith("instances")] or files


def _used(content: Instances) -> list[Category]:
    """The categories without Roboflow's placeholder: number 0, which is only the name of the group of all others."""
    groups = {category.supercategory for category in content.categories if category.id != 0}
    return [each for each in content.categories if not (each.id == 0 and each.supercategory == "none" and each.name in groups)]


def _is_background(category: Category) -> bool:
    return is_background(category.name) or category.supercategory == "background"


def _items(file: Path, content: Instances, classes: list[str], index: PictureIndex, notes: list[str]) -> list[Labelled]:
    side = _side(file, index.root)
    by_name = ids_of_labels([category.name for category in _used(content)], classes, shown(file))
    ids = {category.id: by_name[category.name] for category in _used(content)}
    by_image: dict[int | str, list[Annotation]] = {image.id: [] for image in content.images}
    for annotation in content.annotations:
        if annotation.category_id not in ids:
            raise Invalid(
                f"{shown(file)} holds an annotation of category {annotation.category_id}, which has no name.", "Add the category."
            )
        if annotation.image_id not in by_image:
            raise Invalid(f"{shown(file)} holds an annotation of image {annotation.image_id}, which it does not list.", "Add the image.")
        by_image[annotation.image_id].append(annotation)
    _note_boxes(file, content, notes)
    items, missing = [], []
    for image in content.images:
        picture = index.find(image.file_name, file, side)
        if picture is None:
            missing.append(image.file_name)
            continue
        draw = partial(_draw, shown(file), image, by_image[image.id], picture, ids)
        items.append(Labelled(picture.stem, picture, draw, side or side_of(picture, index.root)))
    if missing and not items:
        raise Invalid(f"None of the pictures that {shown(file)} names is there; the first is {missing[0]}.", "Add the pictures.")
    if missing:
        names = ", ".join(missing[:NAMED]) + (" …" if len(missing) > NAMED else "")
        notes.append(f"{len(missing)} pictures that {shown(file)} names are not there and were left out: {names}")
    return items


def _note_boxes(file: Path, content: Instances, notes: list[str]) -> None:
    """Raises Invalid for labels that are boxes alone: masks of nothing but background would be made of them."""
    boxes = sum(not annotation.segmentation for annotation in content.annotations)
    if boxes and boxes == len(content.annotations):
        raise Invalid(f"{shown(file)} holds boxes only, no outlines.", "Export polygons or masks, or label the outlines.")
    if boxes:
        notes.append(f"{boxes} annotations in {shown(file)} have a box but no outline: what is in the boxes is ignored")


def _side(file: Path, root: Path) -> Side | None:
    """instances_val2017.json scores; else the folder decides."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next((SIDES[word] for word in words if word in SIDES), None) or side_of(file, root)


def _draw(file: str, image: Image, annotations: list[Annotation], picture: Path, ids: dict[int, int]) -> np.ndarray:
    frame = read_frame(picture, shown(picture))
    size = (image.height, image.width)
    name = f"{image.file_name} in {file}"
    require_size(size, frame, name)
    unsure = [each for each in annotations if each.iscrowd or not each.segmentation]
    sure = [each for each in annotations if not each.iscrowd and each.segmentation]
    layers = [(IGNORE, each) for each in unsure] + [(ids[each.category_id], each) for each in sure]
    return fit(lay(((index, _area(each, size, name)) for index, each in layers), size), frame, name)


def _area(annotation: Annotation, size: tuple[int, int], name: str) -> np.ndarray:
    """bool (height, width): where one annotation is."""
    outline = annotation.segmentation
    if isinstance(outline, RunLengths):
        if outline.size != size:
            cause = f"{name} has an annotation made for {outline.size[1]} × {outline.size[0]} pixels, not for {size[1]} × {size[0]}."
            raise Invalid(cause, "Export the annotations again.")
        try:
            counts = unpack_counts(outline.counts) if isinstance(outline.counts, str) else outline.counts
            return mask_of_counts(counts, size)
        except Invalid as problem:
            raise Invalid(f"{name} cannot be drawn. {problem.cause}", problem.cure) from None
    area = np.zeros(size, bool)
    for ring in outline or [_box(annotation.bbox)]:
        if len(ring) % 2:
            raise Invalid(f"{name} has a polygon with an odd number of coordinates.", "Export the annotations again.")
        area |= fill_area(list(zip(ring[::2], ring[1::2], strict=True)), size)
    return area


def _box(box: list[float] | None) -> list[float]:
    if box is None or len(box) != 4:
        return []
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]
