"""Reading what other tools wrote: JSON, lists, and masks of every mode. Whatever is wrong is Invalid and names the file."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, TypeAdapter, ValidationError

from annotations.dataset import IGNORE, ORIENTATION, TURNS
from annotations.formats.source import Picture
from contracts.errors import Invalid

SIDEWAYS = 5
"""EXIF orientations from here on swap width and height."""
T = TypeVar("T", bound=BaseModel)
U = TypeVar("U")


def shown(file: Path) -> str:
    """A file as it is named to people: with its folder, without the way there."""
    return f"{file.parent.name}/{file.name}"


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Turns whatever a damaged file raises into Invalid with the file's name."""
    cure = "Copy or export the file again."
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise Invalid(f"{file} cannot be understood: {place}: {first['msg']}.", cure) from error
    except UnidentifiedImageError as error:  # Its own words hold the way to the file.
        raise Invalid(f"{file} cannot be read: it is no picture of a known kind.", cure) from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Invalid(f"{file} cannot be read ({reason}).", cure) from error


def read_model(file: Path, kind: type[T]) -> T:
    """A JSON file as what it should be."""
    with naming(shown(file)):
        return kind.model_validate_json(file.read_bytes())


def read_as(file: Path, adapter: TypeAdapter[U]) -> U:
    """A JSON file whose outermost value is not an object."""
    with naming(shown(file)):
        return adapter.validate_json(file.read_bytes())


def read_lines(file: Path) -> list[str]:
    """The lines of a text file without blanks around them; empty ones are left out."""
    with naming(shown(file)):
        return [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]


@dataclass(frozen=True)
class Frame:
    """A picture's size as people see it, (height, width), and the EXIF orientation that its pixels are stored in."""

    upright: tuple[int, int]
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        return self.upright[::-1] if self.orientation >= SIDEWAYS else self.upright


def open_picture(picture: Picture) -> Image.Image:
    """The picture, not decoded yet; to be closed by the caller."""
    return Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture()))


def read_frame(picture: Picture, name: str) -> Frame:
    """Size and orientation, from the header alone."""
    with naming(name), open_picture(picture) as image:
        orientation = int(image.getexif().get(ORIENTATION, 1))
        orientation = orientation if orientation in TURNS else 1
        width, height = image.size
        # Pillow gives the size of a TIFF upright already, that of other kinds as stored.
        swapped = orientation >= SIDEWAYS and image.format != "TIFF"
        return Frame((width, height) if swapped else (height, width), orientation)


def fit(mask: np.ndarray, frame: Frame, name: str) -> np.ndarray:
    """The mask upright: one that was drawn on the stored pixels of a sideways photograph is turned as the photograph is.

    Raises Invalid where it has neither size.
    """
    require_size(mask.shape[:2], frame, name)
    if mask.shape == frame.upright:
        return mask
    return np.asarray(Image.fromarray(mask).transpose(TURNS[frame.orientation]))


def require_size(size: tuple[int, ...], frame: Frame, name: str) -> None:
    """Raises Invalid unless (height, width) is the picture's size, upright or as stored."""
    if size not in (frame.upright, frame.stored):
        raise Invalid(
            f"{name} is made for {size[1]} × {size[0]} pixels, but its picture has {frame.upright[1]} × {frame.upright[0]}.",
            "Export it again from the picture as it is now, or put the picture back that was labelled.",
        )


def read_values(file: Path) -> np.ndarray:
    """What a mask stores: (height, width) of whole numbers, or uint8 (height, width, 3) where it holds colours.

    Palette masks give their indices; grey that is stored as colour gives its shade; transparent pixels are black.
    Raises Invalid for JPEG, whose values are not what was saved, and for modes that hold no classes.
    """
    with naming(shown(file)), Image.open(file) as image:
        _refuse_jpeg(file, image)
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("1", "L", "P"):
            return np.asarray(upright, np.uint8)
        if upright.mode in ("LA", "PA"):
            return np.asarray(upright, np.uint8)[..., 0]
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            return np.asarray(upright).astype(np.int32)
        if upright.mode in ("RGB", "RGBA", "RGBX"):
            return _grey_or_colours(np.asarray(upright.convert("RGBA") if upright.mode == "RGBA" else upright.convert("RGB")))
        raise Invalid(
            f"The mask {shown(file)} is stored as {upright.mode}, which holds no classes.",
            "Save masks as PNG: grey or with a palette for class ids, or RGB for class colours.",
        )


def read_colours(file: Path) -> np.ndarray:
    """A mask as uint8 (height, width, 3): a palette's colours instead of its indices."""
    with naming(shown(file)), Image.open(file) as image:
        _refuse_jpeg(file, image)
        if image.mode == "P":
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    values = read_values(file)
    if values.ndim == 3:
        return values
    if values.max(initial=0) > 255:
        raise value_problem(file, values, values > 255, "which is no colour", "Save the mask as an 8-bit PNG.")
    with Image.open(file) as image:
        shades = values * 255 if image.mode == "1" else values
    return np.repeat(shades.astype(np.uint8)[..., None], 3, axis=2)


def as_ids(values: np.ndarray, file: Path) -> np.ndarray:
    """Stored values as uint8 class ids; raises Invalid for colours and for numbers that are none."""
    if values.ndim == 3:
        row, column = np.argwhere((values != values[..., :1]).any(axis=2))[0]
        raise Invalid(
            f"The mask {shown(file)} holds colours, such as {hexadecimal(values[row, column])} at x {column}, y {row}, not class ids.",
            "Import it as colour_masks, and say which colour is which class.",
        )
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        wrong = (values < 0) | (values > IGNORE)
        raise value_problem(file, values, wrong, "but class ids go from 0 to 254 and 255 means “ignore”", "Renumber the classes.")
    return values.astype(np.uint8)


def value_problem(file: Path, values: np.ndarray, wrong: np.ndarray, why: str, cure: str) -> Invalid:
    """What to raise for values that should not be there: bool `wrong` (height, width) says where."""
    row, column = np.argwhere(wrong)[0]
    cause = (
        f"The mask {shown(file)} holds the value {values[row, column]} at x {column}, y {row} ({wrong.mean():.2%} of its pixels), {why}."
    )
    return Invalid(cause, cure)


def renumber(values: np.ndarray, ids: dict[int, int], file: Path) -> np.ndarray:
    """Class ids for stored values; 255 stays. Raises Invalid, naming the first value that has none."""
    checked = as_ids(values, file)
    table = np.full(256, -1, np.int16)
    table[IGNORE] = IGNORE
    for value, index in ids.items():
        table[value] = index
    mapped = table[checked]
    if mapped.min(initial=0) < 0:
        known = ", ".join(map(str, sorted(ids)))
        raise value_problem(file, checked, mapped < 0, "which no class has", f"Name its class, or correct the mask; known are {known}.")
    return mapped.astype(np.uint8)


def hexadecimal(colour: np.ndarray | tuple[int, int, int]) -> str:
    """A colour as people write it: #ff8000."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def _refuse_jpeg(file: Path, image: Image.Image) -> None:
    if image.format in ("JPEG", "MPO"):
        raise Invalid(
            f"The mask {shown(file)} is a JPEG: its compression changes the values at every edge, so the classes there are lost.",
            "Export the masks again as PNG.",
        )


def _grey_or_colours(pixels: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3 or 4) without its alpha: shades where every pixel is grey, else (height, width, 3)."""
    colours = pixels[..., :3]
    if pixels.shape[2] == 4:
        colours = np.where(pixels[..., 3:] == 0, 0, colours).astype(np.uint8)
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    return colours
