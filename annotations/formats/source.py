"""What a format's reader gives, and what the person may choose: plain values, shared by every format."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from contracts.waggle import ImageType

Side = Literal["training", "validation", "test"]
Picture = Path | Callable[[], bytes]
"""A picture's file, or a call that gives its bytes where it lies inside another file: only one is in memory at a time."""


@dataclass(frozen=True)
class Labelled:
    """A picture and what is known of it. `mask()` gives uint8 (height, width) class ids, 255 = ignore, upright.

    `mask()` raises Invalid, naming the file, the value and the cure.
    """

    stem: str
    picture: Picture
    mask: Callable[[], np.ndarray]
    side: Side | None = None


@dataclass(frozen=True)
class Choices:
    """What only a person can know. None: read it from the files, or find it out.

    classes: names in the order of their ids. colours: class name by colour, "#ff0000" or "255,0,0".
    white: what 255 means in masks that hold nothing but 0 and 255. image_type: what the labels of a Waggle folder hold.
    """

    classes: list[str] | None = None
    colours: dict[str, str] | None = None
    white: Literal["foreground", "ignore"] | None = None
    image_type: ImageType | None = None


@dataclass(frozen=True)
class Source:
    """Everything that was found in a folder. `notes` are sentences on what was left out or understood in a certain way;
    `beside` are files that go with the pictures, as they are."""

    format: str
    classes: list[str]
    items: list[Labelled]
    notes: list[str] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)
