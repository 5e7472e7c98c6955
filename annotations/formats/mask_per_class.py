"""One black-and-white mask for every class of a picture: masks/<class>/<name>.png or masks/<name>_<class>.png."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import picture_files
from annotations.formats.binary_masks import white_area
from annotations.formats.layers import lay
from annotations.formats.naming_classes import classes_of_labels, ids_of_labels
from annotations.formats.pairs import MASK_SUFFIXES, SIDES, left_out, picture_and_mask_folders, subfolders, unique_stems
from annotations.formats.reading import fit, read_frame, shown
from annotations.formats.sampling import kind_of
from annotations.formats.source import Choices, Labelled, Side, Source
from contracts.errors import Invalid

NAME = "One mask for every class (masks/<class>/<name>.png or masks/<name>_<class>.png)"
SEPARATORS = "_-."
Parts = dict[str, list[tuple[str, Path]]]
"""The masks of each picture, by its stem: class name and file."""


def recognise(folder: Path) -> bool:
    for pictures, masks, _ in picture_and_mask_folders(folder):
        stems = {file.stem for file in picture_files(pictures)}
        parts, alone = _in_folders(masks, stems)
        if not parts:
            parts, alone = _in_suffixes(masks, stems)
        named = [row for rows in parts.values() for row in rows]
        suffixes = {f"_{name}" for name, _ in named} & set(MASK_SUFFIXES)
        if named and not alone and not suffixes and _is_binary(named[0][1]):
            return True
    return False


def read(folder: Path, choices: Choices) -> Source:
    """Where masks of a picture overlap, the class that comes later hides the earlier. What no mask covers is background."""
    found: list[tuple[Path, list[tuple[str, Path]], Side | None]] = []
    notes: list[str] = []
    for pictures, masks, side in picture_and_mask_folders(folder):
        by_stem = unique_stems(picture_files(pictures))
        parts, alone = _in_folders(masks, set(by_stem))
        if not parts:
            parts, alone = _in_suffixes(masks, set(by_stem))
        notes += left_out(alone, "no picture") + left_out([by_stem[stem] for stem in by_stem if stem not in parts], "no mask")
        found += [(by_stem[stem], parts[stem], side) for stem in sorted(parts)]
    if not found:
        raise Invalid("No picture has masks of its name.", "Name them masks/<class>/<name>.png or masks/<name>_<class>.png.")
    classes = classes_of_labels(sorted({name for _, parts_of, _ in found for name, _ in parts_of}), choices)
    items = []
    for picture, parts_of, side in found:
        ids = ids_of_labels([name for name, _ in parts_of], classes, shown(parts_of[0][1]))
        layers = sorted((ids[name], mask) for name, mask in parts_of)
        items.append(Labelled(picture.stem, picture, partial(_read_mask, layers, picture), side))
    return Source("mask_per_class", classes, items, notes)


def _is_binary(mask: Path) -> bool:
    try:
        return kind_of(mask) in ("binary", "blank")
    except Invalid:
        return True  # What is wrong with it is said when it is read.


def _read_mask(layers: list[tuple[int, Path]], picture: Path) -> np.ndarray:
    frame = read_frame(picture, shown(picture))
    areas = ((index, fit(white_area(mask).astype(np.uint8), frame, shown(mask)) > 0) for index, mask in layers)
    return lay(areas, frame.upright)


def _in_folders(masks: Path, stems: set[str]) -> tuple[Parts, list[Path]]:
    parts: Parts = {}
    alone = []
    for folder in subfolders(masks):
        if folder.name.lower() in SIDES:
            continue
        for file in picture_files(folder):
            if file.stem in stems:
                parts.setdefault(file.stem, []).append((folder.name, file))
            else:
                alone.append(file)
    return parts, alone


def _in_suffixes(masks: Path, stems: set[str]) -> tuple[Parts, list[Path]]:
    """The longest picture name that a mask's name begins with is its picture; the rest is the class."""
    parts: Parts = {}
    alone = []
    for file in picture_files(masks):
        cuts = [place for place in range(len(file.stem) - 2, 0, -1) if file.stem[place] in SEPARATORS]
        cut = next((place for place in cuts if file.stem[:place] in stems), None)
        if cut is None or file.stem in stems:
            alone.append(file)
        else:
            parts.setdefault(file.stem[:cut], []).append((file.stem[cut + 1 :], file))
    return parts, alone
