"""One short text for the whole content of a dataset: it changes when a pixel, a pair, a class name or the split does."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from annotations.split import SPLIT_FILE
from contracts.durable import checksum

CLASSES_FILE = "objectclasses.json"


def file_digest(path: Path) -> str:
    """64 hexadecimal digits over a file's bytes; empty for a file that is not there."""
    try:
        return checksum(path)
    except FileNotFoundError:
        return ""


def fingerprint(classes: list[str], split: bytes, pairs: Iterable[tuple[str, str, str]]) -> str:
    """32 hexadecimal digits over the class names, the bytes of a stored split, and (stem, picture digest, mask digest).

    What the files are called besides their stem, and when they were written, changes nothing.
    """
    content = json.dumps([classes, split.decode(errors="replace"), sorted(pairs)], ensure_ascii=False)
    return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def stored_split(folder: Path) -> bytes:
    """The bytes of split.json, none where there is no such file."""
    file = folder / SPLIT_FILE
    return file.read_bytes() if file.is_file() else b""
