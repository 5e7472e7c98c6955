"""One picture and its mask, each read from disk and decoded once: all that a check needs to know of them, as plain data.

Runs in the processes of annotations.doctor.checking, so it imports little and keeps nothing.
"""

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from annotations.dataset import IGNORE, ORIENTATION, TURNS
from annotations.doctor.duplicates import SAMPLES, look_of

FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for files that are broken, each in its own way."""
LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Endings of masks that can be written again as they were read."""
PNG = b"\x89PNG\r\n\x1a\n"
MOST_COLOURS = 256
PLACES = 12
"""Of so many values or colours of a faulty mask the first pixel is looked up."""


@dataclass
class Side:
    """A file as it was decoded. `trouble`: why it was not; `width` and `height` are upright; `turn` is its EXIF orientation."""

    name: str
    digest: str = ""
    trouble: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    turn: int = 1
    frames: int = 1


@dataclass
class Facts:
    """A pair. `counts`: pixels per value (of 8-bit and deeper masks) or per colour #rrggbb (of colour masks, None: too many).

    `places`: the first pixel (x, y) of values or colours that are no class id.
    """

    stem: str
    picture: Side
    mask: Side
    look: int = 0
    counts: dict[str, int] | None = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Whether the mask holds 8-bit values without loss, as class ids must be."""
        return self.is_lossless and self.mask.mode in ("L", "P", "1")

    @property
    def is_lossless(self) -> bool:
        """Whether the mask was read, from a format that keeps every pixel."""
        return not self.mask.trouble and self.mask.name.lower().endswith(tuple(LOSSLESS))

    def values(self) -> dict[int, int]:
        """Pixels per value of a mask that is no colour mask; empty for others."""
        return {} if self.counts is None else {int(value): count for value, count in self.counts.items() if value[0] != "#"}


def examine(stem: str, picture: Path, mask: Path, classes: int) -> Facts:
    """Decode both files. Never raises for what is in them."""
    facts = Facts(stem, Side(picture.name), Side(mask.name))
    try:
        with _open(picture, facts.picture, reduced=True) as image:
            facts.look = look_of(image if facts.picture.turn == 1 else _small_upright(image, facts.picture.turn))
    except FAULTS as error:
        facts.picture.trouble = _sentence(error)
    try:
        with _open(mask, facts.mask) as image:
            _count(image, facts, classes)
    except FAULTS as error:
        facts.mask.trouble = _sentence(error)
    return facts


def _open(path: Path, side: Side, reduced: bool = False) -> Image.Image:
    """The decoded file. `reduced`: a JPEG may come smaller, down to SAMPLES a side. All of its data is read all the same, so
    that a file which was cut off is found out, but its pixels take half the time."""
    data = path.read_bytes()
    side.digest = hashlib.sha256(data).hexdigest()
    _refuse_damage(data)
    image = Image.open(io.BytesIO(data))
    stored = image.size
    drafted = reduced and image.draft(None, (SAMPLES, SAMPLES)) is not None
    image.load()
    size = stored if drafted else image.size  # a TIFF is known to lie on its side only once it is decoded
    side.mode, side.turn = image.mode, image.getexif().get(ORIENTATION, 1)
    side.frames = int(getattr(image, "n_frames", 1))
    side.width, side.height = size if side.turn < 5 else size[::-1]
    return image


def _refuse_damage(data: bytes) -> None:
    """Compare the checksums of a PNG, which Pillow passes over when it decodes: wrong pixels may look like right class ids."""
    place = 8
    while data.startswith(PNG) and place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(data):
            return  # cut off: decoding says so
        if zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise OSError("its checksum is wrong: bytes have changed since it was written")
        place = end + 4


def _small_upright(image: Image.Image, orientation: int) -> Image.Image:
    small = image.resize((min(image.width, 256), min(image.height, 256)), Image.Resampling.NEAREST)
    return turn(small, orientation)


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """A picture as an EXIF orientation says that it is to be shown; 1 and unknown ones leave it as it is."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _count(image: Image.Image, facts: Facts, classes: int) -> None:
    if image.mode in ("L", "P"):
        facts.counts = {str(value): count for value, count in enumerate(image.histogram()) if count}
    elif image.mode == "1":
        facts.counts = {str(value): count for value, count in zip((0, 1), image.histogram()[::IGNORE], strict=False) if count}
    elif image.mode == "LA":
        _count(image.getchannel(0), facts, classes)
        return
    elif image.mode.startswith("I"):
        values, counts = np.unique(np.asarray(image), return_counts=True)
        facts.counts = {str(value): int(count) for value, count in zip(values[:4096], counts, strict=False)}
    else:
        _count_colours(image.convert("RGB"), facts)
        return
    strange = [int(value) for value in facts.counts if not 0 <= int(value) < classes and (int(value) != IGNORE or _only_white(facts))]
    if strange:
        pixels = np.asarray(turn(image, facts.mask.turn))
        for value in strange[:PLACES]:
            facts.places[str(value)] = _first(pixels == value)


def _only_white(facts: Facts) -> bool:
    return set(facts.counts or {}) <= {"0", str(IGNORE)}


def _count_colours(image: Image.Image, facts: Facts) -> None:
    """Pixels per colour, the commonest first, and where the first of each is."""
    image = turn(image, facts.mask.turn)
    found = image.getcolors(MOST_COLOURS)
    if found is None:
        facts.counts = None
        return
    ordered = sorted(found, key=lambda item: (-item[0], item[1]))
    facts.counts = {colour_name(colour): count for count, colour in ordered}  # type: ignore[arg-type]  # RGB has three channels
    packed = np.asarray(image, np.int64) @ np.array([65536, 256, 1])
    for name in list(facts.counts)[:PLACES]:
        facts.places[name] = _first(packed == int(name[1:], 16))


def colour_name(colour: tuple[int, int, int]) -> str:
    """#rrggbb"""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _first(where: np.ndarray) -> tuple[int, int]:
    """x and y of the first true pixel of (height, width)."""
    y, x = divmod(int(where.argmax()), where.shape[1])
    return x, y


def _sentence(error: BaseException) -> str:
    """Pillow's words without the address of the buffer that it read from."""
    text = str(error).partition(" <_io")[0]
    return text or type(error).__name__
