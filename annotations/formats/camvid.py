"""CamVid: train/, val/ and test/ beside trainannot/, valannot/ and testannot/, or beside train_labels/ and the like in colour."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import IGNORE, picture_files
from annotations.formats.colour_masks import read_mask as read_colour_mask
from annotations.formats.naming_classes import find_class_names, number_colours, read_colour_table
from annotations.formats.pairs import Found, pair_files, split_folders
from annotations.formats.reading import fit, read_frame, read_values, renumber, shown
from annotations.formats.source import Choices, Labelled, Source

NAME = "CamVid (train/ and trainannot/, val/ and valannot/, or …_labels/ with class_dict.csv)"
CAMVID_CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist"]
UNLABELLED = len(CAMVID_CLASSES)
ENDS = ("annot", "_labels")


def recognise(folder: Path) -> bool:
    return any((folder / f"{path.name}{end}").is_dir() for path, _ in split_folders(folder) for end in ENDS)


def read(folder: Path, choices: Choices) -> Source:
    """CamVid's id 11 and the colour named Void are “ignore”, unless classes are given."""
    pairs: list[Found] = []
    notes: list[str] = []
    for pictures, side in split_folders(folder):
        for end in ENDS:
            masks = folder / f"{pictures.name}{end}"
            if masks.is_dir():
                some, more = pair_files(picture_files(pictures), picture_files(masks), side)
                pairs += some
                notes += more
    table = folder / "class_dict.csv"
    if table.is_file():
        classes, colours = number_colours(read_colour_table(table), choices.classes)
        items = [
            Labelled(pair.stem, pair.picture, partial(read_colour_mask, pair.mask, pair.picture, colours), pair.side) for pair in pairs
        ]
        return Source("camvid", classes, items, notes)
    given = choices.classes or find_class_names(folder)
    classes = given or CAMVID_CLASSES
    ids = {index: index for index in range(len(classes))}
    if given is None:
        ids[UNLABELLED] = IGNORE
    items = [Labelled(pair.stem, pair.picture, partial(_read_mask, pair.mask, pair.picture, ids), pair.side) for pair in pairs]
    return Source("camvid", classes, items, notes)


def _read_mask(mask: Path, picture: Path, ids: dict[int, int]) -> np.ndarray:
    return fit(renumber(read_values(mask), ids, mask), read_frame(picture, shown(picture)), shown(mask))
