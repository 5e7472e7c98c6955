"""The files of a batch: its lock, what is taken in, and the zip of its answers."""

import errno
import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, count
from pathlib import Path, PurePath
from typing import IO, TypeVar

from fastapi import UploadFile

from annotations.archives import Limits, archive_kind, is_archive, unpack
from annotations.untrusted import inner_path
from contracts.durable import force

AnyPath = TypeVar("AnyPath", bound=PurePath)
PIECE = 2**20
LOCKLESS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system says that knows no locks. One service alone can do without."""


def lock_of(folder: Path) -> IO[bytes] | None:
    """The lock of a batch, held until it is closed; None where somebody else holds it. Raises OSError where the folder is gone."""
    file = open(folder / "lock", "ab")  # noqa: SIM115  # closed by whoever holds it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in LOCKLESS:
            file.close()
            return None
    return file


def bytes_of(folder: Path) -> int:
    """What lies in a folder, from which others take away meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(f"{place}/{name}").st_size
    return found


def take_in(uploads: list[UploadFile], into: Path, room: int) -> None:
    """Files under their names, archives unpacked, up to so many bytes."""
    for number, upload in enumerate(uploads):
        name = inner_path(upload.filename or f"{number}")
        place = free_name(into / name, Path.exists)
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "wb") as file:
            shutil.copyfileobj(upload.file, file, PIECE)
        if is_archive(place) or archive_kind(place) == "zip":
            packed = place.rename(into.parent / f"upload{place.suffix}")
            # In a folder of its own: what it is unpacked to takes the place of what is there.
            folder = into if len(uploads) == 1 else free_name(place.with_suffix(""), Path.exists)
            unpack(packed, folder, Limits(total=room), lambda *_: None)
            packed.unlink()


def free_name(name: AnyPath, is_taken: Callable[[AnyPath], bool]) -> AnyPath:
    """The name itself, or the first of name-2, name-3, … that nothing has yet."""
    numbered = (name.with_stem(f"{name.stem}-{number}") for number in count(2))
    return next(found for found in chain((name,), numbered) if not is_taken(found))


def pictures_of(folder: Path) -> list[Path]:
    """What came, in the order in which it is answered."""
    return sorted(path for path in (folder / "pictures").rglob("*") if path.is_file())


def keep(folder: Path, numbers: Iterable[int]) -> None:
    """Force answers to the disk, before it is noted that they are there: whoever goes on after a power cut goes on behind them."""
    answers = folder / "answers"
    for number in numbers:
        for answer in (answers / f"{number}.png", answers / f"{number}.json"):
            with suppress(FileNotFoundError):  # of a picture that could not be read
                force(answer)
    force(answers)


def pack(folder: Path, paths: list[Path], failures: dict[str, dict[str, str]]) -> None:
    """The answers under the names of their pictures, numbered where two have the same; segments.json; problems.json if there are."""
    taken: set[Path] = set()
    with zipfile.ZipFile(folder / ".result.zip", "w") as archive, open(folder / ".segments.json", "w") as segments:
        for number, path in enumerate(paths):
            name, answer = path.relative_to(folder / "pictures"), folder / "answers" / f"{number}.png"
            if not answer.with_suffix(".json").is_file():
                continue
            free = free_name(name.with_suffix(".png"), taken.__contains__)
            segments.write(f"{',' if taken else '{'}\n{json.dumps(str(name))}: {answer.with_suffix('.json').read_text()}")
            taken.add(free)
            archive.write(answer, str(free))  # PNGs are packed already
        segments.write("\n}\n" if taken else "{}\n")
        segments.close()
        archive.write(folder / ".segments.json", "segments.json", zipfile.ZIP_DEFLATED)
        if failures:
            archive.writestr("problems.json", json.dumps(failures, indent=2), zipfile.ZIP_DEFLATED)
    force(folder / ".result.zip")
    (folder / ".result.zip").rename(folder / "result.zip")
    force(folder)  # before what it was made from goes
    (folder / ".segments.json").unlink()
    shutil.rmtree(folder / "pictures")
    shutil.rmtree(folder / "answers")
