"""What the model sees after an epoch: a sheet of validation pictures, each with truth, estimate and difference."""

from pathlib import Path

import numpy as np
from PIL import Image

from annotations.colours import class_colours, overlay
from annotations.dataset import IGNORE

ROWS = 4
CELL = 320
GAP = 8
RIGHT, WRONG = (34, 139, 34), (220, 38, 38)


class PreviewSheet:
    """Collects the first pictures of a validation pass; every sheet of a job shows the same ones, in rows of
    picture | truth | estimate | difference (wrong pixels red, right ones of any class but the first green)."""

    def __init__(self, classes: int) -> None:
        self.colours = class_colours(classes)
        self.rows: list[list[np.ndarray]] = []

    def add(self, picture: np.ndarray, truth: np.ndarray, estimate: np.ndarray) -> None:
        if len(self.rows) >= ROWS:
            return
        cells = [
            picture,
            overlay(picture, truth, self.colours),
            overlay(picture, estimate, self.colours),
            overlay(picture // 2 + 64, _difference(truth, estimate), [(0, 0, 0), RIGHT, WRONG], opacity=0.8),
        ]
        self.rows.append([_fit(cell) for cell in cells])

    def save(self, file: Path) -> None:
        height = sum(row[0].shape[0] for row in self.rows) + GAP * (len(self.rows) - 1)
        sheet = Image.new("RGB", (4 * CELL + 3 * GAP, height), "white")
        top = 0
        for row in self.rows:
            for column, cell in enumerate(row):
                sheet.paste(Image.fromarray(cell), (column * (CELL + GAP), top))
            top += row[0].shape[0] + GAP
        sheet.save(file, quality=88)


def _difference(truth: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    wrong = (truth != estimate) & (truth != IGNORE)
    right = (truth == estimate) & (truth > 0)
    return (right + 2 * wrong).astype(np.uint8)


def _fit(cell: np.ndarray) -> np.ndarray:
    height = max(1, round(cell.shape[0] * CELL / cell.shape[1]))
    return np.asarray(Image.fromarray(cell).resize((CELL, height), Image.Resampling.BILINEAR))
