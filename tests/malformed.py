"""Uploads that are no pictures, or worse: bytes with a name, drawn up by rule so that every run sends the same ones."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

MAGIC = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01",
    "WEBP": b"RIFF\x00\x10\x00\x00WEBPVP8 ",
    "BMP": b"BM",
    "TIFF": b"II*\x00\x08\x00\x00\x00",
    "big TIFF": b"MM\x00+\x00\x08\x00\x00",
    "GIF": b"GIF89a",
}
OTHERS = {
    "zip": b"PK\x03\x04" + bytes(200),
    "pdf": b"%PDF-1.7\n1 0 obj\n",
    "elf": b"\x7fELF" + bytes(100),
    "html": b"<!doctype html><title>x</title>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>',
    "xml bomb": b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
    "heic": b"\x00\x00\x00\x18ftypheic" + bytes(60),
    "psd": b"8BPS\x00\x01" + bytes(80),
    "json": b'{"picture": 1}',
    "nothing": b"",
    "one byte": b"\x00",
    "spaces": b" " * 1000,
    "text": b"ein Bild, wirklich",
    "nulls": bytes(5000),
    "ones": b"\xff" * 5000,
}


def sound(kind: str, size: tuple[int, int] = (37, 23)) -> bytes:
    """A file of grain, which no packing makes small."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(file, kind)
    return file.getvalue()


def uploads() -> Iterator[tuple[str, bytes]]:
    """Every upload with a name that says what is wrong with it. None is a picture."""
    yield from OTHERS.items()
    numbers = np.random.default_rng(11)
    for kind, magic in MAGIC.items():
        for index in range(6):
            yield f"{kind} magic, then garbage {index}", magic + numbers.bytes(300)
        yield f"{kind} magic alone", magic
        yield f"{kind} magic, then nulls", magic + bytes(500)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = sound(kind)
        for percent in range(2, 62, 4):
            yield f"{kind} cut off at {percent} %", whole[: len(whole) * percent // 100]
    for width, height in [(0, 5), (5, 0), (65_536, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (20_001, 20_000), (2**32 - 1, 1)]:
        yield f"PNG of {width} × {height}", _png(width, height)
        yield (
            f"BMP of {width} × {height}",
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, min(width, 2**31 - 1), min(height, 2**31 - 1), 1, 24, 0, 0, 0, 0, 0, 0),
        )
        yield f"GIF of {width % 2**16} × {height % 2**16}", b"GIF89a" + struct.pack("<HHBBB", width % 2**16, height % 2**16, 0, 0, 0) + b";"
        yield f"TIFF of {width} × {height}", _tiff(width, height)
    yield "PNG of 19,999 × 19,999 with nothing in it", _png(19_999, 19_999)
    yield "PNG whose pixels end early", _png(50, 50, zlib.compress(np.random.default_rng(6).bytes(151 * 50))[:3000])
    yield "PNG whose pixels are not packed", _png(50, 50, b"not zlib at all")
    yield "PNG with no colours for its indices, and nothing packed", _png(50, 50, b"", kind=3)
    yield "PNG of an unknown kind", _png(50, 50, b"", kind=5)
    yield "PNG of 3 bits", _png(50, 50, b"", depth=3)
    yield "PNG with a text that unpacks to 200 MB", _png(5, 5, extra=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * 2**20), 9)))
    yield "TIFF that points to itself", b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield "TIFF of a million entries", b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 65535)
    whole = bytearray(sound("PNG"))
    for place in range(16, 33):  # size, kind and their check sum
        yield f"PNG with a wrong byte at {place}", bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])


def _png(width: int, height: int, pixels: bytes = b"", depth: int = 8, kind: int = 2, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return MAGIC["PNG"] + _chunk(b"IHDR", head) + extra + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _tiff(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 10)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries)) + fields + bytes(4)
