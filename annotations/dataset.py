"""A dataset: a folder with images/, labels/ (8-bit index masks) and objectclasses.json, paired by file stem."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from contracts.errors import Invalid

PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
IGNORE = 255
"""Pixels of this value in a mask neither teach nor score."""
MOST_CLASSES = 255
ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned; TURNS says how, for every value but 1, which is upright."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Pair:
    """A picture and its mask. `stem` is the file name that both share, without the ending."""

    stem: str
    picture: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    folder: Path
    classes: list[str]
    pairs: list[Pair]

    @property
    def name(self) -> str:
        return self.folder.name

    def pair(self, stem: str) -> Pair:
        for pair in self.pairs:
            if pair.stem == stem:
                return pair
        raise Invalid(f"The dataset {self.name} has no picture {stem}.", "Open the dataset again: it has changed since.")


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names; hidden files and other endings are passed over."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_picture_name(entry.name) and entry.is_file()]
    return [folder / name for name in sorted(names)]


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is read as a picture or a mask."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in PICTURE_ENDINGS  # noqa: PTH122  # ten thousand times a check


def read_classes(folder: Path) -> list[str]:
    """Class names in the order of their ids, from objectclasses.json. Raises Invalid with what is wrong in it."""
    file = folder / "objectclasses.json"
    cure = f'Write {file.name} into {folder.name}/, such as {{"classes": 2, "classesname": ["background", "crack"]}}.'
    if not file.is_file():
        raise Invalid(f"The dataset {folder.name} has no {file.name}, which names its classes.", cure)
    try:
        content = json.loads(file.read_bytes())
        names = [str(name) for name in content["classesname"]]
        "".join(names).encode()  # half of a sign, as JSON can spell it, is in no name
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"{file.name} of the dataset {folder.name} cannot be read.", cure) from None
    if not 2 <= len(names) <= MOST_CLASSES:
        raise Invalid(f"{file.name} names {len(names)} classes.", f"Name 2 to {MOST_CLASSES}, the background among them.")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise Invalid(f"{file.name} names a class twice or not at all.", "Give every class a name of its own.")
    if content.get("classes", len(names)) != len(names):
        raise Invalid(f"{file.name} says {content['classes']} classes and names {len(names)}.", "Make the two agree.")
    return names


def open_dataset(folder: Path) -> Dataset:
    """The dataset in a folder, its pairs in the order of their stems.

    Only what pairs is in it: annotations.doctor.check names the rest. Raises Invalid where a folder or the classes are missing.
    """
    if not folder.is_dir():
        raise Invalid(f"There is no dataset folder {folder.name}.", "Put it into the datasets folder, or choose another.")
    for name in ("images", "labels"):
        if not (folder / name).is_dir():
            raise Invalid(f"The dataset {folder.name} has no folder {name}/.", "Put pictures into images/ and masks into labels/.")
    masks = {path.stem: path for path in picture_files(folder / "labels")}
    pictures = {path.stem: path for path in picture_files(folder / "images")}
    pairs = [Pair(stem, pictures[stem], masks[stem]) for stem in sorted(pictures.keys() & masks.keys())]
    return Dataset(folder, read_classes(folder), pairs)


def as_rgb(picture: Image.Image) -> Image.Image:
    """Any picture as upright RGB: EXIF orientation applied, more than 8 bits scaled to 8, transparency laid on white.

    It is the picture itself where nothing is to be done.
    """
    picture.load()  # a TIFF turns itself
    turned = picture.getexif().get(ORIENTATION) in TURNS
    upright = ImageOps.exif_transpose(picture) if turned else picture
    if upright.mode in ("I", "F"):
        return Image.fromarray(_as_bytes(np.asarray(upright))).convert("RGB")
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")  # what need not change is not copied


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Grey values of 32 bits as uint8. Their file does not say how far they reach: 1 (fractions), 255 or 65,535."""
    known = np.nan_to_num(values.astype(np.float32), nan=0, posinf=0, neginf=0)
    highest = known.max(initial=0)
    if highest > 255:
        known /= 256
    elif highest <= 1 and values.dtype.kind == "f":
        known *= 255
    return known.clip(0, 255).astype(np.uint8)


def read_picture(path: Path) -> np.ndarray:
    """A picture as uint8 (height, width, 3), upright."""
    with Image.open(path) as picture:
        return np.asarray(as_rgb(picture))


def read_mask(path: Path) -> np.ndarray:
    """A mask as uint8 (height, width) of class ids; IGNORE where nobody knows. Raises Invalid for other modes."""
    with Image.open(path) as mask:
        if mask.mode not in ("L", "P", "1"):
            raise Invalid(
                f"The mask {path.name} holds {mask.mode} colours, not class ids.",
                "Save masks as 8-bit PNGs whose pixel value is the class id.",
            )
        upright = ImageOps.exif_transpose(mask)
        return np.asarray(upright, dtype=np.uint8)
