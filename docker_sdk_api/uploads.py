"""Uploads: files on their way in. They lie in <datasets>/.uploads/<id>/ until an import has taken them.

upload.json   what is to come: names and sizes; touched whenever something arrives
files/        what has arrived, under the names given; a file's length is how much of it is there

Nothing else is remembered, so a broken connection or a restart of the service loses nothing.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from annotations.untrusted import disk_problem, inner_path, shown
from contracts.errors import Invalid, NotFound, Taken, Unavailable
from contracts.job_folder import write_aside

FORGOTTEN_AFTER = 24 * 3600.0
"""Seconds after the last byte of an upload until it is forgotten."""


class FileToCome(BaseModel):
    """A file that is to be uploaded: its name, with folders where it has some, and its size in bytes."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    size: int = Field(ge=0)


class UploadRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    files: list[FileToCome] = Field(min_length=1, max_length=500_000)


class FileState(FileToCome):
    """`received`: bytes of the file that are there; sending goes on at this offset."""

    received: int


class UploadView(BaseModel):
    id: str
    files: list[FileState]


class WrongOffset(Taken):
    """A piece that does not begin where the file ends. The body of the answer says where that is."""

    def __init__(self, offset: int, received: int) -> None:
        super().__init__(f"Sent from byte {offset}, but {received} bytes are there.", f"Go on from byte {received}.")
        self.received = received

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "error": Taken.__name__, "received": self.received}


class Landing:
    """The open file that a piece of an upload is written to, from its offset on.

    Each piece keeps its own place: where a browser sends again while the broken connection is still open, both write the
    same bytes to the same place.
    """

    def __init__(self, path: Path, file: FileToCome, offset: int) -> None:
        self.file, self.received = file, offset
        self._opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)

    def write(self, piece: bytes) -> None:
        """Raises Invalid beyond the size that was announced, Unavailable where the disk is full; what came before stays."""
        fits = memoryview(piece)[: self.file.size - self.received]
        try:
            while fits:
                written = os.pwrite(self._opened, fits, self.received)
                self.received += written
                fits, piece = fits[written:], piece[written:]
        except OSError as error:
            raise disk_problem(error, shown(self.file.name)) from error
        if piece:
            cause = f"More bytes came for {shown(self.file.name)} than the {self.file.size} that were announced."
            raise Invalid(cause, "The file has changed meanwhile: delete the upload and begin again.")

    def close(self) -> None:
        os.close(self._opened)


class Uploads:
    """All uploads of a datasets folder. `largest`: bytes that one of them may have."""

    def __init__(self, datasets: Path, largest: int) -> None:
        self.folder = datasets / ".uploads"
        self.largest = largest
        self.forget_old()

    def create(self, request: UploadRequest) -> UploadView:
        """Room for the files. Raises Invalid for names that lead outside or clash, and where it is too much."""
        places = [inner_path(file.name) for file in request.files]
        _refuse_clashes(places)
        total = sum(file.size for file in request.files)
        if total > self.largest:
            cause = f"The upload has {total / 2**30:.3g} GiB; at most {self.largest / 2**30:.3g} GiB are taken."
            raise Invalid(cause, "Copy the folder to the machine and import it from there, or raise LARGEST_DATASET_UPLOAD.")
        self.forget_old()
        id = secrets.token_hex(8)
        with _disk(f"An upload of {total} bytes"):
            folder = self.folder / id
            (folder / "files").mkdir(parents=True)
            free = shutil.disk_usage(folder).free
            if total > free:
                shutil.rmtree(folder)
                cause = f"The upload has {total / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB of the disk are free."
                raise Unavailable(cause, "Free some space where the datasets lie, then upload again.")
            write_aside(folder / "upload.json", request.model_dump_json())
            for place, file in zip(places, request.files, strict=True):
                (folder / "files" / place).parent.mkdir(parents=True, exist_ok=True)
                if not file.size:
                    (folder / "files" / place).touch()
        return self.view(id)

    def view(self, id: str) -> UploadView:
        folder, files = self._read(id)
        states = [FileState(name=file.name, size=file.size, received=_received(folder, file)) for file in files]
        return UploadView(id=id, files=states)

    def land(self, id: str, index: int, offset: int) -> Landing:
        """Where a piece of file number `index` (from 0) is written. Raises WrongOffset where the file does not end there."""
        folder, files = self._read(id)
        if not 0 <= index < len(files):
            raise NotFound(f"The upload has no file number {index}: it has {len(files)}, counted from 0.", "Look at the upload.")
        received = _received(folder, files[index])
        if offset != received:
            raise WrongOffset(offset, received)
        with _disk(shown(files[index].name)):
            os.utime(folder / "upload.json")
            return Landing(folder / "files" / inner_path(files[index].name), files[index], offset)

    @contextmanager
    def complete(self, id: str) -> Iterator[Path]:
        """The folder with all files of an upload, which is kept while the block lasts. Raises Invalid where bytes are missing."""
        folder, _ = self._read(id)
        with held(folder):
            missing = [file for file in self.view(id).files if file.received < file.size]
            if missing:
                cause = f"{len(missing)} files of the upload are not complete, {shown(missing[0].name)} for one."
                raise Invalid(cause, "Send the rest, then import again.")
            yield folder / "files"

    def delete(self, id: str) -> None:
        """Raises Taken while an import reads it."""
        folder, _ = self._read(id)
        with held(folder):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_old(self) -> None:
        """Uploads that nothing was added to for a day, and that no import reads, are deleted."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(FileNotFoundError, NotFound, Taken):
                record = folder / "upload.json"
                if time.time() - (record if record.exists() else folder).stat().st_mtime > FORGOTTEN_AFTER:
                    with held(folder):
                        shutil.rmtree(folder, ignore_errors=True)

    def _read(self, id: str) -> tuple[Path, list[FileToCome]]:
        folder = self.folder / id
        if not re.fullmatch("[0-9a-f]{16}", id) or not (folder / "upload.json").is_file():
            cure = "It may have been deleted, imported, or forgotten after a day without a byte: begin a new one."
            raise NotFound(f"There is no upload {shown(id)}.", cure)
        return folder, _read_files(folder / "upload.json")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a folder against deletion by anybody, until the block or this process ends. Raises Taken while another holds it."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise NotFound("The upload has just been deleted.", "Begin a new one.") from None
    try:
        _lock(opened)
        yield
    finally:
        os.close(opened)


def _lock(opened: int) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Taken("An import is reading this upload.", "Wait until it has ended.") from None


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_problem(error, what) from error


def _received(folder: Path, file: FileToCome) -> int:
    try:
        return (folder / "files" / inner_path(file.name)).stat().st_size
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=8)
def _read_files(record: Path) -> list[FileToCome]:
    """The files of an upload, which never change; kept, since pieces come often and an upload can have very many files."""
    return [FileToCome.model_construct(**file) for file in json.loads(record.read_bytes())["files"]]


def _refuse_clashes(places: list[Path]) -> None:
    """Two files of one name, or a file where another needs a folder."""
    folders = {parent for place in places for parent in place.parents}
    clash = next((place for place, count in Counter(places).items() if count > 1 or place in folders), None)
    if clash is not None:
        raise Invalid(f"Two files of the upload have the name {shown(str(clash))}.", "Give each file a name of its own.")
