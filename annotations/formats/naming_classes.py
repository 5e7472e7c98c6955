"""Class names and class colours: from lists, from tables, and from what a person chose."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from annotations.colours import voc_palette
from annotations.dataset import IGNORE, read_classes
from annotations.formats.reading import hexadecimal, naming, read_lines, shown
from annotations.formats.source import Choices
from contracts.errors import Invalid

Colour = tuple[int, int, int]
BACKGROUND = "background"
BACKGROUND_NAMES = {"background", "_background_", "__background__", "bg"}
IGNORED_NAMES = {"__ignore__", "ignore", "ignored", "void", "unlabelled", "unlabeled"}
"""What tools call pixels that nobody labelled, where they give them a colour or a value of their own."""
NAME_LISTS = ("class_names.list", "class_names.txt")
VOC_BORDER = (224, 224, 192)


def is_background(name: str) -> bool:
    return name.strip().lower() in BACKGROUND_NAMES


def find_class_names(folder: Path) -> list[str] | None:
    """The names in objectclasses.json, class_names.list or class_names.txt, in that order; None without such a file."""
    for place in (folder, folder / "train"):
        if (place / "objectclasses.json").is_file():
            return read_classes(place)
        for name in NAME_LISTS:
            if (place / name).is_file():
                lines = read_lines(place / name)
                return lines[1:] if lines[:1] == ["__ignore__"] else lines
    return None


def classes_of_labels(labels: Iterable[str], choices: Choices) -> list[str]:
    """Class names for shapes that carry labels: the background first, then those chosen, or those found in their order."""
    names = list(dict.fromkeys(choices.classes if choices.classes is not None else labels))
    if not any(is_background(name) for name in names[:1]):
        known = next((name for name in names if is_background(name)), BACKGROUND)
        names = [known, *(name for name in names if name != known)]
    return names


def ids_of_labels(labels: Iterable[str], classes: list[str], file: str) -> dict[str, int]:
    """The class id of every label; 255 for those that mean “ignore”. Raises Invalid for a label that is no class."""
    ids = {name: index for index, name in enumerate(classes)}
    for label in labels:
        if label in ids:
            continue
        if is_background(label):
            ids[label] = 0
        elif label == "__ignore__":
            ids[label] = IGNORE
        else:
            raise Invalid(
                f"{file} holds the label “{label}”, which is not among the classes {', '.join(classes)}.",
                "Add it to the classes, or correct the label in the file.",
            )
    return ids


def read_colour_table(file: Path) -> dict[Colour, str]:
    """A class_dict.csv: name, red, green, blue a line, below one line of titles."""
    table: dict[Colour, str] = {}
    with naming(shown(file)), open(file, newline="", encoding="utf-8-sig") as text:
        for row in list(csv.reader(text))[1:]:
            if row:
                red, green, blue = (int(cell) for cell in row[1:4])
                table[(red, green, blue)] = row[0].strip()
    return table


def parse_colour(text: str) -> Colour:
    """#ff8000 or 255,128,0. Raises Invalid for anything else."""
    stripped = text.strip().lstrip("#")
    try:
        numbers = [int(part) for part in stripped.split(",")] if "," in stripped else list(bytes.fromhex(stripped))
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(0 <= number <= 255 for number in numbers):
        raise Invalid(f"“{text}” is not a colour.", "Write colours as #ff8000 or 255,128,0.")
    return numbers[0], numbers[1], numbers[2]


def number_colours(table: dict[Colour, str], chosen: list[str] | None) -> tuple[list[str], dict[Colour, int]]:
    """Class names, and the id of every colour: in the order chosen, else background first, then the table's order.

    Names that mean “ignore” become 255, unless they were chosen as classes.
    """
    names = list(dict.fromkeys(table.values()))
    if chosen is None:
        names = [name for name in names if name.lower() not in IGNORED_NAMES]
        names.sort(key=lambda name: not is_background(name))
    else:
        missing = [name for name in names if name not in chosen and name.lower() not in IGNORED_NAMES]
        if missing:
            raise Invalid(f"The colours name the class “{missing[0]}”, which was not given.", f"Give it too: {', '.join(names)}.")
        names = list(chosen)
    ids = {name: index for index, name in enumerate(names)}
    return names, {colour: ids.get(name, IGNORE) for colour, name in table.items()}


def ids_from_colours(pixels: np.ndarray, ids: dict[Colour, int], file: Path) -> np.ndarray:
    """uint8 (height, width) from uint8 (height, width, 3). Raises Invalid, naming the first colour that has no class."""
    keys = sorted((pack(np.array(colour, np.uint8)).item(), index) for colour, index in ids.items())
    codes = np.array([key for key, _ in keys], np.int64)
    packed = pack(pixels)
    place = np.searchsorted(codes, packed).clip(0, len(codes) - 1)
    unknown = codes[place] != packed
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise Invalid(
            f"The mask {shown(file)} holds the colour {hexadecimal(pixels[row, column])} at x {column}, y {row} "
            f"({unknown.mean():.2%} of its pixels), which no class has.",
            "Give that colour a class, or export the masks again as PNG without smoothing.",
        )
    return np.array([index for _, index in keys], np.uint8)[place]


def pack(pixels: np.ndarray) -> np.ndarray:
    """Colours (…, 3) as one number each, int64 (…)."""
    wide = pixels.astype(np.int64)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def voc_colours() -> dict[Colour, int]:
    """The id of every colour of Pascal VOC's palette; its border colour is “ignore”."""
    colours = {(int(red), int(green), int(blue)): index for index, (red, green, blue) in enumerate(voc_palette())}
    return {**colours, VOC_BORDER: IGNORE}
