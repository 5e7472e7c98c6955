"""Shapes of one picture laid on one another, in the order of the file: a later one hides what lies beneath."""

from collections.abc import Iterable

import numpy as np


def lay(layers: Iterable[tuple[int, np.ndarray]], size: tuple[int, int], ground: int = 0) -> np.ndarray:
    """uint8 (height, width) of class ids from pairs of a class id and a bool mask of that size."""
    ids = np.full(size, ground, np.uint8)
    for index, area in layers:
        ids[area] = index
    return ids


def place(stamp: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A bool mask of `size` with `stamp` laid with its top left corner at (x, y); what hangs over the edge is cut."""
    area = np.zeros(size, bool)
    x, y = corner
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + stamp.shape[1], size[1]), min(y + stamp.shape[0], size[0])
    if right > left and bottom > top:
        area[top:bottom, left:right] = stamp[top - y : bottom - y, left - x : right - x]
    return area
