"""What the model sees after an epoch: a sheet of validation pictures, and the layers that the pages lay over one another."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotations.colours import class_colours, overlay
from annotations.dataset import IGNORE
from contracts.durable import write_aside

ROWS = 4
CELL = 320
GAP = 8
TALLEST = 4 * CELL
"""A JPEG ends at 65,500 pixels: a narrow picture is shrunk further instead."""
LAYER = 640
"""Longest side of a layer, in pixels."""
RIGHT, WRONG = (34, 139, 34), (220, 38, 38)


class PreviewSheet:
    """Collects the first pictures of a validation pass; every sheet of a job shows the same ones, in rows of
    picture | truth | estimate | difference (wrong pixels red, right ones of any class but the first green)."""

    def __init__(self, classes: int) -> None:
        self.colours = class_colours(classes)
        self.rows: list[list[np.ndarray]] = []
        self.layers: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

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
        masks = [_small(ids, Image.Resampling.NEAREST) for ids in (truth, estimate)]
        self.layers.append((_small(picture, Image.Resampling.BILINEAR), masks[0], masks[1]))

    def save(self, file: Path) -> None:
        height = sum(row[0].shape[0] for row in self.rows) + GAP * (len(self.rows) - 1)
        sheet = Image.new("RGB", (4 * CELL + 3 * GAP, height), "white")
        top = 0
        for row in self.rows:
            for column, cell in enumerate(row):
                sheet.paste(Image.fromarray(cell), (column * (CELL + GAP) + (CELL - cell.shape[1]) // 2, top))
            top += row[0].shape[0] + GAP
        _write(sheet, file, quality=88)

    def save_layers(self, folder: Path, epoch: str) -> None:
        """picture-0.jpg and truth-0.png once, epoch-0001-0.png after each scoring: small masks in the classes' colours."""
        for place, (picture, truth, estimate) in enumerate(self.layers):
            if not (folder / f"truth-{place}.png").exists():
                _write(Image.fromarray(picture), folder / f"picture-{place}.jpg", quality=88)
                self._save_mask(truth, folder / f"truth-{place}.png")
            self._save_mask(estimate, folder / f"{epoch}-{place}.png")

    def _save_mask(self, ids: np.ndarray, file: Path) -> None:
        """The first class is clear; what is to be ignored is all but clear (1 of 255), by which a reader knows it from the first."""
        mask = Image.fromarray(ids)
        colours = [*self.colours, *[(0, 0, 0)] * (256 - len(self.colours))]
        mask.putpalette([value for colour in colours for value in colour])
        alpha = bytearray(b"\xff" * 256)
        alpha[0], alpha[IGNORE] = 0, 1
        _write(mask, file, transparency=bytes(alpha))


def _write(image: Image.Image, file: Path, **how: Any) -> None:
    """Whole or not at all, and a full disk is said to be one."""
    content = io.BytesIO()
    image.save(content, {".jpg": "JPEG", ".png": "PNG"}[file.suffix], **how)
    write_aside(file, content.getvalue(), durable=False)


def _difference(truth: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    wrong = (truth != estimate) & (truth != IGNORE)
    right = (truth == estimate) & (truth > 0)
    return (right + 2 * wrong).astype(np.uint8)


def _fit(cell: np.ndarray) -> np.ndarray:
    """As wide as a column, or as tall as a cell may be."""
    scale = min(CELL / cell.shape[1], TALLEST / cell.shape[0])
    size = (max(1, round(cell.shape[1] * scale)), max(1, round(cell.shape[0] * scale)))
    return np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.BILINEAR))


def _small(cell: np.ndarray, how: Image.Resampling) -> np.ndarray:
    factor = min(1.0, LAYER / max(cell.shape[:2]))
    size = (max(1, round(cell.shape[1] * factor)), max(1, round(cell.shape[0] * factor)))
    return np.asarray(Image.fromarray(cell).resize(size, how))
