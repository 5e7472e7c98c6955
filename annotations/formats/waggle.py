"""A folder of the Waggle FCN plugin: images/ and labels/ (or the same in train/), class_names.list and config.list."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from annotations.formats.index_masks import highest_id, read_ids
from annotations.formats.naming_classes import BACKGROUND, find_class_names
from annotations.formats.pairs import Found, find_pairs, require_items
from annotations.formats.reading import fit, naming, read_frame, shown
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid
from contracts.waggle import CONFIG_FILE, has_waggle_config

NAME = "A folder of the Waggle FCN plugin (images/, labels/, class_names.list and config.list)"
BRIGHTEST_SKY = 175
"""waggle_cloud: a label is a grey picture, and what is brighter than this is the second class."""
SAMPLES = 12


def recognise(folder: Path) -> bool:
    if not has_waggle_config(folder):
        return False
    try:
        return bool(find_pairs(folder)[0])
    except Invalid:
        return True  # What is wrong with its names is said when it is read.


def read(folder: Path, choices: Choices) -> Source:
    """`choices.image_type` says what the labels hold, as the plugin's --image_type does; else it is found out."""
    pairs, notes = find_pairs(folder)
    require_items(pairs, notes)
    classes = choices.classes or find_class_names(folder)
    cloud = choices.image_type == "waggle_cloud" if choices.image_type else _looks_like_clouds(pairs, classes)
    if cloud:
        classes = _two(classes)
        notes.append(f"Labels are grey pictures: up to {BRIGHTEST_SKY} is “{classes[0]}”, brighter is “{classes[1]}” (waggle_cloud)")
    else:
        classes = classes or ["background", *(f"class_{index}" for index in range(1, max(highest_id(pair.mask) for pair in pairs) + 1))]
        notes.append("Labels hold class ids, 255 is ignored (voc, cityscape)")
    reader = _read_cloud if cloud else read_ids
    items = [Labelled(pair.stem, pair.picture, partial(reader, pair.mask, pair.picture), pair.side) for pair in pairs]
    return Source("waggle", classes, items, notes, beside=[folder / CONFIG_FILE])


def _two(classes: list[str] | None) -> list[str]:
    if classes and len(classes) != 2:
        raise Invalid(f"Labels of the type waggle_cloud show 2 classes, but {len(classes)} are named.", "Name 2 in class_names.list.")
    return classes or [BACKGROUND, "cloud"]


def _looks_like_clouds(pairs: list[Found], classes: list[str] | None) -> bool:
    """Whether the labels, judged by a few, cannot be ids of two classes: shades, or nothing but black and white."""
    if classes is not None and len(classes) != 2:
        return False
    present: set[int] = set()
    for pair in pairs[:: max(1, len(pairs) // SAMPLES)]:
        present |= set(np.unique(_shades(pair.mask)).tolist())
    return bool(present - {0, 1, 255}) or present == {0, 255}


def _read_cloud(mask: Path, picture: Path) -> np.ndarray:
    ids = (_shades(mask) > BRIGHTEST_SKY).astype(np.uint8)
    return fit(ids, read_frame(picture, shown(picture)), shown(mask))


def _shades(mask: Path) -> np.ndarray:
    """A label as grey, uint8 (height, width). A JPEG will do: its compression moves no shade across the middle."""
    with naming(shown(mask)), Image.open(mask) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return (np.asarray(upright) >> 8).astype(np.uint8)
        if upright.mode == "P" and (np.asarray(upright.convert("RGB")).std(axis=2) > 0).any():
            return np.asarray(upright, np.uint8)  # a palette of colours: what is meant are the indices
        return np.asarray(upright.convert("L"))
