"""Labelled pictures as people bring them, one module a format; each says whether a folder is its own, and reads it.

A module has NAME (what a person reads), `recognise(folder) -> bool` and `read(folder, choices) -> Source`.
The order of FORMATS is the order of asking: formats that leave an unmistakable file come first.

source          what a reader gives and what a person may choose
reading         JSON, lists and masks of every mode, with errors that name the file
pairs           pictures and masks in folders
naming_classes  class names and class colours
"""

from pathlib import Path
from types import ModuleType

from annotations.formats import (
    binary_masks,
    camvid,
    cityscapes,
    coco,
    colour_masks,
    cvat_masks,
    index_masks,
    label_studio,
    label_studio_png,
    labelme,
    labelme_voc,
    mask_per_class,
    pascal_voc,
    roboflow_masks,
    supervisely,
    waggle,
)
from annotations.formats.pairs import subfolders
from annotations.formats.source import Choices, Labelled, Picture, Side, Source
from contracts.errors import Invalid, NotFound

__all__ = ["FORMATS", "Choices", "Labelled", "Picture", "Side", "Source", "list_formats", "locate", "read_folder", "recognise_format"]

FORMATS: dict[str, ModuleType] = {
    "supervisely": supervisely,
    "waggle": waggle,
    "cityscapes": cityscapes,
    "roboflow_masks": roboflow_masks,
    "cvat_masks": cvat_masks,
    "labelme_voc": labelme_voc,
    "pascal_voc": pascal_voc,
    "camvid": camvid,
    "coco": coco,
    "label_studio_png": label_studio_png,
    "label_studio": label_studio,
    "labelme": labelme,
    "mask_per_class": mask_per_class,
    "binary_masks": binary_masks,
    "colour_masks": colour_masks,
    "index_masks": index_masks,
}
BY_WORD = ("binary_masks", "colour_masks")
"""Formats that differ from index_masks only in what the values mean: who names one of these knows better than a sample."""
DEEPEST = 3
"""How many folders that hold nothing but one folder are opened: archives often wrap what they hold."""


def list_formats() -> list[dict[str, str]]:
    """Every format as a person may choose it: {format, name}."""
    return [{"format": key, "name": module.NAME} for key, module in FORMATS.items()]


def recognise_format(folder: Path) -> str:
    """The format of a folder. Raises Invalid, naming what was looked for."""
    return locate(folder, None)[1]


def read_folder(folder: Path, format: str | None, choices: Choices) -> Source:
    """Everything labelled in a folder; its format is found out where it is not given."""
    root, key = locate(folder, format)
    return FORMATS[key].read(root, choices)


def locate(folder: Path, format: str | None) -> tuple[Path, str]:
    """The folder that the labelled pictures begin in, and their format. Raises Invalid, NotFound for an unknown format."""
    if format is not None and format not in FORMATS:
        raise NotFound(f"There is no format “{format}”.", f"Choose one of: {', '.join(FORMATS)}.")
    if not folder.is_dir():
        raise Invalid(f"There is no folder {folder.name}.", "Give a folder or an archive that is there.")
    asked = [*FORMATS] if format is None else ["index_masks"] if format in BY_WORD else [format]
    place = folder
    for _ in range(DEEPEST):
        key = next((key for key in asked if FORMATS[key].recognise(place)), None)
        if key is not None:
            return place, format or key
        inner = subfolders(place)
        if len(inner) != 1:
            break
        place = inner[0]
    if format is not None:
        raise Invalid(f"{folder.name} does not look like {FORMATS[format].NAME}.", "Choose another format, or let it be found out.")
    there = ", ".join(sorted(path.name for path in place.iterdir())[:8]) or "nothing"
    looked_for = "; ".join(module.NAME for module in FORMATS.values())
    raise Invalid(
        f"{folder.name} holds no labelled pictures in a known format; it holds {there}. Looked for: {looked_for}.",
        "Put pictures into images/ and masks of the same names into labels/, or name the format.",
    )
