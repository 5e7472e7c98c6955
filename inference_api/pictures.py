"""Pictures that strangers send, of any kind and size, as upright RGB rows. Everything wrong with one is a sentence.

Up to LARGE pixels a picture is an array. Of a larger one only what a network sees is kept, if that is less; else its rows lie on the
disk until they are asked for. Its decoder's memory is the one thing that grows with it, and of a JPEG no more is decoded than needed.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

import numpy as np
from fastapi import UploadFile
from PIL import Image, UnidentifiedImageError

from annotations.dataset import ORIENTATION, TURNS, as_rgb
from annotations.untrusted import shown
from annotations.whole_picture import PIXELS_AT_ONCE, Picture, shrink_rows, working_size
from contracts.errors import Invalid, TooLarge, Unavailable
from inference_api.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
LARGE = 2**24
"""Pixels: 16 million, a photograph of 4,096 × 4,096."""
LONGEST_SIDE = 65_535
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise over bytes that make no sense."""
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Uploaded:
    """A decoded picture. `size`: its own (height, width), upright; `pixels` have fewer where it was decoded smaller."""

    pixels: Picture
    size: tuple[int, int]


class LargePicture:
    """A decoded picture of any mode that turns the rows asked for into upright RGB: no second copy of it is ever made."""

    def __init__(self, stored: Image.Image, orientation: int) -> None:
        self.stored, self.orientation = stored, orientation
        width, height = stored.size
        self.shape = (width, height, 3) if orientation >= 5 else (height, width, 3)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        top, bottom, _ = rows.indices(self.shape[0])
        width, height = self.stored.size
        first, last = (top, bottom) if self.orientation in (1, 2, 5, 6) else (self.shape[0] - bottom, self.shape[0] - top)
        part = self.stored.crop((first, 0, last, height) if self.orientation >= 5 else (0, first, width, last))
        # What says how to turn the whole picture must not turn its part once more.
        part.info = {name: value for name, value in self.stored.info.items() if name == "transparency"}
        upright = part if self.orientation == 1 else part.transpose(TURNS[self.orientation])
        return np.asarray(as_rgb(upright))


class RowsOnDisk:
    """A picture's upright RGB rows in a file of their own: the memory of its decoder is free while a network reads it."""

    def __init__(self, picture: LargePicture) -> None:
        self.shape = picture.shape
        self.file = TemporaryFile()  # noqa: SIM115  # it lives as long as the picture
        step = max(1, PIXELS_AT_ONCE // self.shape[1])
        for top in range(0, self.shape[0], step):
            self.file.write(np.ascontiguousarray(picture[top : top + step]).data)
        self.file.flush()

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        top, bottom, _ = rows.indices(self.shape[0])
        row = self.shape[1] * 3
        read = os.pread(self.file.fileno(), (bottom - top) * row, top * row)
        return np.frombuffer(read, np.uint8).reshape(bottom - top, self.shape[1], 3)

    def __del__(self) -> None:
        self.file.close()


@contextmanager
def opened(upload: UploadFile, settings: Settings) -> Iterator[Image.Image]:
    """An upload's picture, of which only the head was read. Raises Invalid or TooLarge."""
    name = name_of(upload)
    upload.file.seek(0)
    with _explained(name):
        picture = Image.open(upload.file, formats=FORMATS)
    with picture:
        if picture.width * picture.height > settings.largest_picture or max(picture.size) > LONGEST_SIDE:
            cure = f"Send it in parts, or smaller: up to {settings.largest_picture // 10**6} million, and {LONGEST_SIDE} to a side."
            raise TooLarge(f"{name} has {picture.width} × {picture.height} pixels, too many.", cure)
        yield picture


def name_of(upload: UploadFile) -> str:
    return shown(upload.filename or "The file")


def is_large(picture: Image.Image) -> bool:
    return picture.width * picture.height > LARGE


def decode(picture: Image.Image, name: str, short_side: int | None) -> Uploaded:
    """The pixels of an opened picture. `short_side`: no more of it is needed, or None. Raises Invalid."""
    with _explained(name):
        if not is_large(picture):
            pixels = np.asarray(as_rgb(picture))
            return Uploaded(pixels, (pixels.shape[0], pixels.shape[1]))
        return _decode_large(picture, short_side)


def _decode_large(picture: Image.Image, short_side: int | None) -> Uploaded:
    width, height = picture.size
    if short_side is not None and picture.format in ("JPEG", "MPO"):
        # Twice of what is needed leaves the resizing enough to be smooth. Other kinds cannot be decoded smaller.
        needed = working_size((height, width), short_side * 2)
        picture.draft(None, (needed[1], needed[0]))
    picture.load()
    orientation = int(picture.getexif().get(ORIENTATION, 1))  # a TIFF has turned itself by now
    orientation = orientation if orientation in TURNS else 1
    if picture.mode in ("I", "F"):  # how far their values reach must be asked of all of them
        stored, orientation = as_rgb(picture).convert("L"), 1
    else:
        stored = picture
    pixels, size = LargePicture(stored, orientation), (width, height) if orientation >= 5 else (height, width)
    working = size if short_side is None else working_size(size, short_side)
    fits = working != size and working[0] * working[1] <= LARGE
    kept = shrink_rows(pixels, working, 0, working[0]) if fits else RowsOnDisk(pixels)
    picture.close()  # its gigabyte is free before the mask of its size is made
    return Uploaded(kept, size)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except BOMB as error:
        raise TooLarge(f"{name} has too many pixels to be taken.", "Send it in parts, or smaller.") from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            cause = f"The disk is full: the rows of {name} do not fit on it."
            raise Unavailable(cause, "Free some space where temporary files lie, or set TMPDIR to where there is more.") from error
        said = "it is of no kind that is known" if isinstance(error, UnidentifiedImageError) else shown(str(error)).rstrip(".")
        cure = "Send a JPEG, PNG, WebP, BMP, TIFF or GIF file; if it is one, save it anew."
        raise Invalid(f"{name} cannot be read as a picture ({said or type(error).__name__}).", cure) from error
