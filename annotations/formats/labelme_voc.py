"""What labelme's export to VOC writes: JPEGImages/, SegmentationClass…/ and class_names.txt."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import IGNORE, picture_files
from annotations.formats.naming_classes import find_class_names
from annotations.formats.pairs import left_out, unique_stems
from annotations.formats.reading import as_ids, fit, naming, read_frame, read_values, shown
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "labelme's VOC export (JPEGImages/, SegmentationClass, …PNG or …Npy, class_names.txt)"
MASK_FOLDERS = ("SegmentationClassPNG", "SegmentationClass", "SegmentationClassNpy")
"""The same masks are often in more than one; pictures come first."""


def recognise(folder: Path) -> bool:
    if not (folder / "JPEGImages").is_dir() or (folder / "ImageSets").is_dir():
        return False
    exported = (folder / "class_names.txt").is_file() and (folder / "SegmentationClass").is_dir()
    return exported or any((folder / name).is_dir() for name in (MASK_FOLDERS[0], MASK_FOLDERS[2]))


def read(folder: Path, choices: Choices) -> Source:
    """-1 in arrays and 255 in pictures are labelme's __ignore__."""
    classes = choices.classes or find_class_names(folder)
    if classes is None:
        raise Invalid(
            f"{folder.name} has no class_names.txt, which labelme's export writes.", "Add it, one class a line, or name the classes."
        )
    pictures = unique_stems(picture_files(folder / "JPEGImages"))
    masks: dict[str, Path] = {}
    for name in reversed(MASK_FOLDERS):
        if (folder / name).is_dir():
            masks |= {file.stem: file for file in sorted((folder / name).glob("*.npy"))}
            masks |= {file.stem: file for file in picture_files(folder / name)}
    stems = sorted(pictures.keys() & masks.keys())
    items = [Labelled(stem, pictures[stem], partial(_read_mask, masks[stem], pictures[stem])) for stem in stems]
    notes = left_out([pictures[stem] for stem in pictures if stem not in masks], "no mask")
    notes += left_out([masks[stem] for stem in masks if stem not in pictures], "no picture")
    return Source("labelme_voc", classes, items, notes)


def _read_mask(mask: Path, picture: Path) -> np.ndarray:
    if mask.suffix == ".npy":
        with naming(shown(mask)):
            values = np.load(mask, allow_pickle=False)
        if values.ndim != 2 or values.dtype.kind not in "iu":
            cause = f"{shown(mask)} holds {values.dtype} of shape {values.shape}, not a class id for every pixel."
            raise Invalid(cause, "Export it again with labelme.")
        ids = as_ids(np.where(values == -1, IGNORE, values), mask)
    else:
        ids = as_ids(read_values(mask), mask)
    return fit(ids, read_frame(picture, shown(picture)), shown(mask))
