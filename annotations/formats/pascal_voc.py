"""Pascal VOC: JPEGImages/, SegmentationClass/ and the lists in ImageSets/Segmentation/."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import picture_files
from annotations.formats.naming_classes import find_class_names, ids_from_colours, voc_colours
from annotations.formats.pairs import SIDES, left_out, unique_stems
from annotations.formats.reading import as_ids, fit, read_frame, read_lines, read_values, shown
from annotations.formats.source import Choices, Labelled, Side, Source
from contracts.errors import Invalid

NAME = "Pascal VOC (JPEGImages/, SegmentationClass/, ImageSets/Segmentation/)"
VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def recognise(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir()


def read(folder: Path, choices: Choices) -> Source:
    """Only what the lists name is read; without lists, every picture with a mask. The border, 255, is ignored."""
    pictures = unique_stems(picture_files(folder / "JPEGImages"))
    masks = {file.stem: file for file in picture_files(folder / "SegmentationClass")}
    sides = listed_sides(folder) or dict.fromkeys(sorted(pictures.keys() & masks.keys()))
    items = []
    for stem, side in sides.items():
        if stem not in pictures or stem not in masks:
            missing = f"JPEGImages/{stem}.jpg" if stem not in pictures else f"SegmentationClass/{stem}.png"
            raise Invalid(
                f"ImageSets/Segmentation lists {stem}, but there is no {missing}.", "Add the file, or take the line out of the list."
            )
        items.append(Labelled(stem, pictures[stem], partial(_read_mask, masks[stem], pictures[stem]), side))
    notes = left_out([file for stem, file in masks.items() if stem not in sides], "no line in ImageSets/Segmentation")
    return Source("pascal_voc", choices.classes or find_class_names(folder) or list(VOC_CLASSES), items, notes)


def listed_sides(folder: Path) -> dict[str, Side | None]:
    """The stems in ImageSets/Segmentation/*.txt with their side. trainval.txt and default.txt say no side."""
    place = folder / "ImageSets" / "Segmentation"
    sides: dict[str, Side | None] = {}
    for file in sorted(place.glob("*.txt")) if place.is_dir() else []:
        for line in read_lines(file):
            stem = line.split()[0]
            sides[stem] = SIDES.get(file.stem.lower()) or sides.get(stem)
    return dict(sorted(sides.items()))


def _read_mask(mask: Path, picture: Path) -> np.ndarray:
    values = read_values(mask)
    ids = as_ids(values, mask) if values.ndim == 2 else ids_from_colours(values, voc_colours(), mask)
    return fit(ids, read_frame(picture, shown(picture)), shown(mask))
