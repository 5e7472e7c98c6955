"""Cut a crop from a picture and its mask, and vary it. numpy and Pillow, the same for every engine.

A window is cut at a random scale, resized to the crop, mirrored, turned and recoloured. Masks go by nearest neighbour.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from annotations.dataset import IGNORE, Pair, read_mask, read_picture
from annotations.whole_picture import resize_mask, resize_picture, working_size
from contracts.hyperparameters import Hyperparameters

SCALES = 1.25
"""Windows are between 1/SCALES and SCALES times the crop, evenly in the logarithm."""
CONTRAST = 0.2
TINT = 0.06
BRIGHTNESS = 0.2
"""Half widths of the random changes of colour, in standard deviations of normalised pixels."""
PLACES = 2000
JITTER = 0.25
"""How far a crop's centre may lie from the pixel that it was drawn for, as a share of its side."""


@dataclass(frozen=True)
class Sample:
    """A training picture at its working size: uint8 (height, width, 3), its mask uint8 (height, width), and for each class
    that is in it, but the commonest, some of its pixels as int (n, 2) of row and column."""

    picture: np.ndarray
    mask: np.ndarray
    places: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        """In memory."""
        return self.picture.nbytes + self.mask.nbytes + sum(some.nbytes for some in self.places)


def read_sample(pair: Pair, short_side: int) -> Sample:
    """A picture and its mask at the working size."""
    picture, mask = read_picture(pair.picture), read_mask(pair.mask)
    size = working_size(mask.shape, short_side)
    small = resize_mask(mask, size)
    return Sample(resize_picture(picture, size), small, _places(small))


def _places(mask: np.ndarray) -> list[np.ndarray]:
    """Up to PLACES pixels of every class that is in the mask but the commonest, evenly spread over its pixels."""
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[IGNORE] = 0
    present = [value for value in np.flatnonzero(counts) if value != counts.argmax()]
    places = []
    for value in present:
        found = np.argwhere(mask == value)
        places.append(found[:: max(1, len(found) // PLACES)].copy())  # a view would keep all of them in memory
    return places


def crop_numbers(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one crop: the same for the same place in the same training, whatever came before it."""
    return np.random.default_rng([seed, epoch, index])


def cut_crop(sample: Sample, settings: Hyperparameters, numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop: uint8 (crop, crop, 3) and its mask uint8 (crop, crop), IGNORE beyond the picture's edge."""
    side = settings.crop
    if settings.augment:
        side = max(8, round(side * float(np.exp(numbers.uniform(-1, 1) * np.log(SCALES)))))
    top, left = _window(sample, side, settings.rare_class_share, numbers)
    picture, mask = _cut(sample.picture, top, left, side, None), _cut(sample.mask, top, left, side, IGNORE)
    if side != settings.crop:
        size = (settings.crop, settings.crop)
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return _turn(picture, mask, settings, numbers)


def recolour(pixels: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Other light and another camera: contrast, tint and brightness of normalised float32 (3, height, width)."""
    contrast = np.exp(numbers.uniform(-CONTRAST, CONTRAST) + numbers.uniform(-TINT, TINT, (3, 1, 1)))
    brightness = numbers.uniform(-BRIGHTNESS, BRIGHTNESS)
    return pixels * contrast.astype(np.float32) + np.float32(brightness)


def _window(sample: Sample, side: int, rare_class_share: float, numbers: np.random.Generator) -> tuple[int, int]:
    """Top left corner of the window; a window larger than the picture is centred on it."""
    height, width = sample.mask.shape
    if sample.places and numbers.random() < rare_class_share:
        places = sample.places[numbers.integers(len(sample.places))]
        centre = places[numbers.integers(len(places))] + numbers.uniform(-JITTER, JITTER, 2) * side
    else:
        centre = numbers.uniform(0, 1, 2) * (height, width)
    corner = []
    for middle, length in zip(centre, (height, width), strict=True):
        slack = length - side
        corner.append(slack // 2 if slack < 0 else int(np.clip(middle - side / 2, 0, slack)))
    return corner[0], corner[1]


def _cut(pixels: np.ndarray, top: int, left: int, side: int, fill: int | None) -> np.ndarray:
    """A square of `pixels`; beyond the edge the value `fill`, None: the nearest pixel again."""
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : top + side, max(left, 0) : left + side]
    if inside.shape[:2] == (side, side):
        return inside
    before = (max(-top, 0), max(-left, 0))
    after = (max(top + side - height, 0), max(left + side - width, 0))
    padding = [(before[0], after[0]), (before[1], after[1]), (0, 0)][: pixels.ndim]
    return np.pad(inside, padding, mode="edge") if fill is None else np.pad(inside, padding, constant_values=fill)


def _turn(picture: np.ndarray, mask: np.ndarray, settings: Hyperparameters, numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if settings.augment and numbers.integers(2):
        picture, mask = picture[:, ::-1], mask[:, ::-1]
    if settings.augment and settings.turns:
        turns = int(numbers.integers(4))
        picture, mask = np.rot90(picture, turns), np.rot90(mask, turns)
    return picture, mask
