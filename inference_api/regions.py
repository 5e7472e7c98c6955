"""From a mask to things that can be listed: connected regions of a class, with box, outline and confidence."""

from typing import Any

import cv2
import numpy as np

from annotations.whole_picture import Reading
from contracts.model import Model

SMALLEST = 16
"""Regions of fewer pixels are noise to somebody who wants a list."""


def list_segments(reading: Reading, model: Model) -> dict[str, Any]:
    """Shares per class and every connected region but the background's, largest first, as plain data.

    Boxes are x1, y1, x2, y2 with the last pixel outside; polygons are the outer outline as [x, y] points; a confidence is
    the mean probability of the pixels concerned.
    """
    segments = [segment for index in range(1, len(model.classes)) for segment in _regions(reading, index, model.classes[index])]
    return {
        "width": reading.mask.shape[1],
        "height": reading.mask.shape[0],
        "classes": [_share(reading, index, model) for index in range(len(model.classes))],
        "segments": sorted(segments, key=lambda segment: -segment["area"]),
    }


def _share(reading: Reading, index: int, model: Model) -> dict[str, Any]:
    chosen = reading.mask == index
    pixels = int(chosen.sum())
    return {
        "id": index,
        "name": model.classes[index],
        "colour": list(model.palette[index]),
        "pixels": pixels,
        "share": pixels / reading.mask.size,
        "confidence": float(reading.confidence[chosen].mean()) if pixels else None,
    }


def _regions(reading: Reading, index: int, name: str) -> list[dict[str, Any]]:
    chosen = (reading.mask == index).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(chosen, connectivity=8)
    regions = []
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in boxes[label])
        if area < SMALLEST:
            continue
        window = (slice(top, top + height), slice(left, left + width))
        part = labels[window] == label
        outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outline = max(outlines, key=len).reshape(-1, 2) + np.array([left, top])
        regions.append(
            {
                "class_id": index,
                "class_name": name,
                "box": [left, top, left + width, top + height],
                "area": area,
                "confidence": float(reading.confidence[window][part].mean()),
                "polygon": outline.tolist(),
            }
        )
    return regions
