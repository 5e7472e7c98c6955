"""What the values and colours of a dataset's masks may mean, where they are not class ids: only readings that leave no doubt."""

import json
from pathlib import Path

from annotations.colours import class_colours, voc_palette
from annotations.dataset import IGNORE
from annotations.doctor.checking import OWN
from annotations.doctor.examine import Facts, colour_name

COLOUR_TABLE = "labelmap.txt"
ANSWERS = "answers.json"


def white_masks(facts: list[Facts]) -> list[Facts]:
    """Masks of 0 and 255 alone that have both: as tools write “nothing” and “something”."""
    return [pair for pair in facts if pair.is_index and set(pair.values()) == {0, IGNORE}]


def all_white(facts: list[Facts]) -> bool:
    """Whether no mask of the dataset shows anything but 0 and 255."""
    return bool(white_masks(facts)) and all(set(pair.values()) <= {0, IGNORE} for pair in facts if pair.is_index)


def white_is_ignored(folder: Path) -> bool:
    """Whether somebody has answered that 255 means “ignore” in masks of 0 and 255."""
    try:
        return bool(json.loads((folder / OWN / ANSWERS).read_bytes()).get("white") == "ignore")
    except (OSError, ValueError, AttributeError):
        return False


def renumbering(facts: list[Facts], classes: int) -> dict[int, int]:
    """From the values of all masks, in their order, to consecutive ids, where there are as many values as classes.

    255 stays “ignore” unless it takes 255 as well to have as many. Empty where ids are right already or it does not come out.
    """
    values = {value for pair in facts if pair.is_index for value in pair.values()}
    if values <= {*range(classes), IGNORE}:
        return {}
    for found in (sorted(values - {IGNORE}), sorted(values)):
        if len(found) == classes:
            return {value: index for index, value in enumerate(found)}
    return {}


def colour_ids(folder: Path, classes: list[str], facts: list[Facts]) -> dict[str, int]:
    """From every colour (#rrggbb) of the colour masks to its class id (255: ignore). Empty where one of them is not known.

    Known are: the lines of labelmap.txt; greys that are ids themselves; Pascal VOC's colours; Maskwright's own; and, for two
    classes, black and one other colour.
    """
    colours = {colour for pair in colour_masks(facts) for colour in pair.counts or {}}
    tables = [read_colour_table(folder, classes), _greys(len(classes)), _voc(len(classes)), _own(len(classes))]
    if len(classes) == len(colours) == 2 and "#000000" in colours:
        tables.append({colour: int(colour != "#000000") for colour in colours})
    for table in tables:
        if colours and colours <= table.keys():
            return {colour: table[colour] for colour in sorted(colours)}
    return {}


def colour_masks(facts: list[Facts]) -> list[Facts]:
    """Masks that hold no more than 256 colours, and not class ids."""
    return [pair for pair in facts if pair.is_lossless and pair.counts and next(iter(pair.counts))[0] == "#"]


def deep_masks(facts: list[Facts]) -> list[Facts]:
    """Masks of 16 or 32 bits, or with transparency, whose values all fit into 8 bits: nothing is lost by writing them so."""
    found = [pair for pair in facts if pair.is_lossless and not pair.is_index and pair.values()]
    return [pair for pair in found if all(0 <= value <= IGNORE for value in pair.values())]


def read_colour_table(folder: Path, classes: list[str]) -> dict[str, int]:
    """labelmap.txt, a line a class: name:red,green,blue, and CVAT's further columns. Lines of other names mean “ignore”."""
    file = folder / COLOUR_TABLE
    if not file.is_file():
        return {}
    table = {}
    for line in file.read_text(errors="replace").splitlines():
        name, _, rest = line.partition(":")
        channels = rest.partition(":")[0].split(",")
        if line.startswith("#") or len(channels) != 3 or not all(channel.strip().isdecimal() for channel in channels):
            continue
        red, green, blue = (min(255, int(channel)) for channel in channels)
        table[colour_name((red, green, blue))] = classes.index(name) if name in classes else IGNORE
    return table


def _greys(classes: int) -> dict[str, int]:
    return {colour_name((value, value, value)): value for value in [*range(classes), IGNORE]}


def _voc(classes: int) -> dict[str, int]:
    palette = voc_palette().tolist()
    return {colour_name(tuple(palette[index])): index for index in [*range(classes), IGNORE]}


def _own(classes: int) -> dict[str, int]:
    return {colour_name(colour): index for index, colour in enumerate(class_colours(classes))}
