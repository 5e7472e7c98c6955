"""Reading in a folder that somebody else may write: a file there is a plain file, and a link, a pipe or a device is none.

A training owns its folder. Were a link of its followed, what a service may read could be read through it; a pipe would hold a reader up
for ever. So whoever reads out of a job's folder from outside reads through here.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MOST = 64 * 2**20
"""Bytes of a file that is read whole: a training can make one of any size at no cost, and memory is all services'."""
LONGEST = 4 * 2**20
"""Bytes of a line that is read whole."""
NONE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
"""What the system says of no file, of a link that is not to be followed, of one where a folder should be, and of a socket."""


def open_plain(path: Path, inside: Path | None = None) -> BinaryIO:
    """A file to read, its bytes. `inside`: the folder, above it, in which no folder on the way may be a link either.

    Raises FileNotFoundError where there is no plain file, whatever else may be there.
    """
    folder = path.parent if inside is None else inside
    *between, name = path.relative_to(folder).parts
    if ".." in (*between, name):
        raise _none(path)
    try:
        opened = _open(folder, between, name)
    except OSError as error:
        if error.errno in NONE:
            raise _none(path) from error
        raise
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise _none(path)
    return os.fdopen(opened, "rb")


def _open(folder: Path, between: list[str], name: str) -> int:
    """From folder to folder, so that no name is looked for again that may mean something else by then."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in between:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = deeper
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    finally:
        os.close(place)


def read_plain(path: Path, inside: Path | None = None, most: int = MOST) -> bytes:
    """All of a file. Raises FileNotFoundError, as `open_plain` does, also where it has more than so many bytes."""
    with open_plain(path, inside) as file:
        small = os.fstat(file.fileno()).st_size <= most
        if not small or len(content := file.read(most + 1)) > most:
            raise FileNotFoundError(errno.EFBIG, f"more than {most} bytes are there", str(path))
        return content


def plain_lines(path: Path, longest: int = LONGEST) -> Iterator[bytes]:
    """The whole lines of a file, one at a time and without their ends; none where there is no plain file.

    One that is longer is passed over, and the last one where it has no end yet.
    """
    try:
        with open_plain(path) as file:
            inside = False
            while part := file.readline(longest):
                if part.endswith(b"\n") and not inside:
                    yield part[:-1]
                inside = not part.endswith(b"\n")
    except FileNotFoundError:
        return


def is_plain(path: Path) -> bool:
    """Whether a plain file is there by itself."""
    found = _look(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path) -> bool:
    """Whether a folder is there by itself, and not a link to one."""
    found = _look(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def size_of(path: Path) -> int:
    """Bytes of a plain file; 0 where there is none."""
    found = _look(path)
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else 0


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (OSError, ValueError):  # the latter: no file can have this name
        return None


def _none(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no plain file is there", str(path))
