"""Names and bytes that strangers chose: read as a path below a folder of ours, and refused with a cause and a cure."""

import errno
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.errors import Invalid, Problem, Unavailable

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,
    IndexError,
)
"""What Python's readers raise over bytes that make no sense."""


def inner_path(name: str) -> Path:
    """Where a file with a name that somebody else chose lies below a folder of ours: relative, and never outside.

    A backslash counts as a slash, as Windows packs it. Raises Invalid for names that lead out or that no disk can hold.
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    cure = "Rename it, or pack the folder itself instead of a path to it."
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in parts:
        raise Invalid(f"The name “{shown(name)}” leads out of the folder.", cure)
    if not parts or any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise Invalid(f"“{shown(name)}” is no name for a file.", cure)
    if len(parts) > 50 or len(name.encode()) > 1000 or max(len(part.encode()) for part in parts) > 255:
        raise Invalid(f"The name “{shown(name)}” is too long, or too deep in folders.", cure)
    return Path(*parts)


def shown(name: str) -> str:
    """A name as it may stand in a sentence: printable, and not endless."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return text if len(text) <= 80 else f"{text[:50]}…{text[-25:]}"


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what reading `name` or writing to the disk raises into problems with cause and cure."""
    try:
        yield
    except NotImplementedError as error:
        raise Invalid(f"{shown(name)} is packed in a way that is not read here ({error}).", "Pack it as an ordinary zip.") from error
    except DAMAGE as error:
        raise _damaged(name, error) from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # gzip and bz2 raise bare ones; a place before the file's begin is EINVAL
            raise _damaged(name, error) from error
        raise disk_problem(error, shown(name)) from error


def disk_problem(error: OSError, what: str) -> Problem:
    """Why `what` cannot be written, from the system's error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable(f"The disk is full: {what} does not fit on it.", "Free some space where the datasets lie, then go on.")
    cure = "Check that the disk is there and that Maskwright may read and write on it."
    return Unavailable(f"{what} cannot be read or written: {error.strerror or error}.", cure)


def _damaged(name: str, error: BaseException) -> Invalid:
    said = shown(str(error)).rstrip(".") or type(error).__name__
    return Invalid(f"{shown(name)} is damaged or was cut off ({said}).", "Pack it again, or send it again.")
