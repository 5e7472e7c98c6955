"""Files that others published: found on this machine, or fetched, resumed where the line was cut, and checked by their hash.

A file counts only when it is whole and is what was promised: until then it is called `.part`. What the hash is compared with comes
from the packages (`Source.digest`), or else from the server that hands the file out, and is then kept beside it as `.sha256`.
"""

import errno
import fcntl
import os
import re
import shutil
import ssl
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from contracts.durable import checksum, force, write_aside
from contracts.errors import Unavailable

HERE = Path(__file__).resolve().parent.parent
CHUNK = 2**18
TIMEOUT = 30.0
"""Seconds without a byte after which a line counts as cut."""
ATTEMPTS, PAUSE = 3, 1.0
"""So many attempts in a row that bring nothing are enough; seconds between them."""
CUT = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)

Tell = Callable[[int, int], None]
"""How far a download is: bytes so far and in all (0: the server does not say). It may raise, and so end the download."""


@dataclass(frozen=True)
class Source:
    """A file that others published. `file` is its name here; where the address is a zip, that of the one file taken out of it.

    `digest`: a hash or its beginning, such as "sha256:1167a1af"; "" where only the server knows. `whole`: it holds a whole network,
    not only a backbone.
    """

    name: str
    file: str
    address: str
    licence: str
    digest: str = ""
    whole: bool = False

    @property
    def zipped(self) -> bool:
        return self.address.endswith(".zip") and not self.file.endswith(".zip")


@dataclass(frozen=True)
class Found:
    """A file that is there. `checked`: whether anything was known to compare its hash with."""

    path: Path
    sha256: str
    checked: bool


@dataclass(frozen=True)
class Places:
    """Where files may lie: `cache` is written to, the others are only read. `base` replaces the server of every address."""

    cache: Path
    others: tuple[Path, ...] = ()
    base: str = ""

    @classmethod
    def of_environment(cls) -> "Places":
        """WEIGHTS, WEIGHTS_MIRROR and WEIGHTS_URL; what an image has baked in lies where a checkout has its own weights/."""
        baked = HERE / "weights"
        cache, mirror = Path(os.environ.get("WEIGHTS") or baked), os.environ.get("WEIGHTS_MIRROR")
        return cls(cache, (*([Path(mirror)] if mirror else []), baked), os.environ.get("WEIGHTS_URL", ""))

    def address(self, source: Source) -> str:
        return self.base.rstrip("/") + urlsplit(source.address).path if self.base else source.address


def find(source: Source, places: Places) -> Found | None:
    """The file, if it lies in one of the places and is what it should be. Raises Unavailable for one that is not."""
    for folder in dict.fromkeys((places.cache, *places.others)):
        path, packed = folder / source.file, folder / Path(urlsplit(source.address).path).name
        if not path.is_file() and source.zipped and packed.is_file():
            path = places.cache / source.file
            with _writing(places.cache):
                _unpack(packed, path)
        if path.is_file():
            return _checked(source, path)
    return None


def require(source: Source, places: Places) -> Found:
    """The file without fetching it. Raises Unavailable, naming the file, where it can be had and where to put it."""
    found = find(source, places)
    if found is None:
        folders = " nor in ".join(str(folder) for folder in dict.fromkeys((places.cache, *places.others)) if folder.is_dir())
        raise Unavailable(
            f"The weights “{source.name}” are not on this machine: {source.file} is not in {folders or places.cache}.",
            _put_it_there(source, places),
        )
    return found


def fetch(source: Source, places: Places, tell: Tell) -> Found:
    """The file, fetched where it is not there yet. Trainings that want the same file at once fetch it once.

    Raises Unavailable where it cannot be had or is not what was promised; what came of it then is kept for the next
    attempt, or removed.
    """
    found = find(source, places)
    if found is not None:
        return found
    with _writing(places.cache), _alone(places.cache / f".{source.file}.lock"):
        return find(source, places) or _fetch(source, places, tell)


def _fetch(source: Source, places: Places, tell: Tell) -> Found:
    target, part = places.cache / source.file, places.cache / f"{source.file}.part"
    tell(0, 0)
    try:
        declared = _download(places.address(source), part, tell)
    except CUT as error:
        reason = f"the server answers {error.code}" if isinstance(error, HTTPError) else str(getattr(error, "reason", error))
        raise Unavailable(
            f"The weights “{source.name}” ({source.file}) cannot be fetched from {places.address(source)}: {reason}.",
            f"Behind a proxy set HTTPS_PROXY, then start again: it goes on where it was cut. {_put_it_there(source, places)}",
        ) from error
    if source.zipped:
        packed = part.with_name(f"{source.file}.zip")
        part.replace(packed)
        try:
            _unpack(packed, part)
        finally:
            packed.unlink()
    promised = source.digest or (f"sha256:{declared}" if declared else "")
    if not _matches(part, promised):
        actual = checksum(part, promised.partition(":")[0])
        part.unlink()
        raise Unavailable(
            f"What {places.address(source)} gave is not the file that was promised: its hash is {actual}, not {promised}. It was removed.",
            "Start again. If it happens again, a proxy or a mirror hands out another file.",
        )
    found = Found(target, checksum(part), bool(promised))
    if declared and not source.digest:
        write_aside(_beside(target), f"{declared}  {target.name}\n")
    force(part)  # under its name it is taken for whole, and nobody fetches it again
    part.replace(target)
    return found


def _download(address: str, part: Path, tell: Tell) -> str:
    """Fill `part`, going on where it was cut. Returns the SHA-256 that the server declares, or ""."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _receive(address, part, before, tell)
        except CUT as error:
            code = error.code if isinstance(error, HTTPError) else 0
            if code == 416:  # there is nothing beyond what is there: it is no beginning of this file
                part.unlink(missing_ok=True)
            elif 400 <= code < 500:
                raise
            now = part.stat().st_size if part.exists() else 0
            failures = 0 if now > before else failures + 1
            if failures >= ATTEMPTS:
                raise
            print(
                f"the line was cut after {now} bytes ({error}): going on" if now else f"no connection ({error}): trying again", flush=True
            )
            time.sleep(PAUSE)


def _receive(address: str, part: Path, have: int, tell: Tell) -> str:
    passed = _Redirects()
    request = Request(address, headers={"User-Agent": "maskwright", **({"Range": f"bytes={have}-"} if have else {})})
    with build_opener(passed).open(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:
            have = 0
        length = int(answer.headers.get("Content-Length") or 0)
        total = have + length if length else 0
        with open(part, "ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                tell(have, total)
        if have < total:
            raise ConnectionError(f"{total - have} of {total} bytes are missing")
        return passed.declared or _declared(answer.headers)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, and keeps the hash that the first server declares: the one that it points to has other headers."""

    declared = ""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str) -> Any:
        self.declared = self.declared or _declared(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _declared(headers: Any) -> str:
    """The SHA-256 in a hub's headers: the entity tag of a large file is its hash, of others it is something else."""
    for name in ("X-Linked-ETag", "ETag"):
        tag = (headers.get(name) or "").removeprefix("W/").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return str(tag)
    return ""


def _checked(source: Source, path: Path) -> Found:
    beside = _beside(path)
    promised = source.digest or (f"sha256:{beside.read_text().split()[0]}" if beside.is_file() else "")
    if not _matches(path, promised):
        raise Unavailable(
            f"{path} is not the file that was promised: its hash is {checksum(path, promised.partition(':')[0])}, not {promised}.",
            "Remove it, and fetch it again or copy it anew.",
        )
    return Found(path, checksum(path), bool(promised))


def _matches(path: Path, promised: str) -> bool:
    algorithm, _, digest = promised.partition(":")
    return not digest or checksum(path, algorithm).startswith(digest)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _unpack(packed: Path, target: Path) -> None:
    """The one file of weights in a zip, whatever folder and name it has in there."""
    broken = Unavailable(f"{packed.name} is no zip with one file of weights.", "Remove it, and fetch it again.")
    try:
        with zipfile.ZipFile(packed) as archive:
            members = [name for name in archive.namelist() if name.endswith(".params")]
            if len(members) != 1:
                raise broken
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            with archive.open(members[0]) as source, aside.open("wb") as file:
                shutil.copyfileobj(source, file)
            aside.replace(target)
    except zipfile.BadZipFile as error:
        raise broken from error


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time, the other ranks of the same training too."""
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise Unavailable(
                f"The weights folder {folder} cannot be written to.", "Make it writable, or name another one: WEIGHTS=/some/folder."
            ) from error
        raise


def _put_it_there(source: Source, places: Places) -> str:
    name = "as it is" if source.zipped else f"as {source.file}"
    return f"Offline: fetch {source.address} elsewhere and put it into {places.cache} {name}, or start from_scratch."
