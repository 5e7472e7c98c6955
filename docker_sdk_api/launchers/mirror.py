"""A folder that grows, seen through an object store: one side pushes what has changed, the other pulls it into a folder of its own.

The pusher makes a picture of the folder at one moment (hard links, so that it lasts while it is sent), puts what is new in it as
objects that are never written again, and then replaces `head.json`, which names them. So whoever reads a head finds a folder that was
once so: no event is seen before the checkpoint that it tells of, because the events' length is taken first. What only grows is sent
in parts, merged by size, so that their number and what is sent twice stay small; a file under two names, or renamed, is sent once.

The puller replaces last/, best/, before/ and model/ whole, by renames; lets files grow that grow; and writes the events at the very end.
They are on the disk before it notes how far it is: after a power cut it takes nothing for brought that is not there.
It needs the standard library and a Bucket, on docker_sdk_api's machine and on a node alike.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
WHOLE = ("last", "best", "before", "model")
"""Folders that whoever writes them replaces by a rename."""
OWN = ("job.json", "task.json", "pulse.json", "stop", "retired", "artefact")
"""What is docker_sdk_api's own in a job's folder, and a node's word, which travels with the head."""
OUTGOING, INCOMING, RECORD = ".outgoing", ".incoming", ".mirror.json"
REFUSED = 78
"""Exit status of a node that cannot use the store: EX_CONFIG of sysexits.h. What it prints is in Ray's log of the job."""
LARGEST_MERGE, LARGEST_PART = 2**23, 2**26
TRIES = 200

Entry = list[Any]
"""Of a file: its id, its size in bytes, and its objects in their order, each [name, size]."""
Mark = tuple[int, ...]
"""By which a file is the same one as before: its inode, and of one that does not only grow its size and time."""


class Moved(Exception):
    """What is looked at was changed meanwhile: look again."""


def grows(name: str) -> bool:
    """Whether a file of a job is only ever added to, for as long as it is the same file."""
    return name in (EVENTS, "log.csv") or (name.startswith("train") and name.endswith(".log")) or name.startswith("tensorboard/")


class Pusher:
    """Sends a folder to <root>/<side>/, but for hidden files and `leaves_out`. `files`: what it sent last, by name."""

    def __init__(self, bucket: Any, root: str, side: str, folder: Path, leaves_out: tuple[str, ...] = ()) -> None:
        self.bucket, self.root, self.side, self.folder, self.leaves_out = bucket, root, side, folder, leaves_out
        self.files: dict[str, Entry] = {}
        self._known: dict[Mark, Entry] = {}
        self._round = self._number = 0
        self._listing, self._listed = "", ""
        self._listings: dict[str, set[str]] = {}
        """The objects of the last listing, and of the one that is being read."""
        self._put: set[str] = set()
        self._late: set[str] = set()

    def has(self, files: dict[str, Entry]) -> None:
        """The other side has these files already, and they are here: they need not go back."""
        for name, entry in files.items():
            if (self.folder / name).is_file():
                self._known[_mark(name, (self.folder / name).stat())] = entry

    def push(self, pulse: dict[str, Any] | None = None, reads: str = "") -> None:
        """Send what is new. `reads`: the listing that the other side reads at the moment, whose objects stay. Raises Moved."""
        found = self._picture()
        try:
            files = {name: self._sent(name, mark, size) for name, (mark, size) in found.items()}
        finally:
            shutil.rmtree(self.folder / OUTGOING, ignore_errors=True)
        growing = {name: entry for name, entry in files.items() if grows(name)}
        self._list({name: entry for name, entry in files.items() if not grows(name)})
        self._round += 1
        head = {"round": self._round, "listing": self._listing, "growing": growing, "pulse": pulse}
        self.bucket.put(f"{self.root}/{self.side}/head.json", json.dumps(head).encode())
        self.files = files
        self._clear(_objects(growing), reads)

    def _picture(self) -> dict[str, tuple[Mark, int]]:
        """Every file's mark and size, at one moment. What is new and may be replaced is linked into .outgoing, by its inode."""
        for _ in range(TRIES):
            before = self._places()
            try:
                found = self._look()
            except FileNotFoundError:
                continue
            if None not in before.values() and before == self._places():
                return found
        raise Moved(f"{self.folder} is changed all the time")

    def _places(self) -> dict[str, int | None]:
        """The folders that are replaced whole, by inode; None: another is about to take the place of what was there."""
        places: dict[str, int | None] = {}
        for name in WHOLE:
            try:
                places[name] = (self.folder / name).stat().st_ino
            except FileNotFoundError:
                if (self.folder / f".{name}.new").exists() and any(known.startswith(f"{name}/") for known in self.files):
                    places[name] = None
        return places

    def _look(self) -> dict[str, tuple[Mark, int]]:
        found = {}
        outgoing, events = self.folder / OUTGOING, self.folder / EVENTS
        shutil.rmtree(outgoing, ignore_errors=True)
        outgoing.mkdir()
        told = events.stat() if events.is_file() else None  # first: all that they tell of is in the folder by now
        for name, stat in _walk(self.folder, self.leaves_out):
            mark = _mark(name, stat)
            if not grows(name) and mark not in self._known and not (outgoing / str(stat.st_ino)).exists():
                os.link(self.folder / name, outgoing / str(stat.st_ino))
            if name != EVENTS:
                found[name] = (mark, stat.st_size)
        if told is not None:
            found[EVENTS] = (_mark(EVENTS, told), told.st_size)
        return found

    def _sent(self, name: str, mark: Mark, size: int) -> Entry:
        entry = self._known.get(mark)
        if grows(name):
            if entry is None or entry[1] > size:
                entry = [self._next(), 0, []]
            if entry[1] < size:
                entry = self._grown(entry, self.folder / name, size)
        elif entry is None:
            place = self._next()
            self.bucket.put_file(f"{self.root}/{place}", self.folder / OUTGOING / str(mark[0]))
            self._put.add(place)
            entry = [place, size, [[place, size]]]
        self._known[mark] = entry
        return entry

    def _grown(self, entry: Entry, file: Path, size: int) -> Entry:
        """With its new bytes as further parts; small ones before them are sent again, as one with them."""
        start, parts = entry[1], list(entry[2])
        while parts and parts[-1][0] in self._put and parts[-1][1] < min(2 * (size - start), LARGEST_MERGE):
            start -= parts.pop()[1]
        with open(file, "rb") as opened:
            opened.seek(start)
            while start < size:
                content = opened.read(min(LARGEST_PART, size - start))
                if not content:
                    raise Moved(f"{file} became shorter")
                parts.append([self._place(content), len(content)])
                start += len(content)
        return [entry[0], size, parts]

    def _list(self, files: dict[str, Entry]) -> None:
        """Write down the files that do not grow, where they are others than before."""
        listed = json.dumps(files)
        if listed != self._listed:
            self._listing, self._listed = self._place(listed.encode()), listed
            self._listings[self._listing] = {self._listing, *_objects(files)}

    def _place(self, content: bytes) -> str:
        name = self._next()
        self.bucket.put(f"{self.root}/{name}", content)
        self._put.add(name)
        return name

    def _next(self) -> str:
        self._number += 1
        return f"{self.side}/{self._number:08d}"

    def _clear(self, growing: set[str], reads: str) -> None:
        """Delete objects that neither this head names nor the one before did, nor a listing that is still read."""
        self._listings = {name: objects for name, objects in self._listings.items() if name in (self._listing, reads)}
        unused = self._put.difference(growing, *self._listings.values())
        gone = unused & self._late
        if gone:
            self.bucket.delete(f"{self.root}/{name}" for name in gone)
        self._put -= gone
        self._late = unused - gone
        living = {entry[0] for entry in self.files.values()}
        self._known = {mark: entry for mark, entry in self._known.items() if entry[0] in living}


class Puller:
    """Brings what a Pusher sent to <root>/<side>/ into a folder, a head at a time; goes on where an earlier one was ended.

    `leaves_out`: what the folder has of its own. One at a time: that is the caller's to see to.
    """

    def __init__(self, bucket: Any, root: str, side: str, folder: Path, leaves_out: tuple[str, ...] = ()) -> None:
        self.bucket, self.root, self.side, self.folder, self.leaves_out = bucket, root, side, folder, leaves_out
        self.files: dict[str, Entry] = {}
        self._round, self._listing = 0, ""
        try:
            record = json.loads((folder / RECORD).read_bytes())
        except (FileNotFoundError, ValueError):
            return
        if record["root"] == root:
            self.files, self._round, self._listing = record["files"], record["round"], record["listing"]

    def has(self, files: dict[str, Entry]) -> None:
        """These files are here as they were sent from here."""
        self.files = {name: entry for name, entry in files.items() if name.partition("/")[0] not in self.leaves_out}
        self._keep()

    def pull(self, begins: Callable[[str], None] = lambda _: None) -> dict[str, Any] | None:
        """Bring what is new; the pulse that came with it, None where there is no head yet.

        `begins` is told a new listing before its objects are read. Raises Moved where one of them is gone by now.
        """
        try:
            head = json.loads(self.bucket.get(f"{self.root}/{self.side}/head.json"))
        except FileNotFoundError:
            return None
        if head["round"] != self._round:
            try:
                self._bring(head, begins)
            except FileNotFoundError as error:
                raise Moved(str(error)) from error
            finally:
                shutil.rmtree(self.folder / INCOMING, ignore_errors=True)
        return head["pulse"] or {}

    def _bring(self, head: dict[str, Any], begins: Callable[[str], None]) -> None:
        files = {name: entry for name, entry in self.files.items() if not grows(name)}
        if head["listing"] != self._listing:
            begins(head["listing"])
            files = json.loads(self.bucket.get(f"{self.root}/{head['listing']}"))
            self._replace(files)
        growing = head["growing"]
        for name in sorted(growing, key=lambda name: name == EVENTS):
            self._let_grow(name, growing[name])
        for name in self.files.keys() - files.keys() - growing.keys():
            (self.folder / name).unlink(missing_ok=True)
        self.files, self._round, self._listing = {**files, **growing}, head["round"], head["listing"]
        _force(self.folder)
        self._keep()

    def _replace(self, files: dict[str, Entry]) -> None:
        """Fetch what is not here yet, under its id, and put everything that is new in its place."""
        incoming = self.folder / INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        here = {entry[0]: self.folder / name for name, entry in self.files.items() if _is_whole(self.folder / name, entry)}
        new = [name for name, entry in files.items() if here.get(entry[0]) != self.folder / name and not self._is_at(name, entry)]
        whole = {name.partition("/")[0] for name in new} & set(WHOLE)
        for name, entry in files.items():
            place = incoming / "files" / name
            if name in new or name.partition("/")[0] in whole:
                place.parent.mkdir(parents=True, exist_ok=True)
                if entry[0] in here:
                    os.link(here[entry[0]], place)
                else:
                    self.bucket.get_file(f"{self.root}/{entry[2][0][0]}", place)
                    _force(place)
                    here[entry[0]] = place
        gone = {name.partition("/")[0] for name in self.files} & set(WHOLE) - {name.partition("/")[0] for name in files}
        for name in sorted(gone | whole):
            if (self.folder / name).exists():
                (self.folder / name).rename(incoming / f"former-{name}")
            if name in whole:
                _force(incoming / "files" / name)
                (incoming / "files" / name).rename(self.folder / name)
        for name in new:
            if name.partition("/")[0] not in whole:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (incoming / "files" / name).replace(self.folder / name)

    def _is_at(self, name: str, entry: Entry) -> bool:
        return self.files.get(name, [""])[0] == entry[0] and _is_whole(self.folder / name, entry)

    def _let_grow(self, name: str, entry: Entry) -> None:
        file, known = self.folder / name, self.files.get(name)
        same = known is not None and known[0] == entry[0] and _is_whole(file, known)
        start = known[1] if same and known is not None else 0
        if same and start == entry[1]:
            return
        aside = file if same else self.folder / f".{INCOMING}"
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "ab" if same else "wb") as opened:
            behind = 0
            for part, size in entry[2]:
                behind += size
                if behind > start:
                    opened.write(self.bucket.get(f"{self.root}/{part}", max(0, size - behind + start)))
            opened.flush()
            if name == EVENTS:
                os.fsync(opened.fileno())
        if not same:
            aside.replace(file)

    def _keep(self) -> None:
        record = {"root": self.root, "round": self._round, "listing": self._listing, "files": self.files}
        aside = self.folder / f"{RECORD}.{os.getpid()}"
        aside.write_text(json.dumps(record))
        aside.replace(self.folder / RECORD)


def _walk(folder: Path, leaves_out: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Every plain file below a folder, by its name from there; hidden ones, and what is hidden or left out, not."""
    places = [(folder, "")]
    while places:
        place, above = places.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(".") or (not above and entry.name in leaves_out):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    places.append((place / entry.name, f"{above}{entry.name}/"))
                elif entry.is_file(follow_symlinks=False):
                    yield f"{above}{entry.name}", entry.stat(follow_symlinks=False)


def _mark(name: str, stat: os.stat_result) -> Mark:
    return (stat.st_ino,) if grows(name) else (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _objects(files: dict[str, Entry]) -> set[str]:
    return {part[0] for entry in files.values() for part in entry[2]}


def _is_whole(file: Path, entry: Entry) -> bool:
    return file.is_file() and file.stat().st_size == entry[1]


def _force(path: Path) -> None:
    """A file's contents, or a folder's list of names, to the disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
