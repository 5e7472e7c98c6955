"""From a mask to things that can be listed: connected regions of a class, with box, outline, holes and confidence."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from annotations.run_lengths import counts_of_part, pack_counts
from annotations.whole_picture import Reading
from contracts.model import Model

SMALLEST = 16
"""Regions of fewer pixels are noise to somebody who wants a list."""
SUMMED_AT_ONCE = 2**22


@dataclass(frozen=True)
class Region:
    """Pixels of a class that touch, at a corner at least.

    `box`: left, top, right, bottom, the last pixel outside. `pixels`: bool, the region within its box. `rings`: its outline, then
    its holes, each int (n, 2) of x, y in the picture: the centres of the outermost pixels that belong to it.
    """

    class_id: int
    box: tuple[int, int, int, int]
    pixels: np.ndarray
    rings: list[np.ndarray]
    area: int

    @property
    def window(self) -> tuple[slice, slice]:
        left, top, right, bottom = self.box
        return slice(top, bottom), slice(left, right)


def find_regions(mask: np.ndarray, classes: Iterable[int], smallest: int = SMALLEST, largest: int | None = None) -> Iterator[Region]:
    """The regions of some classes that have at least `smallest` and at most `largest` pixels."""
    for index in classes:
        rings, family = cv2.findContours((mask == index).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        parents = [] if family is None else family[0, :, 3].tolist()
        holes: dict[int, list[np.ndarray]] = {}
        for ring, parent in zip(rings, parents, strict=True):
            if parent >= 0:
                holes.setdefault(parent, []).append(ring)
        for place, (ring, parent) in enumerate(zip(rings, parents, strict=True)):
            if parent >= 0:
                continue
            left, top, width, height = cv2.boundingRect(ring)
            if width * height < smallest:
                continue
            own = [ring, *holes.get(place, [])]
            canvas = np.zeros((height, width), np.uint8)
            cv2.drawContours(canvas, own, -1, 1, cv2.FILLED, offset=(-left, -top))
            area = cv2.countNonZero(canvas)
            if area >= smallest and (largest is None or area <= largest):
                box = (left, top, left + width, top + height)
                yield Region(index, box, canvas.view(bool), [part.reshape(-1, 2) for part in own], area)


def list_segments(reading: Reading, model: Model, smallest: int = SMALLEST, simplify: float = 0.0) -> dict[str, Any]:
    """Shares per class and every connected region but the background's, largest first, as plain data.

    Boxes are x1, y1, x2, y2 with the last pixel outside; polygons and holes are lists of [x, y], with corners left out that are
    nearer than `simplify` pixels to the line without them; a confidence is the mean probability of the pixels concerned.
    """
    regions = find_regions(reading.mask, range(1, len(model.classes)), smallest)
    segments = [_segment(region, reading, model, simplify) for region in regions]
    return list_shares(reading, model) | {"segments": sorted(segments, key=lambda segment: -segment["area"])}


def list_shares(reading: Reading, model: Model) -> dict[str, Any]:
    """The picture's size, and for every class how much of it the class covers."""
    counts, sums, sure = (np.zeros(256) for _ in range(3))
    step = max(1, SUMMED_AT_ONCE // reading.mask.shape[1])
    for top in range(0, len(reading.mask), step):
        ids, values = reading.mask[top : top + step].ravel(), reading.confidence[top : top + step].ravel()
        counts += np.bincount(ids, minlength=256)
        sums += np.bincount(ids, weights=values, minlength=256)
        sure += np.bincount(ids, weights=values > 0, minlength=256)
    sums /= _full(reading)
    return {
        "width": reading.mask.shape[1],
        "height": reading.mask.shape[0],
        "classes": [
            {
                "id": index,
                "name": name,
                "colour": list(model.palette[index]),
                "pixels": int(counts[index]),
                "share": counts[index] / reading.mask.size,
                "confidence": sums[index] / sure[index] if sure[index] else None,
            }
            for index, name in enumerate(model.classes)
        ],
    }


def list_coco(reading: Reading, model: Model, smallest: int = SMALLEST) -> dict[str, Any]:
    """The regions as COCO's JSON, with compressed run lengths; `score` is the mean probability."""
    height, width = reading.mask.shape
    annotations = []
    for number, region in enumerate(find_regions(reading.mask, range(1, len(model.classes)), smallest), start=1):
        left, top, right, bottom = region.box
        counts = pack_counts(counts_of_part(region.pixels, left, top, (height, width)))
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": region.class_id,
                "bbox": [left, top, right - left, bottom - top],
                "area": region.area,
                "iscrowd": 0,
                "score": confidence_of(region, reading),
                "segmentation": {"size": [height, width], "counts": counts},
            }
        )
    return {
        "images": [{"id": 1, "width": width, "height": height}],
        "categories": [{"id": index, "name": name} for index, name in enumerate(model.classes) if index],
        "annotations": annotations,
    }


def confidence_of(region: Region, reading: Reading) -> float:
    """The mean probability of a region's pixels."""
    return float(reading.confidence[region.window][region.pixels].mean(dtype=np.float64)) / _full(reading)


def _full(reading: Reading) -> int:
    """What stands for certainty in the numbers that this reading's confidences are kept in."""
    return 255 if reading.confidence.dtype == np.uint8 else 1


def _segment(region: Region, reading: Reading, model: Model, simplify: float) -> dict[str, Any]:
    outline, *holes = ([cv2.approxPolyDP(ring, simplify, True).reshape(-1, 2) for ring in region.rings]) if simplify else region.rings
    return {
        "class_id": region.class_id,
        "class_name": model.classes[region.class_id],
        "box": list(region.box),
        "area": region.area,
        "confidence": confidence_of(region, reading),
        "polygon": outline.tolist(),
        "holes": [hole.tolist() for hole in holes],
    }
