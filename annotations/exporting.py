"""Take a dataset elsewhere: as index masks, or as COCO with polygons or run lengths. What is imported again is the same."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from annotations.dataset import IGNORE, Dataset, Pair, open_dataset, read_mask
from annotations.importing import save_mask
from annotations.run_lengths import counts_of, pack_counts
from annotations.shapes import trace
from contracts.errors import Taken
from contracts.job_folder import folder_aside

Outlines = Literal["polygons", "rle", "compressed_rle"]


def export_index_masks(dataset: Path, destination: Path) -> None:
    """images/, labels/ and objectclasses.json. Raises Taken where something is at the destination, Invalid for no dataset."""
    content = open_dataset(dataset)
    _require_free(destination)
    with folder_aside(destination) as folder:
        for name in ("images", "labels"):
            (folder / name).mkdir()
        for pair in content.pairs:
            shutil.copyfile(pair.picture, folder / "images" / pair.picture.name)
            save_mask(read_mask(pair.mask), len(content.classes), folder / "labels" / f"{pair.stem}.png")
        shutil.copyfile(dataset / "objectclasses.json", folder / "objectclasses.json")


def export_coco(dataset: Path, destination: Path, outlines: Outlines = "polygons") -> None:
    """images/ and annotations.json: one annotation for each class of a picture; ignored pixels as a crowd of the first class.

    The background is a category of number 0 whose supercategory says so, and has no annotations.
    """
    content = open_dataset(dataset)
    _require_free(destination)
    with folder_aside(destination) as folder:
        (folder / "images").mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for pair in content.pairs:
            shutil.copyfile(pair.picture, folder / "images" / pair.picture.name)
            with Image.open(pair.mask) as mask:
                width, height = mask.size
            images.append({"id": len(images) + 1, "file_name": f"images/{pair.picture.name}", "width": width, "height": height})
            annotations += _annotations(pair, len(images), outlines)
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        document = {"images": images, "annotations": annotations, "categories": _categories(content)}
        (folder / "annotations.json").write_text(json.dumps(document, ensure_ascii=False), "utf-8")


def _categories(content: Dataset) -> list[dict[str, Any]]:
    return [{"id": index, "name": name, "supercategory": "" if index else "background"} for index, name in enumerate(content.classes)]


def _annotations(pair: Pair, image: int, outlines: Outlines) -> list[dict[str, Any]]:
    ids = read_mask(pair.mask)
    return [_annotation(ids == index, int(index), image, outlines) for index in np.unique(ids) if index]


def _annotation(area: np.ndarray, index: int, image: int, outlines: Outlines) -> dict[str, Any]:
    """One class of one picture. A crowd is always told in run lengths: readers expect no polygons there."""
    crowd = index == IGNORE
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    segmentation: Any
    if outlines == "polygons" and not crowd:
        segmentation = [[coordinate for corner in ring for coordinate in corner] for ring in trace(area)]
    else:
        counts = counts_of(area)
        segmentation = {"size": list(area.shape), "counts": pack_counts(counts) if outlines == "compressed_rle" else counts}
    return {
        "image_id": image,
        "category_id": 1 if crowd else index,
        "segmentation": segmentation,
        "area": int(area.sum()),
        "bbox": box,
        "iscrowd": int(crowd),
    }


def _require_free(destination: Path) -> None:
    if destination.exists():
        raise Taken(f"There is something at {destination.name} already.", "Choose another place.")
