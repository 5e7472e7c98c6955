"""What is promised is written aside, forced to the disk and put in its place by a rename; a sealed folder knows its checksums."""

import errno
import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from contracts.errors import Broken
from contracts.room import LEAST, free, full, is_full

MANIFEST = "manifest.json"
MANY = 64
"""Of more files than these it is quicker to force the whole disk than each by itself."""


def write_aside(path: Path, content: bytes | str, durable: bool = True) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part; if `durable`, even after a power cut.

    Raises contracts.errors.Full where the disk has no room; then the old one is still there.
    """
    with file_aside(path, durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def file_aside(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A new file to fill, which takes the place of `path` only when the block ends well: for what is not held in memory. Raises Full."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        aside.unlink(missing_ok=True)  # nobody's by its name; and what is there must not lead to another file
        with open(aside, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        no_room = is_full(error, path.parent)
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if no_room:
            raise full(path) from error
        raise
    if durable:
        force(path.parent)


@contextmanager
def folder_aside(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `path` only when the block ends well, and is on the disk by then.

    What it replaces goes, or to `keep`. Raises contracts.errors.Full where the disk had no room for it.
    """
    aside, former = path.with_name(f".{path.name}.new"), keep or path.with_name(f".{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        force_all(aside)
        if free(aside) < LEAST:  # who writes through a buffer and never looks back may have lost its last part
            raise full(path)
    except BaseException as error:
        no_room = is_full(error, aside)
        shutil.rmtree(aside, ignore_errors=True)
        if no_room:
            raise full(path) from error
        raise
    if path.exists():
        shutil.rmtree(former, ignore_errors=True)
        path.rename(former)
    aside.rename(path)
    force(path.parent)
    if keep is None:
        shutil.rmtree(former, ignore_errors=True)


def append_line(path: Path, line: bytes, durable: bool) -> None:
    """Add a line to a file that has one writer. What a kill or a full disk left of a last line goes first.

    Raises contracts.errors.Full where there is no room; the file is then as it was. Raises Broken where it is no plain file.
    """
    strange = Broken(f"{path} is no plain file, so nothing is written to it.", "The training made it one: delete the job.")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise strange from error
        if is_full(error, path.parent):
            raise full(path) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise strange
        end = _whole_lines(file)
        os.ftruncate(file, end)
        try:
            _write_all(file, line + b"\n", end)
            if durable:
                os.fsync(file)
        except OSError as error:
            os.ftruncate(file, end)
            if is_full(error, path.parent):
                raise full(path) from error
            raise
    finally:
        os.close(file)


def _write_all(file: int, content: bytes, place: int) -> None:
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def _whole_lines(file: int) -> int:
    """The offset behind the last line end."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65536)
        part = os.pread(file, end - start, start)
        if b"\n" in part:
            return start + part.rindex(b"\n") + 1
        end = start
    return 0


def seal(folder: Path) -> None:
    """Write down size and checksum of every file of a folder, beside them."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST]
    files = {path.name: {"bytes": path.stat().st_size, "sha256": checksum(path)} for path in paths}
    write_aside(folder / MANIFEST, json.dumps(files, indent=1))


def is_sealed(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder, a part of a sentence; "" where every file is as it was when it was sealed."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())
        for name, seen in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != seen["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {seen['bytes']}"
            if checksum(path) != seen["sha256"]:
                return f"{name} has another checksum than when it was written"
    except (ValueError, AttributeError, TypeError, KeyError):
        return f"{MANIFEST} cannot be read"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return ""


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digits over a file's bytes, a part at a time."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def force_all(folder: Path) -> None:
    """A folder with everything in it, to the disk."""
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    if len(paths) > MANY:
        os.sync()
        return
    for path in (*paths, folder):
        force(path)


def force(path: Path) -> None:
    """A file's contents, or a folder's list of names, to the disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
