"""Archives that strangers packed: unpacked into a new folder, or refused with the reason. Never a byte lands outside of it.

What an archive says of itself is not believed: bytes are counted as they come out, and every name is read as a path below
the folder. Packed with Python's own zipfile and tarfile, under limits of our own.
"""

import bz2
import errno
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from annotations.untrusted import disk_problem, explained, inner_path, shown
from contracts.errors import Invalid
from contracts.job_folder import folder_aside

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Endings of the archives that are read."""
UNREAD_ENDINGS = (".7z", ".rar", ".tar.zst", ".tzst", ".cab")
STARTS = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PK\x07\x08": "zip in several parts",
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"MSCF": "CAB",
}
READ = ("zip", "tar", "gz", "bz2", "xz")
LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}
"""What desktops leave beside people's files; passed over."""
ALLOWANCE = 256 * 2**20
"""Bytes that any archive may unpack to, however small it is: empty masks pack a thousandfold, and rightly so."""
PIECE = 2**20
LARGEST_DIRECTORY = 64 * 2**20
"""Bytes of a zip's list of contents, which has to be held in memory: some 600,000 files."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: bytes in all, bytes for each byte of the archive, files."""

    total: int = 256 * 2**30
    ratio: float = 100
    files: int = 500_000


def is_archive(path: Path) -> bool:
    """Whether a file is meant as an archive, by its name or, where that has no ending, by its first bytes."""
    return path.name.lower().endswith(ENDINGS + UNREAD_ENDINGS) or (not path.suffix and archive_kind(path) != "")


def archive_kind(path: Path) -> str:
    """`zip`, `tar`, `gz`, `bz2`, `xz`, the name of a kind that is not read, or nothing: by the first bytes."""
    with open(path, "rb") as file:
        start = file.read(265)
    for magic, kind in STARTS.items():
        if start.startswith(magic):
            return kind
    return "tar" if start[257:262] == b"ustar" or path.suffix.lower() == ".tar" else ""


def unpack(archive: Path, into: Path, limits: Limits, progress: Callable[[int, int], None]) -> None:
    """All files of a zip or tar (.gz, .bz2, .xz) into the new folder `into`, which is there complete or not at all.

    progress: called with the bytes of the archive read so far, and of all of it.
    Raises Invalid where the archive is hostile, damaged, encrypted or of another kind, Unavailable where the disk is full.
    """
    kind = archive_kind(archive)
    if kind not in READ:
        what = f"is a {kind} archive" if kind else "is neither a zip nor a tar archive"
        raise Invalid(f"{shown(archive.name)} {what}, which is not read here.", "Pack the folder as .zip, .tar.gz or .tar.xz.")
    with explained(archive.name), folder_aside(into) as aside:
        target = _Target(archive, aside, limits, progress)
        if kind == "zip":
            _unpack_zip(archive, target)
        else:
            _unpack_tar(archive, kind, target)
        if not target.files:
            raise Invalid(f"{shown(archive.name)} holds no file.", "Pack the folder with the pictures and masks in it.")


class _Target:
    """The folder that an archive is unpacked into, and the count of what came out of it."""

    def __init__(self, archive: Path, folder: Path, limits: Limits, progress: Callable[[int, int], None]) -> None:
        self.name, self.folder, self.limits, self.progress = shown(archive.name), folder, limits, progress
        self.packed = archive.stat().st_size
        self.bytes = self.files = 0

    def admit(self, name: str, folder: bool = False) -> Path | None:
        """Where a file is to lie; None for what is passed over. Raises Invalid for names that are refused."""
        if folder and not name.strip("./\\"):
            return None if ".." not in name and name[:1] not in ("/", "\\") else inner_path(name)
        path = inner_path(name)
        if folder or LITTER.intersection(path.parts) or path.name.startswith("._"):
            return None
        if path.name.lower().endswith(ENDINGS + UNREAD_ENDINGS):
            cause = f"{self.name} holds another archive, {shown(name)}."
            raise Invalid(cause, "Unpack that one first, then pack the folders themselves, or upload it by itself.")
        return path

    def refuse_link(self, name: str, what: str) -> None:
        cause = f"In {self.name}, {shown(name)} is no file but {what}."
        raise Invalid(cause, "Pack the files themselves (tar: with --dereference; zip: without --symlinks).")

    def expect(self, size: int) -> None:
        """Refuses what will not fit before it is written: `size` bytes more than there are."""
        total = self.bytes + size
        if total > self.limits.total:
            cause = f"{self.name} unpacks to more than {self.limits.total / 2**30:.3g} GiB."
            raise Invalid(cause, "Pack less into one archive, import the unpacked folder, or raise the limit (docs/settings.md).")
        if total > max(ALLOWANCE, self.packed * self.limits.ratio):
            cause = f"{self.name} unpacks to more than {self.limits.ratio:g} times its size, as do archives made to fill disks."
            raise Invalid(cause, "If it is sound, import the unpacked folder, or raise the limit (docs/settings.md).")
        if size > shutil.disk_usage(self.folder).free:
            raise disk_problem(OSError(errno.ENOSPC, ""), f"What {self.name} unpacks to")

    def write(self, path: Path, content: IO[bytes]) -> None:
        """A file of the archive, as it comes. Raises Invalid where its place is taken."""
        if self.files >= self.limits.files:
            cause = f"{self.name} holds more than {self.limits.files} files."
            raise Invalid(cause, "Pack less into one archive, or import the unpacked folder.")
        place = self.folder / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch(exist_ok=False)
        except (FileExistsError, NotADirectoryError):
            cause = f"{self.name} holds the name {shown(str(path))} twice."
            raise Invalid(cause, "Pack the folder into a new archive, not over an older one.") from None
        with open(place, "wb") as file:
            while piece := content.read(PIECE):
                self.expect(len(piece))
                self.bytes += len(piece)
                file.write(piece)
        self.files += 1


class _Directory(io.FileIO):
    """A zip's file, whose list of contents is not read into memory beyond a limit."""

    def read(self, size: int | None = -1, /) -> Any:
        if size is not None and size > LARGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of contents takes more than {LARGEST_DIRECTORY >> 20} MiB")
        return super().read(-1 if size is None else size)


def _unpack_zip(archive: Path, target: _Target) -> None:
    """All names, kinds and sizes are looked at before the first file is written."""
    with _Directory(archive) as raw, zipfile.ZipFile(raw) as opened:
        members = [(info, path) for info in opened.infolist() if (path := _zip_path(info, target)) is not None]
        target.expect(sum(info.file_size for info, _ in members))
        done = 0
        for info, path in members:
            with opened.open(info) as content:
                target.write(path, content)
            done += info.compress_size
            target.progress(min(done, target.packed), target.packed)


def _zip_path(info: zipfile.ZipInfo, target: _Target) -> Path | None:
    raw_name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    # Without its UTF-8 mark, zipfile reads a name as code page 437: the bytes are still known, and may be UTF-8 after all.
    name = raw_name if info.flag_bits & 0x800 else _text(raw_name.encode("cp437"))
    if info.flag_bits & 0x41:
        raise Invalid(f"{target.name} is encrypted ({shown(name)}).", "Pack it without a password.")
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        target.refuse_link(name, "a link" if stat.S_ISLNK(kind) else "a device")
    return target.admit(name, folder=name.endswith(("/", "\\")))


def _text(raw: bytes) -> str:
    """A name's letters: UTF-8, or else code page 437, in which every byte is a letter."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


class _Forwards:
    """A tar's bytes as tarfile asks for them: forwards only, a piece at a time, counted as they come out of their packing.

    tarfile alone would read a header of any length into memory, and pass over packed zeros without end.
    """

    def __init__(self, raw: IO[bytes], expect: Callable[[int], None]) -> None:
        self.raw, self.expect = raw, expect
        self.place, self.last = 0, b""

    def read(self, size: int) -> bytes:
        if size > PIECE:
            raise tarfile.ReadError(f"a header of more than {PIECE >> 20} MiB")
        self.last = self.raw.read(size)
        self.place += len(self.last)
        self.expect(self.place)
        return self.last

    def tell(self) -> int:
        return self.place

    def seek(self, place: int) -> None:
        if place < self.place:
            raise tarfile.ReadError("its parts are out of order")
        while place > self.place and self.read(min(PIECE, place - self.place)):
            pass


def _unpack_tar(archive: Path, kind: str, target: _Target) -> None:
    openers: dict[str, Callable[[IO[bytes]], Any]] = {"tar": lambda raw: raw, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    with open(archive, "rb") as raw:
        forwards = _Forwards(openers[kind](raw), lambda place: target.expect(max(0, place - target.bytes)))
        with tarfile.open(fileobj=cast(IO[bytes], forwards), mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
            while (member := opened.next()) is not None:
                _unpack_member(opened, member, target)
                opened.members = []  # type: ignore[attr-defined]  # it would remember every one
                target.progress(min(raw.tell(), target.packed), target.packed)
        if forwards.last.strip(b"\0") or not forwards.last:  # tarfile takes a broken header for the end
            raise tarfile.ReadError("it ends in the middle")
        while forwards.read(PIECE):  # to the last byte, since the packing's checksum stands behind it
            pass


def _unpack_member(opened: tarfile.TarFile, member: tarfile.TarInfo, target: _Target) -> None:
    name = _text(member.name.encode("utf-8", "surrogateescape"))
    if not member.isreg() and not member.isdir():
        target.refuse_link(name, "a link" if member.issym() or member.islnk() else "a device")
    path = target.admit(name, folder=member.isdir())
    if path is not None:
        target.expect(member.size)
        content = opened.extractfile(member)
        assert content is not None  # it is None for what is no file
        with content:
            target.write(path, content)
