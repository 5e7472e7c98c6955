"""PNG files written a few rows at a time: the picture of an answer is never whole in memory, and small ones are quick."""

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

Colours = list[tuple[int, int, int]]
GREY, RGB, PALETTE = 0, 2, 3
LEFT, ABOVE = 1, 2
"""PNG's filters: a byte less its neighbour on the left, or above."""


def write_png(file: BinaryIO, size: tuple[int, int], strips: Iterable[np.ndarray], palette: Colours | None = None) -> None:
    """A picture of (height, width) = size from strips of its rows, uint8 (rows, width), or (rows, width, 3) for one in colours.

    With a palette, values are indices into it. (PNG: ISO/IEC 15948.)
    """
    height, width = size
    file.write(b"\x89PNG\r\n\x1a\n")
    above, packer, kind = None, None, GREY
    for strip in strips:
        if packer is None:
            kind = PALETTE if palette is not None else RGB if strip.ndim == 3 else GREY
            # Runs are all that masks are made of: to find nothing else is quicker, and takes little memory that must be cleared first.
            # Photographs have more to find.
            memory, strategy = (4, zlib.Z_RLE) if kind == PALETTE else (9, zlib.Z_DEFAULT_STRATEGY)
            packer = zlib.compressobj(1, zlib.DEFLATED, 15, memory, strategy)
            _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
            if palette is not None:
                _write_chunk(file, b"PLTE", np.array(palette, np.uint8).tobytes())
        flat = strip.reshape(len(strip), -1)
        packed = packer.compress((_from_left(flat) if kind == RGB else _from_above(flat, above)).data)
        above = flat[-1].copy()
        if packed:
            _write_chunk(file, b"IDAT", packed)
    if packer is not None:
        _write_chunk(file, b"IDAT", packer.flush())
    _write_chunk(file, b"IEND", b"")


def _from_left(rows: np.ndarray) -> np.ndarray:
    filtered = np.full((rows.shape[0], rows.shape[1] + 1), LEFT, np.uint8)
    filtered[:, 1:4] = rows[:, :3]
    np.subtract(rows[:, 3:], rows[:, :-3], out=filtered[:, 4:])
    return filtered


def _from_above(rows: np.ndarray, above: np.ndarray | None) -> np.ndarray:
    filtered = np.full((rows.shape[0], rows.shape[1] + 1), ABOVE, np.uint8)
    np.subtract(rows[0], 0 if above is None else above, out=filtered[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _write_chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
