"""visualization_viz/: up to nine validation pictures in one tile, each of six panels.

picture | truth    | the two blended
picture | estimate | the two blended
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from annotations.colours import voc_palette
from annotations.dataset import IGNORE
from annotations.whole_picture import resize_mask, resize_picture

MOST = 9
SIDE = 400
"""Longest side of a panel in pixels; smaller pictures stay as they are."""


class Tile:
    """Collects pictures; `colours`, uint8 (256, 3), are those of the classes."""

    def __init__(self, colours: np.ndarray | None = None) -> None:
        self.colours = voc_palette() if colours is None else colours
        self._cells: list[np.ndarray] = []

    def add(self, picture: np.ndarray, truth: np.ndarray, estimate: np.ndarray) -> None:
        """A picture, uint8 (height, width, 3), with its classes, uint8 (height, width). More than nine are passed over."""
        if len(self._cells) < MOST:
            self._cells.append(self._six(picture, truth, estimate))

    def save(self, file: Path) -> None:
        columns = math.ceil(math.sqrt(len(self._cells)))
        height, width = (max(cell.shape[axis] for cell in self._cells) for axis in (0, 1))
        tile = np.zeros((math.ceil(len(self._cells) / columns) * height, columns * width, 3), np.uint8)
        for place, cell in enumerate(self._cells):
            top, left = place // columns * height, place % columns * width
            tile[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        Image.fromarray(tile).save(file, quality=90)

    def _six(self, picture: np.ndarray, truth: np.ndarray, estimate: np.ndarray) -> np.ndarray:
        scale = min(1.0, SIDE / max(picture.shape[:2]))
        size = max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))
        small, unknown = resize_picture(picture, size), resize_mask(truth, size) == IGNORE
        rows = []
        for classes in (truth, estimate):
            painted = self.colours[resize_mask(classes, size)]
            painted[unknown] = 0  # what nobody labelled is black in both
            blended = (small.astype(np.uint16) + painted) // 2
            rows.append(np.concatenate([small, painted, blended.astype(np.uint8)], axis=1))
        return np.concatenate(rows)
