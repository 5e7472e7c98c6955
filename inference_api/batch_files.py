"""The files of a batch: its lock, what is taken in, and the zip of its answers."""

import errno
import fcntl
import json
import os
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from fastapi import UploadFile

from annotations.archives import Limits, archive_kind, is_archive, unpack
from annotations.untrusted import inner_path

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
        place = into / name
        if place.exists():
            place = place.with_name(f"{place.stem}-{number + 1}{place.suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "wb") as file:
            shutil.copyfileobj(upload.file, file, PIECE)
        if is_archive(place) or archive_kind(place) == "zip":
            packed = place.rename(into.parent / f"upload{place.suffix}")
            unpack(packed, into if len(uploads) == 1 else place.with_suffix(""), Limits(total=room), lambda *_: None)
            packed.unlink()


def pictures_of(folder: Path) -> list[Path]:
    """What came, in the order in which it is answered."""
    return sorted(path for path in (folder / "pictures").rglob("*") if path.is_file())


def pack(folder: Path, paths: list[Path], failures: dict[str, dict[str, str]]) -> None:
    """The answers under the names of their pictures, numbered where two have the same; segments.json; problems.json if there are."""
    taken: set[Path] = set()
    with zipfile.ZipFile(folder / ".result.zip", "w") as archive, open(folder / ".segments.json", "w") as segments:
        for number, path in enumerate(paths):
            name, answer = path.relative_to(folder / "pictures"), folder / "answers" / f"{number}.png"
            if not answer.with_suffix(".json").is_file():
                continue
            free = name.with_suffix(".png")
            free = free if free not in taken else free.with_stem(f"{free.stem}-{number + 1}")
            segments.write(f"{',' if taken else '{'}\n{json.dumps(str(name))}: {answer.with_suffix('.json').read_text()}")
            taken.add(free)
            archive.write(answer, str(free))  # PNGs are packed already
        segments.write("\n}\n" if taken else "{}\n")
        segments.close()
        archive.write(folder / ".segments.json", "segments.json", zipfile.ZIP_DEFLATED)
        if failures:
            archive.writestr("problems.json", json.dumps(failures, indent=2), zipfile.ZIP_DEFLATED)
    (folder / ".result.zip").rename(folder / "result.zip")
    (folder / ".segments.json").unlink()
    shutil.rmtree(folder / "pictures")
    shutil.rmtree(folder / "answers")
