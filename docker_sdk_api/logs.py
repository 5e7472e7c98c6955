"""A log of any length, read in parts by the offsets of its bytes: its end, what stands before or behind a line, and where a word is.

A million lines are some 80 MB: nobody sends them, and nobody counts them. A place in the log is the offset of a byte.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from contracts.answers import LogPart
from contracts.plain import open_plain, size_of

CHUNK = 256 * 1024
LONGEST = 4 * 2**20
"""Bytes of a line that is read whole; a longer one is nobody's, and is passed over."""
BLOCK = 4 * CHUNK
"""Bytes that a search looks at together."""
MOST_HITS = 200


class Hit(BaseModel):
    """A line that holds what was looked for, and the byte at which it starts."""

    at: int
    line: str


class Hits(BaseModel):
    """The last lines of a log that hold a word, oldest first; `more`: there are earlier ones, before the first of these."""

    hits: list[Hit]
    more: bool


class LineReader:
    """Reads the whole lines that a growing file has gained since the last time, a bounded part at a time.

    It may have got on (`offset`) without a line to give: by a part of one that is longer than LONGEST.
    """

    def __init__(self, file: Path, offset: int = 0) -> None:
        self.file = file
        self.offset = offset

    def read(self) -> list[tuple[str, int]]:
        """Lines without their ends, each with the offset behind it."""
        try:
            with open_plain(self.file) as file:
                lines = self._gained(file.fileno())
        except FileNotFoundError:
            return []
        result = []
        for line in lines:
            self.offset += len(line)
            result.append((line.decode(errors="replace").rstrip("\r\n"), self.offset))
        return result

    def _gained(self, file: int) -> list[bytes]:
        """Whole lines, of at most CHUNK bytes or one alone; what is left of a line that was too long is dropped."""
        inside = self.offset > 0 and os.pread(file, 1, self.offset - 1) not in (b"\n", b"")
        content = os.pread(file, CHUNK, self.offset)
        if len(content) == CHUNK and b"\n" not in content:
            content = os.pread(file, LONGEST, self.offset)
        if inside or (len(content) == LONGEST and b"\n" not in content):
            rest = content.find(b"\n") + 1
            self.offset = self.offset + rest if rest else _written_from(file, self.offset + len(content))
            content = content[rest:] if rest else b""
        return [line + b"\n" for line in content.split(b"\n")[:-1]]

    def to_the_end(self) -> int:
        """Go behind the last whole line; how many lines were passed over."""
        passed = 0
        try:
            with open_plain(self.file) as file:
                at = self.offset
                while part := os.pread(file.fileno(), CHUNK, at):
                    if b"\n" in part:
                        passed += part.count(b"\n")
                        self.offset = at + part.rindex(b"\n") + 1
                    at = _written_from(file.fileno(), at + len(part))
        except FileNotFoundError:
            pass
        return passed


def _written_from(file: int, at: int) -> int:
    """The first place from one on at which something was written; the file's end where nothing was. What lies between takes no room."""
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError:  # ENXIO: nothing more
        return max(at, os.fstat(file).st_size)


def tail(file: Path, lines: int) -> str:
    """The last lines of a file, reading no more of it than they take (at most CHUNK bytes)."""
    size = size_of(file)
    text = _bytes(file, max(0, size - CHUNK), size).decode(errors="replace")
    return "\n".join(text.split("\n")[-lines - 1 :]) if lines else ""


def part_before(file: Path, before: int | None, lines: int) -> LogPart:
    """The last lines that end at or before an offset, at most CHUNK bytes of them; of None, the last ones of all.

    A line longer than CHUNK is cut into pieces, so that asking again always goes on.
    """
    size = size_of(file)
    end = size if before is None else min(before, size)
    start = max(0, end - CHUNK)
    content = _bytes(file, start, end)
    if before is None:  # the last line may still be being written
        whole = content.rfind(b"\n") + 1
        content, end = content[:whole], start + whole
    if start and (first := content.find(b"\n") + 1) < len(content):
        content, start = content[first:], start + first
    kept = content.splitlines(keepends=True)[-lines:]
    start = end - sum(map(len, kept))
    return LogPart(start=start, end=end, size=size, lines=_texts(kept))


def part_after(file: Path, after: int, lines: int) -> LogPart:
    """The first whole lines from an offset on, at most CHUNK bytes of them."""
    size = size_of(file)
    content = _bytes(file, min(after, size), min(after + CHUNK, size))
    whole = content.rfind(b"\n") + 1 or (len(content) if len(content) == CHUNK else 0)
    kept = content[:whole].splitlines(keepends=True)[:lines]
    return LogPart(start=after, end=after + sum(map(len, kept)), size=size, lines=_texts(kept))


def find_lines(file: Path, word: str, before: int | None = None, most: int = MOST_HITS) -> Hits:
    """The last lines that hold a word, whatever its case, and end at or before an offset.

    The file is read in blocks from its end, and may be cut short meanwhile. A line longer than a block is searched in pieces.
    """
    size = size_of(file)
    end = size if before is None else min(before, size)
    if not end or not word:
        return Hits(hits=[], more=False)
    found: list[Hit] = []
    with open_plain(file) as opened:
        for at, line in _lines_with(opened.fileno(), re.compile(re.escape(word.encode()), re.IGNORECASE), end):
            found.append(Hit(at=at, line=line.decode(errors="replace").rstrip("\r")))
            if len(found) > most:
                break
    return Hits(hits=found[most - 1 :: -1] if len(found) > most else found[::-1], more=len(found) > most)


def _lines_with(file: int, pattern: re.Pattern[bytes], end: int) -> Iterator[tuple[int, bytes]]:
    """Where lines with a match start and how they begin, the last one first: blocks from the end, each searched forwards."""
    while end > 0:
        start = max(0, end - BLOCK)
        text = os.pread(file, end - start, start) if _written_from(file, start) < end else b""
        if start and (first := text.find(b"\n") + 1) < len(text):
            text, start = text[first:], start + first
        places: list[tuple[int, bytes]] = []
        at = 0
        while match := pattern.search(text, at):
            line_start = text.rfind(b"\n", 0, match.start()) + 1
            line_end = text.find(b"\n", match.end())
            line_end = len(text) if line_end < 0 else line_end
            places.append((start + line_start, text[line_start : min(line_end, line_start + 4096)]))
            at = line_end + 1
        yield from reversed(places)
        end = start


def _texts(lines: list[bytes]) -> list[str]:
    return [line.decode(errors="replace").rstrip("\r\n") for line in lines]


def _bytes(file: Path, start: int, end: int) -> bytes:
    """From one place to another; none where there is no file."""
    try:
        with open_plain(file) as opened:
            opened.seek(start)
            return opened.read(end - start)
    except FileNotFoundError:
        return b""
