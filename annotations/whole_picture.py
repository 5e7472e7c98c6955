"""From a picture of any size to a mask of the same size: the one way, used to score in training and to serve.

resize → tiles → network → blend → back to the picture's size. What validation measures is what users get. Only the picture
and the answer are ever whole: all between is made a few rows at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Protocol

import numpy as np
from PIL import Image

from annotations.tiles import Grid, Part, blend, lay_tiles
from contracts.model import Geometry

Predict = Callable[[np.ndarray], np.ndarray]
"""(n, 3, height, width) float32, normalised → (n, classes, height, width) float32 scores before the softmax."""
PIXELS_AT_ONCE = 2**22
"""Pixels of a picture that are resized at once."""
DECIDED_AT_ONCE = 2**18
"""Pixels that are decided at once: few enough to stay in the processor's cache."""


class Picture(Protocol):
    """Upright pixels, uint8 (height, width, 3): an array, or something that makes rows of itself when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Reading:
    """What a network sees in a picture: class ids uint8 and probabilities (of that class), (height, width).

    Probabilities are float32 0…1, uint8 0…255, or empty, as they were asked for.
    """

    mask: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Patch:
    """A part of a reading and its place in the picture."""

    place: tuple[slice, slice]
    mask: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and deviation of pixels scaled to 0…1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def levels(self) -> np.ndarray:
        """What every value of a byte becomes, float32 (3, 256)."""
        levels = (np.arange(256, dtype=np.float32)[:, None] / 255 - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return np.ascontiguousarray(levels.T)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) → float32 (3, height, width)."""
        normalised = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel, levels in enumerate(self.levels()):
            # A byte is always within the table: saying so spares numpy a check that takes most of the time.
            np.take(levels, pixels[..., channel], out=normalised[channel], mode="clip")
        return normalised

    def undo(self, normalised: np.ndarray) -> np.ndarray:
        """float32 (3, height, width) → uint8 (height, width, 3), cut off at black and white."""
        scaled = normalised.transpose(1, 2, 0) * np.array(self.deviation, np.float32) + np.array(self.mean, np.float32)
        return (scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)


# Statistics of ImageNet's pixels: what pre-trained backbones expect, and near enough for any photograph.
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


def working_size(shape: tuple[int, ...], short_side: int) -> tuple[int, int]:
    """The (height, width) at which a network sees a picture: its shorter side shrunk to `short_side`, never enlarged."""
    height, width = shape[:2]
    scale = min(1.0, short_side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_picture(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3) to (height, width) = size, bilinear with antialiasing."""
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width) to size, nearest neighbour: class ids are never mixed."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def read_whole_picture(
    picture: Picture,
    geometry: Geometry,
    normalisation: Normalisation,
    predict: Predict,
    size: tuple[int, int] | None = None,
    confidence: type | None = np.float32,
) -> Reading:
    """Class and confidence of every pixel of a picture.

    `size`: (height, width) of the answer, where the picture was decoded smaller than it is. `confidence`: np.float32; np.uint8,
    which takes a quarter of the memory; or None, which is quickest and never changes the mask.
    """
    size = size or (picture.shape[0], picture.shape[1])
    mask = np.empty(size, np.uint8)
    kept: np.ndarray = np.empty((0, 0) if confidence is None else size, confidence or np.uint8)
    for patch in read_in_patches(picture, geometry, normalisation, predict, size, confidence is not None):
        mask[patch.place] = patch.mask
        if confidence is not None:
            kept[patch.place] = np.rint(patch.confidence * 255) if confidence is np.uint8 else patch.confidence
    return Reading(mask, kept)


def read_in_patches(
    picture: Picture,
    geometry: Geometry,
    normalisation: Normalisation,
    predict: Predict,
    size: tuple[int, int],
    confidence: bool = True,
) -> Iterator[Patch]:
    """The same a part at a time: together the patches cover the picture, and none overlaps another."""
    working = working_size(size, geometry.short_side)
    grid = lay_tiles(working, geometry)

    @lru_cache(maxsize=1)
    def strip(row: int) -> np.ndarray:
        return shrink_rows(picture, working, row, min(row + grid.tile[0], working[0]))

    def scores(row: int, column: int) -> np.ndarray:
        return predict(normalisation.apply(_tile(strip(row), column, grid))[None])[0]

    if grid.single and working == size:
        yield _decide_scores(scores(0, 0)[:, : size[0], : size[1]], confidence)
        return
    last: np.ndarray | None = None
    for part in blend(grid, lambda row, column: _softmax(scores(row, column))):
        if working == size:
            yield from _decide(part)
        else:
            yield from _enlarge(part, last if part.top else None, working, size)
        last = part.probabilities[:, -1:].copy()


def shrink_rows(picture: Picture, size: tuple[int, int], top: int, bottom: int) -> np.ndarray:
    """The rows from top to bottom of the picture resized to (height, width), uint8: no more of the picture than they need."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture[top:bottom]
    scale = height / size[0]
    at_once = max(1, int(PIXELS_AT_ONCE / (width * scale)))
    rows = np.empty((bottom - top, size[1], 3), np.uint8)
    for first in range(top, bottom, at_once):
        last = min(first + at_once, bottom)
        # The filter reaches one pixel of the smaller picture to either side.
        above, below = max(0, floor((first - 1) * scale)), min(height, ceil((last + 1) * scale))
        box = (0, first * scale - above, width, min(last * scale, height) - above)
        source = Image.fromarray(picture[above:below])
        rows[first - top : last - top] = np.asarray(source.resize((size[1], last - first), Image.Resampling.BILINEAR, box=box))
    return rows


def _tile(strip: np.ndarray, column: int, grid: Grid) -> np.ndarray:
    """A tile's pixels; where it is larger than the picture, the last row and column go on."""
    pixels = strip[:, column : column + grid.tile[1]]
    missing = [(0, tile - length) for tile, length in zip(grid.tile, pixels.shape, strict=False)]
    return np.pad(pixels, [*missing, (0, 0)], mode="edge") if any(after for _, after in missing) else pixels


def _decide_scores(scores: np.ndarray, confidence: bool) -> Patch:
    """Of a picture that is read in one piece and not resized: the softmax is made for the likeliest class alone."""
    mask, highest = _likeliest(scores)
    if confidence:
        total = np.zeros_like(highest)
        for plane in scores:
            total += np.exp(plane - highest)
        highest = 1 / total
    return Patch((slice(0, mask.shape[0]), slice(0, mask.shape[1])), mask, highest)


def _decide(part: Part) -> Iterator[Patch]:
    """Of a picture that is not resized."""
    columns = slice(*part.own)
    for first, last in _few_rows(0, part.probabilities.shape[1], part.own[1] - part.own[0]):
        planes = part.probabilities[:, first:last, part.own[0] - part.start : part.own[1] - part.start]
        yield Patch((slice(part.top + first, part.top + last), columns), *_likeliest(planes))


def _enlarge(part: Part, above: np.ndarray | None, working: tuple[int, int], size: tuple[int, int]) -> Iterator[Patch]:
    """The rows of the picture of which both neighbours are known: those of the part, and the last of the one above it."""
    planes = part.probabilities if above is None else np.concatenate([above, part.probabilities], axis=1)
    top, bottom = part.top - (above is not None), part.top + part.probabilities.shape[1]
    down, across = working[0] / size[0], working[1] / size[1]
    left, right = (_count_before(edge, across) for edge in part.own)
    upper = 0 if above is None else _count_before(part.top - 0.5, down)
    lower = size[0] if bottom == working[0] else _count_before(bottom - 0.5, down)
    images = [Image.fromarray(plane) for plane in planes]
    for first, last in _few_rows(upper, lower, right - left):
        box = (
            left * across - part.start,
            first * down - top,
            min(right * across - part.start, planes.shape[2]),
            min(last * down - top, planes.shape[1]),
        )
        shape = (right - left, last - first)
        enlarged = (np.asarray(image.resize(shape, Image.Resampling.BILINEAR, box=box)) for image in images)
        yield Patch((slice(first, last), slice(left, right)), *_likeliest(enlarged))


def _count_before(edge: float, scale: float) -> int:
    """How many pixels of the enlarged picture have their centre before an edge in the smaller one."""
    return max(0, ceil(edge / scale - 0.5))


def _few_rows(first: int, last: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, DECIDED_AT_ONCE // max(1, width))
    return ((row, min(row + step, last)) for row in range(first, last, step))


def _likeliest(planes: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The class with the highest value in every pixel, uint8, the first of equals; and that value."""
    each = iter(planes)
    highest = np.array(next(each))
    mask = np.zeros(highest.shape, np.uint8)
    for index, plane in enumerate(each, start=1):
        # Ids grow, so that the larger one is the later one: many times quicker than to assign where a condition holds.
        np.maximum(mask, (plane > highest).view(np.uint8) * np.uint8(index), out=mask)
        np.maximum(highest, plane, out=highest)
    return mask, highest


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = scores - scores.max(axis=0)
    np.exp(exponentials, out=exponentials)
    exponentials /= exponentials.sum(axis=0)
    return exponentials
