"""CVAT's “segmentation mask”: labelmap.txt, SegmentationClass/ in colours, and the pictures in JPEGImages/ or images/."""

from functools import partial
from pathlib import Path

import numpy as np

from annotations.dataset import picture_files
from annotations.formats.naming_classes import Colour, ids_from_colours, number_colours, parse_colour
from annotations.formats.pairs import left_out, unique_stems
from annotations.formats.pascal_voc import listed_sides
from annotations.formats.reading import fit, read_colours, read_frame, read_lines, read_values, renumber, shown
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "CVAT segmentation mask (labelmap.txt, SegmentationClass/)"
PLACES = ("JPEGImages", "images", "data", "obj_train_data")


def recognise(folder: Path) -> bool:
    return (folder / "labelmap.txt").is_file() and (folder / "SegmentationClass").is_dir()


def read(folder: Path, choices: Choices) -> Source:
    """Colours are those of this very labelmap.txt: CVAT chooses new ones for every export."""
    table = _read_labelmap(folder / "labelmap.txt")
    classes, ids = number_colours(table, choices.classes)
    values = {line: ids[colour] for line, colour in enumerate(table)}
    place = next((folder / name for name in PLACES if (folder / name).is_dir()), folder)
    pictures = unique_stems(picture_files(place))
    masks = {file.stem: file for file in picture_files(folder / "SegmentationClass")}
    sides = listed_sides(folder)
    if masks and not pictures:
        raise Invalid(
            f"{folder.name} holds masks, but no pictures: CVAT leaves them out unless “Save images” is switched on.",
            "Export again with “Save images”, or put the pictures into JPEGImages/.",
        )
    items = [
        Labelled(stem, pictures[stem], partial(_read_mask, masks[stem], pictures[stem], ids, values), sides.get(stem))
        for stem in sorted(pictures.keys() & masks.keys())
    ]
    notes = left_out([pictures[stem] for stem in pictures if stem not in masks], "no mask")
    notes += left_out([masks[stem] for stem in masks if stem not in pictures], "no picture")
    return Source("cvat_masks", classes, items, notes)


def _read_labelmap(file: Path) -> dict[Colour, str]:
    """name:red,green,blue:parts:actions a line; lines that begin with # say nothing."""
    table: dict[Colour, str] = {}
    for line in read_lines(file):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        colour = parse_colour(rest.split(":")[0])
        if colour in table:
            cause = f"{shown(file)} gives the classes “{table[colour]}” and “{name}” one colour, {rest.split(':')[0]}."
            raise Invalid(cause, "Give every class a colour of its own and export again.")
        table[colour] = name.strip()
    return table


def _read_mask(mask: Path, picture: Path, ids: dict[Colour, int], values: dict[int, int]) -> np.ndarray:
    colours = read_colours(mask)
    grey = (colours == colours[..., :1]).all()
    known = {(shade, shade, shade) in ids for shade in np.unique(colours).tolist()} == {True}
    # A mask in shades of grey that no class has: the shade is the line of labelmap.txt.
    by_line = grey and not known
    mapped = renumber(read_values(mask), values, mask) if by_line else ids_from_colours(colours, ids, mask)
    return fit(mapped, read_frame(picture, shown(picture)), shown(mask))
