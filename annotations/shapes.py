"""From outlines to masks, and back. All masks here are bool (height, width).

Two ways to fill an outline are in use, and each format says which is its own:
fill_area    a pixel belongs to it if its centre does: COCO, Label Studio, and what is exported here
draw_*       the outline's own pixels belong to it too, as Pillow and OpenCV draw it: labelme, Supervisely
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Ring = Sequence[Sequence[float]]
"""Corners (x, y) in pixels from the top left corner; the last joins the first."""
FARTHEST = 1e6
"""Corners beyond are pulled in: no picture reaches there, and whole numbers stay exact."""


def fill_area(ring: Ring, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies inside the ring; where it crosses itself, what is inside an odd number of times."""
    height, width = size
    corners = _corners(ring)
    following = np.roll(corners, -1, axis=0)
    # Edges run downwards, so that one that is walked there and back crosses a row twice at the very same place.
    falling = (corners[:, 1] <= following[:, 1])[:, None]
    top, bottom = np.where(falling, corners, following), np.where(falling, following, corners)
    first = np.ceil(top[:, 1] - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(bottom[:, 1] - 0.5).clip(0, height).astype(np.int64)
    edges = np.repeat(np.arange(len(corners)), last - first)
    offsets = np.cumsum(last - first) - (last - first)
    rows = np.arange(len(edges)) - offsets[edges] + first[edges]
    start, end = top[edges], bottom[edges]
    crossing = start[:, 0] + (rows + 0.5 - start[:, 1]) * (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    columns = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(toggles[:, :width], axis=1) % 2 == 1


def draw_polygon(ring: Ring, size: tuple[int, int], holes: Sequence[Ring] = ()) -> np.ndarray:
    """An outline with its inside; holes keep their own outline."""

    def paint(draw: ImageDraw.ImageDraw) -> None:
        draw.polygon(_points(ring), fill=1, outline=1)
        for hole in (hole for hole in holes if len(hole) > 2):
            draw.polygon(_points(hole), fill=0, outline=1)

    return _drawn(size, paint)


def draw_rectangle(ring: Ring, size: tuple[int, int]) -> np.ndarray:
    """From one corner to the opposite one, in any order, both included."""
    corners = _corners(ring)
    box = [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
    return _drawn(size, lambda draw: draw.rectangle(box, fill=1, outline=1))


def draw_circle(centre: Sequence[float], edge: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """A disc from its centre and one point on its edge."""
    (x, y), (at_x, at_y) = _corners([centre, edge]).tolist()
    radius = float(np.hypot(at_x - x, at_y - y))
    return _drawn(size, lambda draw: draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1))


def draw_line(line: Ring, size: tuple[int, int], thickness: int) -> np.ndarray:
    """A line of so many pixels' thickness through all its points."""
    return _drawn(size, lambda draw: draw.line(_points(line), fill=1, width=thickness))


def draw_point(point: Sequence[float], size: tuple[int, int], radius: int) -> np.ndarray:
    """A dot around a point."""
    ((x, y),) = _corners([point]).tolist()
    return _drawn(size, lambda draw: draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1))


def ellipse_ring(centre: Sequence[float], radii: Sequence[float], degrees: float = 0, corners: int = 180) -> list[tuple[float, float]]:
    """An ellipse as a ring, turned clockwise on the screen."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    across, down = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    turn = np.deg2rad(degrees)
    x = centre[0] + across * np.cos(turn) - down * np.sin(turn)
    y = centre[1] + across * np.sin(turn) + down * np.cos(turn)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def trace(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Rings that fill_area turns into exactly this mask when their areas are joined: one a piece, its holes joined by a bridge.

    Corners lie on the edges between pixels, so they are whole numbers.
    """
    loops = _loops(mask)
    outer = [loop for loop in loops if _signed_area(loop) > 0]
    for hole in (loop for loop in loops if _signed_area(loop) < 0):
        # The smallest outline around a hole is its own: an outline further out has a larger area.
        around = [ring for ring in outer if _surrounds(ring, hole)]
        owner = min(around, key=_signed_area)
        # The bridge there and back is crossed twice, so it changes nothing of what is inside an odd number of times.
        owner += [owner[0], *hole, hole[0]]
    return outer


def _corners(ring: Ring) -> np.ndarray:
    """float64 (n, 2)."""
    return np.asarray(ring, np.float64).reshape(-1, 2).clip(-FARTHEST, FARTHEST)


def _points(ring: Ring) -> list[tuple[float, float]]:
    return [(x, y) for x, y in _corners(ring).tolist()]


def _drawn(size: tuple[int, int], paint: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    canvas = Image.new("L", (size[1], size[0]), 0)
    paint(ImageDraw.Draw(canvas))
    return np.asarray(canvas, np.uint8) == 1


def _loops(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The outlines between the mask and the rest, the mask always on the right hand: outer ones clockwise on the screen."""
    wide = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (down, right), (start, end) in {
        (-1, 0): ((0, 0), (1, 0)),  # nothing above: along the upper edge to the right
        (0, 1): ((1, 0), (1, 1)),
        (1, 0): ((1, 1), (0, 1)),
        (0, -1): ((0, 1), (0, 0)),
    }.items():
        border = mask & ~np.roll(wide, (-down, -right), (0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(border).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while steps:
        loops.append(_walk(steps))
    return loops


def _walk(steps: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """One outline, taken out of `steps`; where two touch at a corner it turns right, so that pieces stay apart."""
    start = here = next(iter(steps))
    before = (0, 0)
    ring = []
    while True:
        choices = steps[here]
        after = min(choices, key=lambda there: _turn(before, (there[0] - here[0], there[1] - here[1])))
        choices.remove(after)
        if not choices:
            del steps[here]
        step = (after[0] - here[0], after[1] - here[1])
        if step != before:
            ring.append(here)
        before, here = step, after
        if here == start:
            return ring


def _turn(before: tuple[int, int], after: tuple[int, int]) -> int:
    """-1 for a turn to the right on the screen, 0 straight on, 1 to the left."""
    return before[1] * after[0] - before[0] * after[1]


def _signed_area(ring: Ring) -> float:
    corners = _corners(ring)
    following = np.roll(corners, -1, axis=0)
    return float((corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]).sum() / 2)


def _surrounds(ring: Ring, hole: Ring) -> bool:
    """Whether the ring goes around the pixel inside of which the hole's first edge runs."""
    (x, y), (to_x, to_y) = _corners(hole)[:2]
    # The mask is on the right hand of a hole's edge; half a pixel there is a pixel's centre that belongs to the owner.
    along = np.sign([to_x - x, to_y - y])
    centre = (x + along[0] / 2 - along[1] / 2, y + along[1] / 2 + along[0] / 2)
    corners = _corners(ring)
    following = np.roll(corners, -1, axis=0)
    level = (corners[:, 1] > centre[1]) != (following[:, 1] > centre[1])
    start, end = corners[level], following[level]
    crossing = start[:, 0] + (centre[1] - start[:, 1]) * (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    return bool((crossing > centre[0]).sum() % 2)
