"""Pictures and masks whose pixel value is the class id: images/ and labels/, also inside train/, val/ and test/."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.formats.naming_classes import find_class_names
from annotations.formats.pairs import find_pairs, require_items
from annotations.formats.reading import as_ids, fit, read_frame, read_values, shown
from annotations.formats.sampling import sampled_kind
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "Pictures and index masks (images/ and labels/, with objectclasses.json, class_names.list or class_names.txt)"


def recognise(folder: Path) -> bool:
    return sampled_kind(folder) is not None


def read(folder: Path, choices: Choices) -> Source:
    """255 is “ignore”. Without a list of class names they are numbered up to the highest id that occurs."""
    pairs, notes = find_pairs(folder)
    require_items(pairs, notes)
    classes = choices.classes or find_class_names(folder)
    if classes is None:
        classes = _numbered(max(highest_id(pair.mask) for pair in pairs))
        notes.append(f"No file names the classes: they are called {', '.join(classes)}")
    items = [Labelled(pair.stem, pair.picture, partial(read_ids, pair.mask, pair.picture), pair.side) for pair in pairs]
    return Source("index_masks", classes, items, notes)


def read_ids(mask: Path, picture: Path) -> np.ndarray:
    """A mask's stored values as class ids, upright."""
    return fit(as_ids(read_values(mask), mask), read_frame(picture, shown(picture)), shown(mask))


def highest_id(mask: Path) -> int:
    """The highest class id in a mask, 0 where all is ignored."""
    ids = as_ids(read_values(mask), mask)
    return int(ids[ids != 255].max(initial=0))


def _numbered(highest: int) -> list[str]:
    if highest == 0:
        raise Invalid("The masks hold no class but 0.", "Bring masks with class ids from 0 up, and say which classes they are.")
    return ["background", *(f"class_{index}" for index in range(1, highest + 1))]
