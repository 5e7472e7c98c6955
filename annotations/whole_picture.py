"""From a picture of any size to a mask of the same size: the one way, used to score in training and to serve.

resize → tiles → network → blend → back to the picture's size. What validation measures is what users get.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from contracts.model import Geometry

Predict = Callable[[np.ndarray], np.ndarray]
"""(n, 3, height, width) float32, normalised → (n, classes, height, width) float32 scores before the softmax."""


@dataclass(frozen=True)
class Reading:
    """What a network sees in a picture: class ids uint8 and probabilities float32 (of that class), (height, width)."""

    mask: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and deviation of pixels scaled to 0…1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) → float32 (3, height, width)."""
        scaled = (pixels.astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

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


def read_whole_picture(picture: np.ndarray, geometry: Geometry, normalisation: Normalisation, predict: Predict) -> Reading:
    """Class and confidence of every pixel of a picture, uint8 (height, width, 3)."""
    height, width = picture.shape[:2]
    small = normalisation.apply(resize_picture(picture, working_size(picture.shape, geometry.short_side)))
    probabilities = _stitch(small, geometry, predict)
    return _decide(probabilities, (height, width))


def _stitch(pixels: np.ndarray, geometry: Geometry, predict: Predict) -> np.ndarray:
    """Class probabilities (classes, height, width) of normalised pixels (3, height, width), read tile by tile."""
    height, width = pixels.shape[1:]
    tile_height, tile_width = geometry.tile or (_round_up(height, geometry.multiple_of), _round_up(width, geometry.multiple_of))
    padding = ((0, 0), (0, max(0, tile_height - height)), (0, max(0, tile_width - width)))
    padded = np.pad(pixels, padding, mode="edge")
    rows = _starts(padded.shape[1], tile_height, geometry.overlap)
    columns = _starts(padded.shape[2], tile_width, geometry.overlap)
    if len(rows) == len(columns) == 1:
        return _softmax(predict(padded[None])[0])[:, :height, :width]
    window = _ramp(tile_height, geometry.overlap)[:, None] * _ramp(tile_width, geometry.overlap)[None, :]
    total: np.ndarray | None = None
    weight = np.zeros(padded.shape[1:], np.float32)
    for row in rows:
        for column in columns:
            place = (slice(None), slice(row, row + tile_height), slice(column, column + tile_width))
            probabilities = _softmax(predict(np.ascontiguousarray(padded[place])[None])[0])
            if total is None:
                total = np.zeros((len(probabilities), *padded.shape[1:]), np.float32)
            total[place] += probabilities * window
            weight[place[1:]] += window
    assert total is not None
    return (total / weight)[:, :height, :width]


def _decide(probabilities: np.ndarray, size: tuple[int, int]) -> Reading:
    """The likeliest class of every pixel at the picture's own size; one class in memory at a time."""
    mask = np.zeros(size, np.uint8)
    confidence = np.full(size, -1, np.float32)
    for index, plane in enumerate(probabilities):
        if plane.shape != size:
            plane = np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        higher = plane > confidence
        mask[higher] = index
        np.maximum(confidence, plane, out=confidence)
    return Reading(mask, confidence)


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles start so that neighbours overlap by at least `overlap` of a tile and the last ends at the edge."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // max(1, int(tile * (1 - overlap)))) + 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def _ramp(tile: int, overlap: float) -> np.ndarray:
    """Weights of a tile along one side: full in the middle, falling linearly over the overlap, never 0."""
    edge = max(1.0, tile * overlap)
    distance = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    return np.minimum(1.0, distance / edge).astype(np.float32)
