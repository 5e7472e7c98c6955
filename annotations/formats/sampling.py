"""What kind of masks a folder holds, judged by a few of them, so that formats can be told apart quickly."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from annotations.formats.pairs import find_pairs
from annotations.formats.reading import read_colours, read_values
from contracts.errors import Invalid

Kind = Literal["index", "binary", "colour", "blank"]
SAMPLES = 12
WHITES = (1, 255, 65535)


def sampled_kind(folder: Path) -> Kind | None:
    """None: there are no pairs of picture and mask, or none that can be read."""
    try:
        pairs, _ = find_pairs(folder)
    except Invalid:
        return "index"  # There are masks; what is wrong with their names is said when they are read.
    if not pairs:
        return None
    kinds: set[Kind] = set()
    for pair in pairs[:: max(1, len(pairs) // SAMPLES)]:
        try:
            kinds.add(kind_of(pair.mask))
        except Invalid:
            continue  # An unreadable mask tells nothing of the others; reading says which it is.
    if "colour" in kinds:
        return "colour"
    return "binary" if kinds - {"blank"} == {"binary"} else "index"


def kind_of(file: Path) -> Kind:
    """binary: nothing but black and white; blank: nothing but 0, which tells nothing.

    A palette of greys is taken for its shades, one of colours for its indices.
    """
    values = binary_values(file)
    if values.ndim == 3:
        return "colour"
    present = set(np.unique(values).tolist())
    if present == {0}:
        return "blank"
    return "binary" if len(present) <= 2 and present <= {0, 255, 65535} else "index"


def binary_values(file: Path) -> np.ndarray:
    """Stored values, where a black and white image gives 0 and 255 and a palette of greys its shades."""
    values = read_values(file)
    with Image.open(file) as image:
        if image.mode == "1":
            return values * np.uint8(255)
        grey_palette = image.mode == "P" and _is_grey(image)
    if not grey_palette:
        return values
    return read_colours(file)[..., 0]


def _is_grey(image: Image.Image) -> bool:
    """Whether the colours of a palette that the picture uses are black and white and nothing else."""
    used = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return bool(np.isin(used, (0, 255)).all() and (used == used[:, :1]).all())
