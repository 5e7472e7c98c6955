"""Archives of strangers: each is read, or refused with a cause and a cure; nothing is written outside, nothing left behind."""

import bz2
import gzip
import io
import lzma
import random
import resource
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from annotations.archives import Limits, archive_kind, is_archive, unpack
from contracts.errors import Invalid, Problem, Unavailable

SMALL = Limits(total=4 * 2**20, ratio=100, files=50)
Build = Callable[[], bytes]


def silence(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def packed_zip(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return memory.getvalue()


def packed_tar(*files: tuple[str, bytes], mode: str = "w", **kind: object) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in kind.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return memory.getvalue()


def zip_member(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, mode << 16
    return member


def encrypted_zip() -> bytes:
    """The mark of encryption set in the local header and in the directory, as a packer with a password does."""
    data = bytearray(packed_zip(("a.png", b"secret")))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def zip_of_another_method() -> bytes:
    data = bytearray(packed_zip(("a.png", b"deflate64")))
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 9
    return bytes(data)


def zip_that_lies_about_a_size(size: int) -> bytes:
    data = bytearray(packed_zip(("a.png", bytes(5000))))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    return bytes(data)


def overlapping_zip() -> bytes:
    """Sixty entries of the directory that all point to the same packed bytes."""
    data = packed_zip(("a.png", bytes(2**20)))
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    entries = b"".join(entry.replace(b"a.png", f"{index:05}".encode()) for index in range(60))
    tail = bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, 60, 60, len(entries), start)
    return data[:start] + entries + bytes(tail)


def zip_with_code_page_name(raw: bytes) -> bytes:
    return packed_zip(("X" * len(raw), b"here")).replace(b"X" * len(raw), raw)


def tar_with_raw_name(raw: bytes) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        member = tarfile.TarInfo(raw.decode("latin-1"))
        member.size = 4
        archive.addfile(member, io.BytesIO(b"here"))
    return memory.getvalue()


def tar_header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def sparse_tar() -> bytes:
    """A few bytes that say they are a file of a terabyte, all holes."""
    header = bytearray(tar_header(tarfile.GNUTYPE_SPARSE, 0))
    header[386:398] = header[398:410] = b"00000000000\0"
    header[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(1024)


SOUND = [("images/a.png", b"picture"), ("labels/a.png", b"mask")]
REFUSED: dict[str, tuple[Build, str]] = {
    "a zip that climbs out": (lambda: packed_zip(("../outside.txt", b"!")), "leads out"),
    "a zip that climbs out from below": (lambda: packed_zip(("images/../../outside.txt", b"!")), "leads out"),
    "a zip with an absolute path": (lambda: packed_zip(("/tmp/outside.txt", b"!")), "leads out"),
    "a zip that climbs with backslashes": (lambda: packed_zip(("images\\..\\..\\outside.txt", b"!")), "leads out"),
    "a zip with a drive": (lambda: packed_zip(("C:\\outside.txt", b"!")), "leads out"),
    "a zip with a network path": (lambda: packed_zip(("\\\\server\\outside.txt", b"!")), "leads out"),
    "a zip with a folder outside": (lambda: packed_zip(("../outside/", b"")), "leads out"),
    "a zip with the folder above": (lambda: packed_zip(("../", b""), *SOUND), "leads out"),
    "a zip with litter outside": (lambda: packed_zip(("__MACOSX/../../outside.txt", b"!")), "leads out"),
    "a zip with a symlink": (lambda: packed_zip((zip_member("link", stat.S_IFLNK | 0o777), b"/etc/passwd")), "a link"),
    "a zip that writes through a symlink": (
        lambda: packed_zip((zip_member("d", stat.S_IFLNK | 0o777), b"/tmp"), ("d/outside.txt", b"!")),
        "a link",
    ),
    "a zip with a device": (lambda: packed_zip((zip_member("null", stat.S_IFCHR | 0o666), b"")), "a device"),
    "a zip with a pipe": (lambda: packed_zip((zip_member("pipe", stat.S_IFIFO | 0o666), b"")), "a device"),
    "an encrypted zip": (encrypted_zip, "encrypted"),
    "a zip in another zip": (lambda: packed_zip(("inner.zip", packed_zip(*SOUND))), "another archive"),
    "a tar in a zip": (lambda: packed_zip(("inner.TAR.GZ", b"")), "another archive"),
    "a zip of zeros beyond the total": (lambda: packed_zip(("zeros", bytes(5 * 2**20))), "more than"),
    "a zip of many files of zeros": (lambda: packed_zip(*((f"{i}", bytes(2**20)) for i in range(6))), "more than"),
    "a zip whose entries overlap": (overlapping_zip, "more than"),
    "a zip that says it is smaller": (lambda: zip_that_lies_about_a_size(10), "damaged"),
    "a zip that says it is endless": (lambda: zip_that_lies_about_a_size(2**32 - 2), "more than"),
    "a zip of too many files": (lambda: packed_zip(*((f"{i}.png", b"") for i in range(51))), "more than 50 files"),
    "a zip with a name twice": (lambda: packed_zip(("a.png", b"1"), ("./a.png", b"2")), "twice"),
    "a zip with a file that is a folder too": (lambda: packed_zip(("a", b"1"), ("a/b", b"2")), "twice"),
    "a zip with a folder that is a file too": (lambda: packed_zip(("a/b", b"1"), ("a", b"2")), "twice"),
    "a zip with an endless name": (lambda: packed_zip(("n" * 300, b"!")), "too long"),
    "a zip of endless folders": (lambda: packed_zip(("d/" * 900 + "f", b"!")), "too long"),
    "a zip with a control character": (lambda: packed_zip(("a\x1b[31m.png", b"!")), "no name"),
    "a zip with a nul in a name": (lambda: packed_zip(("aXb.png", b"!")).replace(b"aXb", b"a\0b"), "no name"),
    "a zip packed in an unknown way": (zip_of_another_method, "not read here"),
    "a zip that was cut off": (lambda: packed_zip(("a.png", random.Random(1).randbytes(9000)))[:5000], "cut off"),
    "a zip with a changed byte": (
        lambda: packed_zip(("a.png", b"0123456789"), method=zipfile.ZIP_STORED).replace(b"456", b"4!6"),
        "damaged",
    ),
    "a zip of nothing": (lambda: packed_zip(), "holds no file"),
    "a zip of litter": (lambda: packed_zip(("__MACOSX/._a.png", b"x"), (".DS_Store", b"x")), "holds no file"),
    "a zip of folders": (lambda: packed_zip(("images/", b""), ("labels/", b"")), "holds no file"),
    "a tar that climbs out": (lambda: packed_tar(("../outside.txt", b"!")), "leads out"),
    "a tar with an absolute path": (lambda: packed_tar(("/tmp/outside.txt", b"!"), mode="w:gz"), "leads out"),
    "a tar with a symlink": (lambda: packed_tar(("link", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
    "a tar with a hard link": (lambda: packed_tar(("link", b""), type=tarfile.LNKTYPE, linkname="/etc/passwd"), "a link"),
    "a tar with a character device": (lambda: packed_tar(("null", b""), type=tarfile.CHRTYPE, devmajor=1, devminor=3), "a device"),
    "a tar with a block device": (lambda: packed_tar(("disk", b""), type=tarfile.BLKTYPE), "a device"),
    "a tar with a pipe": (lambda: packed_tar(("pipe", b""), type=tarfile.FIFOTYPE), "a device"),
    "a tar with a zip in it": (lambda: packed_tar(("inner.zip", b"")), "another archive"),
    "a tar of zeros, gzip": (lambda: packed_tar(("zeros", bytes(5 * 2**20)), mode="w:gz"), "more than"),
    "a tar of zeros, bzip2": (lambda: packed_tar(("zeros", bytes(5 * 2**20)), mode="w:bz2"), "more than"),
    "a tar of zeros, xz": (lambda: packed_tar(("zeros", bytes(5 * 2**20)), mode="w:xz"), "more than"),
    "a tar with zeros behind its end": (lambda: gzip.compress(packed_tar(*SOUND) + bytes(5 * 2**20)), "more than"),
    "a tar of holes": (sparse_tar, "more than"),
    "a tar with an endless header": (lambda: gzip.compress(tar_header(b"x", 3 * 2**20) + bytes(3 * 2**20)), "a header of more"),
    "a tar with an endless name": (lambda: packed_tar(("n" * 2000, b"!")), "too long"),
    "a tar of nothing but headers": (lambda: (tar_header(b"L", 1) + b"x" + bytes(511)) * 2000, "damaged"),
    "a tar with a name twice": (lambda: packed_tar(("a.png", b"1"), ("a.png", b"2")), "twice"),
    "a tar of too many files": (lambda: packed_tar(*((f"{i}.png", b"") for i in range(51))), "more than 50 files"),
    "a tar that was cut off in a file": (lambda: packed_tar(("a.png", bytes(9000)))[:5000], "damaged"),
    "a tar that was cut off between files": (lambda: packed_tar(*SOUND)[:1024], "damaged"),
    "a tar with a broken header inside": (lambda: packed_tar(*SOUND)[:1024] + b"\xff" * 512 + bytes(9000), "damaged"),
    "a gzip that was cut off": (lambda: packed_tar(*SOUND, mode="w:gz")[:-30], "damaged"),
    "a gzip with a wrong checksum": (lambda: packed_tar(*SOUND, mode="w:gz")[:-8] + b"12345678", "damaged"),
    "a gzip that is no tar": (lambda: gzip.compress(b"a letter" * 200), "damaged"),
    "a bzip2 that is damaged": (lambda: b"BZh9" + bytes(900), "damaged"),
    "an xz that is damaged": (lambda: lzma.compress(packed_tar(*SOUND))[:100] + bytes(50), "damaged"),
    "a tar of nothing": (lambda: packed_tar(mode="w:gz"), "holds no file"),
    "a tar that is empty altogether": (lambda: bz2.compress(b""), "damaged"),
    "a 7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100), "7z"),
    "a RAR": (lambda: b"Rar!\x1a\x07\x01" + bytes(100), "RAR"),
    "a zip in several parts": (lambda: b"PK\x07\x08" + packed_zip(*SOUND), "several parts"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(400), "neither a zip nor a tar"),
    "an empty file": (lambda: b"", "neither a zip nor a tar"),
}
READ: dict[str, tuple[Build, set[str]]] = {
    "zip": (lambda: packed_zip(*SOUND), {"images/a.png", "labels/a.png"}),
    "tar": (lambda: packed_tar(*SOUND), {"images/a.png", "labels/a.png"}),
    "tar.gz": (lambda: packed_tar(*SOUND, mode="w:gz"), {"images/a.png", "labels/a.png"}),
    "tar.bz2": (lambda: packed_tar(*SOUND, mode="w:bz2"), {"images/a.png", "labels/a.png"}),
    "tar.xz": (lambda: packed_tar(*SOUND, mode="w:xz"), {"images/a.png", "labels/a.png"}),
    "a zip packed by lzma": (lambda: packed_zip(*SOUND, method=zipfile.ZIP_LZMA), {"images/a.png", "labels/a.png"}),
    "a zip with litter": (
        lambda: packed_zip(*SOUND, ("__MACOSX/images/._a.png", b""), ("images/.DS_Store", b""), ("images/._a.png", b"")),
        {"images/a.png", "labels/a.png"},
    ),
    "a zip from Windows": (lambda: packed_zip(("images\\a.png", b""), ("images\\", b"")), {"images/a.png"}),
    "a zip with UTF-8 names": (lambda: packed_zip(("Bäume/été.png", b"")), {"Bäume/été.png"}),
    "a zip with unmarked UTF-8 names": (lambda: zip_with_code_page_name("Bäume.png".encode()), {"Bäume.png"}),
    "a zip with code page 437 names": (lambda: zip_with_code_page_name(b"B\x84ume.png"), {"Bäume.png"}),
    "a tar with names that are no UTF-8": (lambda: tar_with_raw_name(b"B\x84ume.png"), {"Bäume.png"}),
    "a tar made in its own folder": (lambda: packed_tar(("./images/a.png", b"")), {"images/a.png"}),
    "a tar with a long name": (lambda: packed_tar(("d" * 150 + "/a.png", b"")), {"d" * 150 + "/a.png"}),
    "a zip with an npz": (lambda: packed_zip(("a.npz", packed_zip(("x.npy", b"")))), {"a.npz"}),
    "a zip of empty masks": (lambda: packed_zip(("mask.npy", bytes(3 * 2**20))), {"mask.npy"}),
    "a zip with permissions of root": (lambda: packed_zip((zip_member("a.png", stat.S_IFREG | 0o6777), b"")), {"a.png"}),
}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def nothing_changes_in(folder: Path) -> Iterator[None]:
    before = files_below(folder)
    yield
    assert files_below(folder) == before


def put(folder: Path, content: bytes, name: str = "archive") -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    path = folder / "deep" / "er" / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_archive_is_refused_with_its_cause_and_leaves_nothing(tmp_path: Path, kind: str):
    build, word = REFUSED[kind]
    archive = put(tmp_path, build())
    outside = Path("/tmp/outside.txt")
    with nothing_changes_in(tmp_path), pytest.raises(Invalid) as refusal:
        unpack(archive, archive.with_name("into"), SMALL, silence)
    assert word in refusal.value.cause, refusal.value
    assert refusal.value.cure
    assert refusal.value.cause.isprintable()
    assert not outside.exists()


@pytest.mark.parametrize("kind", READ)
def test_an_odd_but_honest_archive_is_read(tmp_path: Path, kind: str):
    build, files = READ[kind]
    archive = put(tmp_path, build())
    steps: list[tuple[int, int]] = []
    unpack(archive, archive.with_name("into"), SMALL, lambda done, total: steps.append((done, total)))
    into = archive.with_name("into")
    assert {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()} == files
    assert all(path.stat().st_mode & 0o7000 == 0 for path in into.rglob("*"))
    assert all(0 <= done <= total == archive.stat().st_size for done, total in steps)
    assert sorted(steps) == steps


def test_no_change_of_bytes_makes_an_archive_crash_or_leave_something(tmp_path: Path):
    dice = random.Random(5)
    seeds = [build() for build, _ in READ.values()] + [overlapping_zip(), sparse_tar()]
    archive = put(tmp_path, b"")
    for _ in range(400):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(min(len(data), 2000))] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        archive.write_bytes(bytes(data[: dice.choice((len(data), dice.randrange(len(data))))]))
        into = archive.with_name("into")
        with nothing_changes_in(tmp_path):
            try:
                unpack(archive, into, SMALL, silence)
            except Problem:
                continue
            shutil.rmtree(into)


def test_an_archive_that_packs_too_well_is_refused_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("annotations.archives.ALLOWANCE", 2**16)
    archive = put(tmp_path, packed_zip(("zeros", bytes(2**20))))
    with nothing_changes_in(tmp_path), pytest.raises(Invalid, match="100 times its size"):
        unpack(archive, archive.with_name("into"), Limits(), silence)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path):
    archive = put(tmp_path, packed_tar(("noise", random.Random(2).randbytes(2**20))))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, hard))
    try:
        with nothing_changes_in(tmp_path), pytest.raises(Unavailable, match="disk is full"):
            unpack(archive, archive.with_name("into"), SMALL, silence)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_archive_is_known_by_its_name_or_its_first_bytes(tmp_path: Path):
    for name, content, expected in (
        ("a.zip", b"", True),
        ("a.TAR.GZ", b"", True),
        ("a.7z", b"", True),
        ("a.npz", packed_zip(*SOUND), False),
        ("a", packed_zip(*SOUND), True),
        ("a.png", b"", False),
        ("README", b"text", False),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert is_archive(path) == expected, name
    assert archive_kind(tmp_path / "a.npz") == "zip"
