"""Roboflow's “semantic segmentation masks”: train/, valid/ and test/, each with _classes.csv, pictures and …_mask.png."""

import csv
from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import picture_files
from annotations.formats.naming_classes import BACKGROUND_NAMES
from annotations.formats.pairs import pair_files, split_folders
from annotations.formats.reading import fit, naming, read_frame, read_values, renumber, shown
from annotations.formats.source import Choices, Labelled, Side, Source
from contracts.errors import Invalid

NAME = "Roboflow semantic segmentation masks (_classes.csv and …_mask.png)"
TABLE = "_classes.csv"


def recognise(folder: Path) -> bool:
    return bool(_places(folder))


def read(folder: Path, choices: Choices) -> Source:
    """Classes are matched by name, since two folders may number them differently."""
    tables = {place: _read_table(place / TABLE) for place, _ in _places(folder)}
    names = list(dict.fromkeys(name for table in tables.values() for _, name in sorted(table.items())))
    classes = choices.classes or names
    items: list[Labelled] = []
    notes: list[str] = []
    for place, side in _places(folder):
        missing = [name for name in tables[place].values() if name not in classes]
        if missing:
            raise Invalid(
                f"{shown(place / TABLE)} names the class “{missing[0]}”, which was not given.", f"Give it too: {', '.join(names)}."
            )
        ids = {value: classes.index(name) for value, name in tables[place].items()}
        files = picture_files(place)
        pairs, more = pair_files(files, files, side)
        items += [Labelled(pair.stem, pair.picture, partial(_read_mask, pair.mask, pair.picture, ids), side) for pair in pairs]
        notes += more
    return Source("roboflow_masks", classes, items, notes)


def _places(folder: Path) -> list[tuple[Path, Side | None]]:
    return [(path, side) for path, side in [(folder, None), *split_folders(folder)] if (path / TABLE).is_file()]


def _read_table(file: Path) -> dict[int, str]:
    """Class name by pixel value, from `Pixel Value, Class` lines."""
    with naming(shown(file)), open(file, newline="", encoding="utf-8-sig") as text:
        rows = [row for row in list(csv.reader(text))[1:] if row]
        table = {int(row[0]): ",".join(row[1:]).strip() for row in rows}
    if not all(0 <= value <= 254 for value in table):
        raise Invalid(f"{shown(file)} names pixel values that are no class ids.", "Class ids go from 0 to 254.")
    return {value: "background" if name.lower() in BACKGROUND_NAMES else name for value, name in table.items()}


def _read_mask(mask: Path, picture: Path, ids: dict[int, int]) -> np.ndarray:
    return fit(renumber(read_values(mask), ids, mask), read_frame(picture, shown(picture)), shown(mask))
