"""Cityscapes: leftImg8bit/<split>/<city>/ and gtFine/<split>/<city>/…_labelIds.png; the 19 classes that are trained on."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import IGNORE
from annotations.formats.pairs import SIDES, left_out
from annotations.formats.reading import as_ids, fit, read_frame, read_values, renumber, shown
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "Cityscapes (leftImg8bit/ and gtFine/ with _labelIds.png)"
TRAINED = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The label ids that are classes; their training ids are their places here. The rest, up to 33, is “ignore”."""
HIGHEST = 33
PICTURE_END = "_leftImg8bit"
MASK_ENDS = ("_labelIds.png", "_labelTrainIds.png")


def recognise(folder: Path) -> bool:
    return (folder / "leftImg8bit").is_dir() and any((folder / name).is_dir() for name in ("gtFine", "gtCoarse"))


def read(folder: Path, choices: Choices) -> Source:
    """Fine labels where there are any, else the coarse ones."""
    if choices.classes is not None and len(choices.classes) != len(TRAINED):
        raise Invalid(f"Cityscapes has {len(TRAINED)} classes, but {len(choices.classes)} were named.", "Leave the names out.")
    label = "gtFine" if (folder / "gtFine").is_dir() else "gtCoarse"
    items, alone = [], []
    for picture in sorted((folder / "leftImg8bit").glob(f"*/*/*{PICTURE_END}.*")):
        split, city = picture.parts[-3:-1]
        stem = picture.stem[: -len(PICTURE_END)]
        candidates = [folder / label / split / city / f"{stem}_{label}{end}" for end in MASK_ENDS]
        mask = next((file for file in candidates if file.is_file()), None)
        if mask is None:
            alone.append(picture)
        else:
            items.append(Labelled(stem, picture, partial(_read_mask, mask, picture), SIDES.get(split.lower(), "training")))
    return Source("cityscapes", choices.classes or list(TRAINED.values()), items, left_out(alone, "no mask"))


def _read_mask(mask: Path, picture: Path) -> np.ndarray:
    values = read_values(mask)
    if mask.name.endswith(MASK_ENDS[0]):
        ids = dict.fromkeys(range(HIGHEST + 1), IGNORE)
        ids |= {value: place for place, value in enumerate(TRAINED)}
        mapped = renumber(values, ids, mask)
    else:
        mapped = as_ids(values, mask)
    return fit(mapped, read_frame(picture, shown(picture)), shown(mask))
