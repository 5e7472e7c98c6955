"""What augmentation does to pictures, to look at before a training: a sheet of crops exactly as one would be taught."""

import math

import numpy as np

from annotations.augment import crop_numbers, cut_crop, read_sample, recolour
from annotations.colours import class_colours, overlay
from annotations.dataset import Pair
from annotations.whole_picture import IMAGENET, resize_mask, resize_picture
from contracts.hyperparameters import Hyperparameters

CELL = 160
GAP = 6
COLUMNS = 6


def augmented_sheet(pairs: list[Pair], settings: Hyperparameters, count: int, seed: int, classes: int) -> np.ndarray:
    """A sheet, uint8 (height, width, 3), of `count` crops with their masks laid over, from pictures spread over the dataset."""
    chosen = [pairs[index * len(pairs) // count % len(pairs)] for index in range(count)]
    cells = [_cell(pair, settings, seed, index, classes) for index, pair in enumerate(chosen)]
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (CELL + GAP) - GAP, columns * (CELL + GAP) - GAP, 3), 255, np.uint8)
    for index, cell in enumerate(cells):
        top, left = index // columns * (CELL + GAP), index % columns * (CELL + GAP)
        sheet[top : top + CELL, left : left + CELL] = cell
    return sheet


def _cell(pair: Pair, settings: Hyperparameters, seed: int, index: int, classes: int) -> np.ndarray:
    numbers = crop_numbers(seed, 1, index)
    picture, mask = cut_crop(read_sample(pair, settings.short_side), settings, numbers)
    if settings.augment:
        picture = IMAGENET.undo(recolour(IMAGENET.apply(picture), numbers))
    small = resize_mask(np.ascontiguousarray(mask), (CELL, CELL))
    return overlay(resize_picture(picture, (CELL, CELL)), small, class_colours(classes), opacity=0.35)
