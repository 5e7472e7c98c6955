"""Pictures and masks whose colours are the classes: by a table that is given, that lies in the folder, or that is found out."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from annotations.formats.naming_classes import (
    BACKGROUND,
    VOC_BORDER,
    Colour,
    ids_from_colours,
    number_colours,
    pack,
    parse_colour,
    read_colour_table,
    voc_colours,
)
from annotations.formats.pairs import Found, find_pairs, require_items
from annotations.formats.reading import fit, hexadecimal, read_colours, read_frame, shown
from annotations.formats.sampling import sampled_kind
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "Pictures and colour masks (a colour for every class; the table is class_dict.csv, given, or found out)"
MOST_COLOURS = 64
"""More colours than this are shades of smoothing, not classes."""


def recognise(folder: Path) -> bool:
    return sampled_kind(folder) == "colour"


def read(folder: Path, choices: Choices) -> Source:
    """Colours that mean “void” or “ignore” become 255."""
    pairs, notes = find_pairs(folder)
    require_items(pairs, notes)
    if choices.colours is not None:
        table = {parse_colour(colour): name for colour, name in choices.colours.items()}
    elif (folder / "class_dict.csv").is_file():
        table = read_colour_table(folder / "class_dict.csv")
    else:
        table = _discover(pairs, choices.classes)
        found = ", ".join(f"{hexadecimal(colour)} {name}" for colour, name in table.items())
        notes.append(f"The colours were found in the masks: {found}")
    classes, ids = number_colours(table, choices.classes)
    items = [Labelled(pair.stem, pair.picture, partial(read_mask, pair.mask, pair.picture, ids), pair.side) for pair in pairs]
    return Source("colour_masks", classes, items, notes)


def read_mask(mask: Path, picture: Path, ids: dict[Colour, int]) -> np.ndarray:
    """A colour mask as class ids, upright."""
    return fit(ids_from_colours(read_colours(mask), ids, mask), read_frame(picture, shown(picture)), shown(mask))


def _discover(pairs: list[Found], names: list[str] | None) -> dict[Colour, str]:
    """The colours of all masks in the order of their ids: Pascal VOC's where all are its own, else black first, then by value."""
    seen: Counter[int] = Counter()
    for pair in pairs:
        packed = pack(read_colours(pair.mask))
        values, counts = np.unique(packed, return_counts=True)
        seen.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(seen) > MOST_COLOURS:
            raise Invalid(
                f"The mask {shown(pair.mask)} makes the colours more than {MOST_COLOURS}: its edges are smooth, or it is a photograph.",
                "Export the masks again as PNG without smoothing, or say which colour is which class.",
            )
    colours = [_unpack(value) for value in sorted(seen)]
    palette = voc_colours()
    if all(colour in palette for colour in colours):
        colours.sort(key=lambda colour: palette[colour])
    border = [colour for colour in colours if colour == VOC_BORDER]
    colours = [colour for colour in colours if colour != VOC_BORDER]
    if names is not None and len(names) != len(colours):
        listed = ", ".join(hexadecimal(colour) for colour in colours)
        raise Invalid(f"The masks hold {len(colours)} colours ({listed}), but {len(names)} classes were named.", "Name one class a colour.")
    named = {colour: names[index] if names else _propose(colour) for index, colour in enumerate(colours)}
    return {**named, **dict.fromkeys(border, "__ignore__")}


def _propose(colour: Colour) -> str:
    return BACKGROUND if colour == (0, 0, 0) else f"colour_{hexadecimal(colour)[1:]}"


def _unpack(value: int) -> Colour:
    return value >> 16, (value >> 8) & 255, value & 255
