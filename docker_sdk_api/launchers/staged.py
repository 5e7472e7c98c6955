"""Folders that tasks read, staged in an object store once, and kept by each node for as long as they are used and there is room.

In the store: `folders/<key>/00000.tar` and so on, some 64 MB each, so that a million small pictures are no million objects, and
what was broken off goes on with the next part; `folder.json` comes last and says that it is whole. On a node: `folders/<key>/` in its
cache, fetched aside and renamed. Who uses a folder holds a shared lock on it, which ends with the process; what is not held goes,
the longest unused first, when there would be more than the limit. Who finds one that is being fetched waits for it.

Needs the standard library and a Bucket, on docker_sdk_api's machine and on a node alike.
"""

import fcntl
import json
import os
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PART = 64 * 2**20
WHOLE = "folder.json"
LOOK = 0.5
Tell = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many; may raise."""


class TooLarge(Exception):
    """What does not fit into the cache of a node, even an empty one."""


def stage(bucket: Any, key: str, files: list[tuple[str, Path]], workshop: Path, tell: Tell) -> None:
    """Put files, each under a name, into the store as a folder, but for the parts that are there already."""
    there = set(bucket.names(f"folders/{key}/"))
    if f"folders/{key}/{WHOLE}" in there:
        return
    sizes = [file.stat().st_size for _, file in files]
    done = 0
    parts = _parts(sizes)
    for number, (first, behind) in enumerate(parts):
        tell(done, sum(sizes))
        name = f"folders/{key}/{number:05d}.tar"
        if name not in there:
            packed = workshop / f".{key}.{os.getpid()}.{threading.get_ident()}.tar"
            try:
                with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT, dereference=True) as archive:
                    for inside, file in files[first:behind]:
                        archive.add(file, inside, recursive=False)
                bucket.put_file(name, packed)
            finally:
                packed.unlink(missing_ok=True)
        done += sum(sizes[first:behind])
    told = {"parts": len(parts), "files": len(files), "bytes": sum(sizes)}
    bucket.put(f"folders/{key}/{WHOLE}", json.dumps(told).encode())


def _parts(sizes: list[int]) -> list[tuple[int, int]]:
    """Files that go into one part together, each from … to before …; one that is larger than a part goes alone."""
    parts, first, taken = [], 0, 0
    for place, size in enumerate(sizes):
        if taken and taken + size > PART:
            parts.append((first, place))
            first, taken = place, 0
        taken += size + 1024
    return [*parts, (first, len(sizes))] if sizes else []


class Cache:
    """Of a node: folders out of the store in a folder of its disk, no more than `most` bytes of them."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        for name in ("folders", "locks", "sizes"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def take(self, bucket: Any, key: str, tell: Tell, wait: Callable[[str], None]) -> tuple[Path, BinaryIO]:
        """A folder of the store, and what holds it here until it is closed.

        `wait`: is told, again and again, what is waited for; may raise. Raises TooLarge, and FileNotFoundError where it is not staged.
        """
        lock = open(self.folder / "locks" / key, "ab")  # noqa: SIM115 - held for as long as the folder is used
        try:
            while True:
                if not held(lock, fcntl.LOCK_SH):
                    self._wait(wait, "another job of this node fetches it")
                elif (self.folder / "folders" / key).is_dir():
                    os.utime(lock.name)
                    return self.folder / "folders" / key, lock
                elif held(lock, fcntl.LOCK_EX):  # from here on it is this one that fetches it
                    self._fetch(bucket, key, tell, wait)
                fcntl.flock(lock, fcntl.LOCK_UN)
                time.sleep(random.uniform(0, 0.05))  # two that asked at once do not ask at once again
        except BaseException:
            lock.close()
            raise

    def size(self) -> int:
        """Bytes of all folders, with those that are being fetched."""
        return sum(self._sizes().values())

    def _fetch(self, bucket: Any, key: str, tell: Tell, wait: Callable[[str], None]) -> None:
        place = self.folder / "folders" / key
        if place.is_dir():
            return
        told = json.loads(bucket.get(f"folders/{key}/{WHOLE}"))
        while not self._make_room(key, told["bytes"]):
            self._wait(wait, "other jobs of this node use all that its cache has room for")
        aside = place.with_name(f".{key}")
        (aside / "files").mkdir(parents=True, exist_ok=True)
        done = aside / "done"  # so many parts, and bytes, of a fetch that was broken off
        parts, behind = map(int, done.read_text().split()) if done.exists() else (0, 0)
        for number in range(parts, told["parts"]):
            tell(behind, told["bytes"])
            (aside / "part.tar").unlink(missing_ok=True)
            bucket.get_file(f"folders/{key}/{number:05d}.tar", aside / "part.tar")
            behind += _unpack(aside / "part.tar", aside / "files")
            done.write_text(f"{number + 1} {behind}")
        (aside / "files").rename(place)
        shutil.rmtree(aside)

    def _wait(self, wait: Callable[[str], None], reason: str) -> None:
        wait(reason)
        time.sleep(LOOK)

    def _make_room(self, key: str, size: int) -> bool:
        """Set so many bytes aside for a folder; False where what would have to go is in use."""
        if size > self.most:
            raise TooLarge(f"{key} takes {size / 1e9:.1f} GB, and the cache of the node {os.uname().nodename} holds {self.most / 1e9:.1f}")
        with self._alone():
            sizes = {name: taken for name, taken in self._sizes().items() if name != key}
            used = {name: (self.folder / "locks" / name).stat().st_mtime for name in sizes if (self.folder / "locks" / name).exists()}
            for name in sorted(sizes, key=lambda name: used.get(name, 0.0)):
                if sum(sizes.values()) + size <= self.most:
                    break
                if self._let_go(name):
                    del sizes[name]
            if sum(sizes.values()) + size > self.most:
                return False
            (self.folder / "sizes" / key).write_text(str(size))
            return True

    def _let_go(self, key: str) -> bool:
        """Remove a folder that nobody uses or fetches; whether it went."""
        with open(self.folder / "locks" / key, "ab") as lock:
            if not held(lock, fcntl.LOCK_EX):
                return False
            place = self.folder / "folders" / key
            if place.is_dir():
                place.rename(place.with_name(f".{key}"))
            shutil.rmtree(place.with_name(f".{key}"), ignore_errors=True)
            (self.folder / "sizes" / key).unlink(missing_ok=True)
        return True

    def _sizes(self) -> dict[str, int]:
        return {file.name: int(file.read_text() or 0) for file in (self.folder / "sizes").iterdir()}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self.folder / ".room", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def held(lock: BinaryIO, kind: int) -> bool:
    """Whether a lock could be had at once."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unpack(archive: Path, to: Path) -> int:
    """Plain files alone, and only to places below a folder. How many bytes they have."""
    done = 0
    with tarfile.open(archive) as packed:
        for member in packed:
            place = to / member.name
            if not member.isfile() or ".." in place.parts or not place.is_relative_to(to):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            source = packed.extractfile(member)
            assert source is not None
            with source, open(place, "wb") as file:
                shutil.copyfileobj(source, file, 2**20)
            os.utime(place, (member.mtime, member.mtime))
            done += member.size
    return done


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
