"""Pictures and masks of nothing but black and white: one class and the background."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import IGNORE
from annotations.formats.naming_classes import BACKGROUND, find_class_names
from annotations.formats.pairs import find_pairs, require_items
from annotations.formats.reading import as_ids, fit, read_frame, shown, value_problem
from annotations.formats.sampling import WHITES, binary_values, sampled_kind
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "Pictures and black-and-white masks (0 and 255: the background and one class)"


def recognise(folder: Path) -> bool:
    if sampled_kind(folder) != "binary":
        return False
    try:
        names = find_class_names(folder)
    except Invalid:
        return False  # The file that names the classes is wrong: index_masks says so.
    return names is None or len(names) == 2


def read(folder: Path, choices: Choices) -> Source:
    """White is the class, unless it was chosen to mean “ignore”."""
    pairs, notes = find_pairs(folder)
    require_items(pairs, notes)
    classes = choices.classes or find_class_names(folder) or [BACKGROUND, "foreground"]
    if len(classes) == 1:
        classes = [BACKGROUND, *classes]
    if len(classes) != 2:
        raise Invalid(f"Black-and-white masks show 2 classes, but {len(classes)} were named.", "Name the background and one class.")
    white = IGNORE if choices.white == "ignore" else 1
    meaning = "“ignore”" if white == IGNORE else f"the class “{classes[1]}”"
    notes.append(f"The masks are black and white: 255 was taken for {meaning}")
    items = [Labelled(pair.stem, pair.picture, partial(_read_mask, pair.mask, pair.picture, white), pair.side) for pair in pairs]
    return Source("binary_masks", classes, items, notes)


def white_area(mask: Path) -> np.ndarray:
    """bool (height, width): where a mask of two values is white. Raises Invalid, naming a value that is neither."""
    values = binary_values(mask)
    if values.ndim == 3:
        as_ids(values, mask)
    present = [value for value in np.unique(values).tolist() if value]
    if len(present) > 1 or any(value not in WHITES for value in present):
        wrong = ~np.isin(values, [0, 1] if present[:1] == [1] else [0, max(present)])
        wrong = wrong if wrong.any() else values > 0
        cure = "Save the mask without smoothing, or import it as index_masks if its values are class ids."
        raise value_problem(mask, values, wrong, "but a black-and-white mask holds 0 and 255 only", cure)
    return values > 0


def _read_mask(mask: Path, picture: Path, white: int) -> np.ndarray:
    ids = np.where(white_area(mask), white, 0).astype(np.uint8)
    return fit(ids, read_frame(picture, shown(picture)), shown(mask))
