"""Label Studio's JSON export: brushes, polygons, rectangles and ellipses, and the pictures beside it."""

import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter

from annotations.dataset import PICTURE_ENDINGS
from annotations.formats.finding import LOOKED_AT, PictureIndex, json_files
from annotations.formats.layers import lay
from annotations.formats.naming_classes import classes_of_labels, ids_of_labels
from annotations.formats.pairs import NAMED, side_of
from annotations.formats.reading import fit, naming, read_as, read_frame, require_size, shown
from annotations.formats.source import Choices, Labelled, Source
from annotations.run_lengths import mask_of_brush
from annotations.shapes import ellipse_ring, fill_area
from contracts.errors import Invalid

NAME = "Label Studio (JSON or JSON-MIN export with brushes or polygons, and the pictures)"
LABEL_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
UPLOAD_MARK = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


class Region(BaseModel):
    """What was drawn. Coordinates are in hundredths of the picture's width and height."""

    model_config = ConfigDict(extra="allow")

    rle: list[int] | None = None
    points: list[tuple[FiniteFloat, FiniteFloat]] | None = None
    x: FiniteFloat = 0
    y: FiniteFloat = 0
    width: FiniteFloat = 0
    height: FiniteFloat = 0
    radiusX: FiniteFloat = 0
    radiusY: FiniteFloat = 0
    rotation: FiniteFloat = 0
    brushlabels: list[str] = []
    polygonlabels: list[str] = []
    rectanglelabels: list[str] = []
    ellipselabels: list[str] = []

    @property
    def label(self) -> str | None:
        return next((names[0] for kind in LABEL_KINDS if (names := getattr(self, kind))), None)


class Result(BaseModel):
    type: str = ""
    value: Region = Region()
    original_width: int | None = None
    original_height: int | None = None
    image_rotation: float | None = 0


class Labelling(BaseModel):
    result: list[Result] = []
    was_cancelled: bool | None = False


class Task(BaseModel):
    """A task of the full export, or a row of JSON-MIN with its keys in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    id: int | str | None = None
    data: dict[str, Any] = {}
    annotations: list[Labelling] | None = None
    completions: list[Labelling] | None = None
    file_upload: str | None = None


TASKS: TypeAdapter[list[Task]] = TypeAdapter(list[Task])
RESULTS: TypeAdapter[list[Result]] = TypeAdapter(list[Result])


def recognise(folder: Path) -> bool:
    return any(is_export(file) for file in json_files(folder)[:LOOKED_AT])


def is_export(file: Path) -> bool:
    """Whether a JSON file is a list of Label Studio's tasks."""
    with naming(shown(file)):
        content = file.read_bytes()
    keys = ('"annotations"', '"completions"', *(f'"{kind}"' for kind in LABEL_KINDS))
    return content.lstrip().startswith(b"[") and any(key.encode() in content for key in keys)


def read(folder: Path, choices: Choices) -> Source:
    """The last labelling of a task that was not cancelled is taken. Regions are laid on one another in the order of the file."""
    index = PictureIndex(folder)
    tasks = read_tasks(folder)
    results = {place: results_of(task, file) for place, (file, task) in enumerate(tasks)}
    found = sorted({result.value.label for each in results.values() for result in each or [] if result.value.label})
    classes = classes_of_labels(found, choices)
    items, missing, notes = [], [], []
    for place, (file, task) in enumerate(tasks):
        drawn = results[place]
        picture = picture_of(task, file, index)
        name = f"task {task.id} in {shown(file)}"
        if drawn is None:
            notes.append(f"{name} is not labelled and was left out")
        elif picture is None:
            missing.append(picture_name(task) or name)
        else:
            if len(task.annotations or task.completions or []) > 1:
                notes.append(f"{name} was labelled more than once: the last labelling was taken")
            ids = ids_of_labels([result.value.label or "" for result in drawn], classes, name)
            items.append(Labelled(picture.stem, picture, partial(_draw, name, drawn, picture, ids), side_of(picture, index.root)))
    if missing and not items:
        raise Invalid(
            f"None of the pictures that the export names is there; the first is {missing[0]}.",
            "Label Studio's JSON export leaves them out: put the pictures into the same folder, under their own names.",
        )
    if missing:
        names = ", ".join(missing[:NAMED]) + (" …" if len(missing) > NAMED else "")
        notes.append(f"{len(missing)} labelled pictures are not there and were left out: {names}")
    return Source("label_studio", classes, items, notes)


def read_tasks(folder: Path) -> list[tuple[Path, Task]]:
    """Every task of every export in a folder, with its file."""
    return [(file, task) for file in json_files(folder) if is_export(file) for task in read_as(file, TASKS)]


def results_of(task: Task, file: Path) -> list[Result] | None:
    """The regions of a task; None where nobody labelled it."""
    labellings = [each for each in task.annotations or task.completions or [] if not each.was_cancelled]
    if labellings:
        return [result for result in labellings[-1].result if result.value.label]
    rows = []
    for value in (task.model_extra or {}).values():
        if isinstance(value, list) and any(kind in row for row in value if isinstance(row, dict) for kind in LABEL_KINDS):
            sizes = ("original_width", "original_height")
            rows += [{"value": row, **{key: row[key] for key in sizes if key in row}} for row in value]
    with naming(shown(file)):
        return RESULTS.validate_python(rows) if rows else None


def picture_name(task: Task) -> str | None:
    """The name of a task's picture, without address and folders."""
    for value in [task.file_upload, *task.data.values(), *(task.model_extra or {}).values()]:
        if not isinstance(value, str):
            continue
        address = urlsplit(value)
        inner = parse_qs(address.query).get("d", [address.path])[0]
        name = unquote(inner).replace("\\", "/").rsplit("/", 1)[-1]
        if Path(name).suffix.lower() in PICTURE_ENDINGS:
            return name
    return None


def picture_of(task: Task, file: Path, index: PictureIndex) -> Path | None:
    """A task's picture: under the name that the export gives, or under the one that it was uploaded with."""
    name = picture_name(task)
    if name is None:
        return None
    return index.find(name, file) or index.find(UPLOAD_MARK.sub("", name), file)


def _draw(name: str, results: list[Result], picture: Path, ids: dict[str, int]) -> np.ndarray:
    frame = read_frame(picture, shown(picture))
    first = results[0] if results else Result()
    size = (first.original_height or frame.upright[0], first.original_width or frame.upright[1])
    require_size(size, frame, name)
    layers = ((ids[result.value.label or ""], _area(result, size, name)) for result in results)
    return fit(lay(layers, size), frame, name)


def _area(result: Result, size: tuple[int, int], name: str) -> np.ndarray:
    """bool (height, width)."""
    if result.image_rotation:
        raise Invalid(
            f"{name} was labelled on a picture turned by {result.image_rotation:g}°.", "Turn it back in Label Studio and export again."
        )
    region = result.value
    height, width = size
    if region.rle is not None:
        try:
            return mask_of_brush(region.rle, size)
        except Invalid as problem:
            raise Invalid(f"{name} cannot be drawn. {problem.cause}", problem.cure) from None
    if region.points is not None:
        return fill_area([(x * width / 100, y * height / 100) for x, y in region.points], size)
    x, y = region.x * width / 100, region.y * height / 100
    if region.ellipselabels:
        return fill_area(ellipse_ring((x, y), (region.radiusX * width / 100, region.radiusY * height / 100), region.rotation), size)
    across, down = region.width * width / 100, region.height * height / 100
    turn = np.deg2rad(region.rotation)
    corners = [(0.0, 0.0), (across, 0.0), (across, down), (0.0, down)]
    return fill_area([(x + a * np.cos(turn) - b * np.sin(turn), y + a * np.sin(turn) + b * np.cos(turn)) for a, b in corners], size)
