"""Small files in the formats that people bring, made on the spot, and imports of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotations.colours import voc_palette
from annotations.dataset import open_dataset, read_mask
from annotations.doctor.check import check_dataset
from annotations.formats import Choices, recognise_format
from annotations.importing import import_dataset
from annotations.run_lengths import brush_of

WIDTH, HEIGHT = 16, 12
SIZE = (HEIGHT, WIDTH)
PALETTE = voc_palette()


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def bring(source: Path, expected: str, choices: Choices | None = None, format: str | None = None) -> Path:
    """Recognise, import, check; the dataset's folder."""
    choices = choices or Choices()
    if format is None:
        assert recognise_format(source) == expected
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    destination = source.parent / "imported"
    found = import_dataset(source, destination, format, choices, quiet)
    assert found.format == expected
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}, "the original files were changed"
    assert {finding.code for finding in check_dataset(destination).errors} <= {"too_few", "white"}
    assert json.loads((destination / "source.json").read_text())["format"] == expected
    return destination


def mask_of(dataset: Path, stem: str) -> np.ndarray:
    return read_mask(dataset / "labels" / f"{stem}.png")


def split_of(dataset: Path) -> dict[str, list[str]]:
    return json.loads((dataset / "split.json").read_text())


def picture(file: Path, size: tuple[int, int] = SIZE, orientation: int = 1, shade: int = 120) -> Path:
    """A picture of (height, width) as it is stored."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(file.name) + shade).integers(0, 255, (*size, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, **({"exif": exif} if orientation != 1 else {}))
    return file


def save(file: Path, pixels: np.ndarray, palette: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(PALETTE.ravel().tolist())
    image.save(file)
    return file


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def ids(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask with boxes (class, top, left, bottom, right), the last two beyond the box."""
    mask = np.zeros(size, np.uint8)
    for index, top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = index
    return mask


ONE = ids((1, 2, 3, 7, 9), (2, 5, 6, 10, 14), (255, 0, 0, 1, 4))
TWO = ids((2, 1, 1, 4, 15))
NAMES = ["background", "crack", "hole"]
CLASSES = {"classes": 3, "classesname": NAMES}


def expect(dataset: Path, masks: dict[str, np.ndarray], classes: list[str]) -> None:
    opened = open_dataset(dataset)
    assert opened.classes == classes
    assert [pair.stem for pair in opened.pairs] == sorted(masks)
    for stem, mask in masks.items():
        np.testing.assert_array_equal(mask_of(dataset, stem), mask, err_msg=stem)


COLOURS = np.zeros((256, 3), np.uint8)
COLOURS[[0, 1, 2, 255]] = [(10, 20, 30), (255, 0, 0), (0, 200, 0), (90, 90, 91)]


def labelme_document(name: str | None, shapes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    shapes = [{"group_id": None, "flags": {}, **shape} for shape in shapes]
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}


def shape(label: Any, kind: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, **more}


def coco_document(file_name: str, segmentations: list[tuple[int, Any, int]]) -> dict[str, Any]:
    annotations = [
        {"id": number, "image_id": 1, "category_id": category, "segmentation": segmentation, "iscrowd": crowd, "bbox": [0, 0, 1, 1]}
        for number, (category, segmentation, crowd) in enumerate(segmentations, start=1)
    ]
    images = [{"id": 1, "file_name": file_name, "width": WIDTH, "height": HEIGHT}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "crack"}, {"id": 9, "name": "hole"}]}


def studio_task(number: int, address: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": number, "data": {"image": address}, "annotations": [{"id": 5, "result": [{**size, **each} for each in results]}]}


def brush(label: str, mask: np.ndarray) -> dict[str, Any]:
    return {"type": "brushlabels", "value": {"format": "rle", "rle": brush_of(mask > 0), "brushlabels": [label]}}


def index_source(folder: Path, mask: np.ndarray | None = None) -> Path:
    for stem in "ab":
        picture(folder / "images" / f"{stem}.png")
        save(folder / "labels" / f"{stem}.png", ONE)
    if mask is not None:
        save(folder / "labels" / "b.png", mask)
    write(folder / "objectclasses.json", CLASSES)
    return folder
