"""Overlapping tiles over a picture: where they lie, and how what they show is blended, a few rows at a time.

A picture may have 20,000 × 20,000 pixels and 255 classes: what is held at once is a row of tiles, of a part of its columns
where the row would be too much.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from contracts.model import Geometry

LARGEST_WHOLE = 2**21
"""Pixels that a network reads in one piece; of more, its activations would fill gigabytes."""
SIDE = 512
"""Pixels of a tile's side where the model itself says nothing."""
MOST_HELD = 2**24
"""Probabilities that are held at once: 64 MB of them."""


@dataclass(frozen=True)
class Grid:
    """Tiles, all of the same (height, width), over a picture of (height, width) = size: one at every row and column named."""

    size: tuple[int, int]
    tile: tuple[int, int]
    overlap: float
    rows: list[int]
    columns: list[int]

    @property
    def single(self) -> bool:
        return len(self.rows) == len(self.columns) == 1


@dataclass(frozen=True)
class Part:
    """Blended class probabilities (classes, rows, columns), from row `top` and column `start` of the picture on.

    It answers for the columns `own`; one column more on either side, where there is one, is for those who enlarge it.
    """

    top: int
    start: int
    own: tuple[int, int]
    probabilities: np.ndarray


def lay_tiles(size: tuple[int, int], geometry: Geometry) -> Grid:
    """The tiles in which a picture of (height, width) is read: one if it is small enough and the model says nothing else."""
    whole = tuple(_round_up(length, geometry.multiple_of) for length in size)
    largest = max(size) if whole[0] * whole[1] <= LARGEST_WHOLE else SIDE
    height, width = geometry.tile or tuple(min(length, _round_up(largest, geometry.multiple_of)) for length in whole)
    rows = _starts(size[0], height, geometry.overlap)
    columns = _starts(size[1], width, geometry.overlap)
    return Grid(size, (height, width), geometry.overlap, rows, columns)


def blend(grid: Grid, see: Callable[[int, int], np.ndarray]) -> Iterator[Part]:
    """Parts from the top to the bottom, then the next columns'; each is good until the next one is asked for.

    `see(row, column)`: probabilities of the tile that starts there. Every tile counts fully in its middle and less towards its
    edges; the weights of all tiles over a pixel add up to 1.
    """
    height, width = grid.size
    first = see(grid.rows[0], grid.columns[0])
    if grid.single:
        yield Part(0, 0, (0, width), first[:, :height, :width])
        return
    down, across = (_shares(*side, grid.overlap) for side in ((grid.rows, grid.tile[0]), (grid.columns, grid.tile[1])))
    for own in _side_by_side(grid, len(first)):
        start, stop = max(0, own[0] - 1), min(width, own[1] + 1)
        held = np.zeros((len(first), grid.tile[0], stop - start), np.float32)
        for index, row in enumerate(grid.rows):
            for place, column in enumerate(grid.columns):
                left, right = max(column, start), min(column + grid.tile[1], stop)
                if left >= right:
                    continue
                seen = first if (row, column) == (grid.rows[0], grid.columns[0]) else see(row, column)
                weights = down[index][:, None] * across[place][left - column : right - column]
                held[:, :, left - start : right - start] += seen[:, :, left - column : right - column] * weights
            below = grid.rows[index + 1] if index + 1 < len(grid.rows) else height
            yield Part(row, start, own, held[:, : below - row])
            held[:, : grid.tile[0] - (below - row)] = held[:, below - row :].copy()
            held[:, grid.tile[0] - (below - row) :] = 0


def _side_by_side(grid: Grid, classes: int) -> list[tuple[int, int]]:
    """The picture's columns in so few parts that a row of tiles of each can be held. Tiles at their borders are read twice."""
    width = grid.size[1]
    most = max(2 * grid.tile[1], MOST_HELD // (classes * grid.tile[0]))
    count = -(-width // most)
    edges = [round(index * width / count) for index in range(count + 1)]
    return list(pairwise(edges))


def _shares(starts: list[int], tile: int, overlap: float) -> list[np.ndarray]:
    """For every tile along one side, the weights of its pixels: those of all tiles over a pixel add up to 1."""
    total = np.zeros(starts[-1] + tile, np.float32)
    ramp = _ramp(tile, overlap)
    for start in starts:
        total[start : start + tile] += ramp
    return [ramp / total[start : start + tile] for start in starts]


def _ramp(tile: int, overlap: float) -> np.ndarray:
    """Weights of a tile along one side: full in the middle, falling linearly over the overlap, never 0."""
    edge = max(1.0, tile * overlap)
    distance = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    return np.minimum(1.0, distance / edge).astype(np.float32)


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles start so that neighbours overlap by at least `overlap` of a tile and the last ends at the edge."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // max(1, int(tile * (1 - overlap)))) + 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
