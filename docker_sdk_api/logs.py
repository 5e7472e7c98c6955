"""A log of any length, read in parts by the offsets of its bytes: its end, what stands before or behind a line, and where a word is.

A million lines are some 80 MB: nobody sends them, and nobody counts them. A place in the log is the offset of a byte. What was left out
of a log (log_limit.py) is a hole in its file, which reads as NULs: places stay where they were, and NULs are no text.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
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
MOST_PARTS = 1000
"""Of a file with more holes than these, what follows them is one part: nobody but a prankster makes them."""
NUL = b"\0"


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
            result.append((_text(line), self.offset))
        return result

    def _gained(self, file: int) -> list[bytes]:
        """Whole lines, of at most CHUNK bytes or one alone; what is left of a line that was too long is dropped."""
        self.offset = _text_from(file, self.offset)
        inside = self.offset > 0 and os.pread(file, 1, self.offset - 1) not in (b"\n", NUL, b"")
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


def _written_from(file: int, at: int, what: int = os.SEEK_DATA) -> int:
    """The first place from one on at which something was written (or where a hole begins, SEEK_HOLE); the file's end where nothing was.

    What lies between takes no room.
    """
    try:
        return os.lseek(file, at, what)
    except OSError:  # ENXIO: nothing more
        return max(at, os.fstat(file).st_size)


def _text_from(file: int, at: int) -> int:
    """The first place from one on that has text: a hole and the NULs at its ends are passed over, a bounded number of them at once."""
    for _ in range(2):
        content = os.pread(file, CHUNK, at)
        passed = len(content) - len(content.lstrip(NUL))
        at += passed
        if passed < CHUNK:
            break
        at = _written_from(file, at)
    return at


def _text_before(file: int, end: int) -> int:
    """The place up to one at which the last text before it ends, passing over the same."""
    if os.pread(file, 1, max(0, end - 1)) != NUL:
        return end
    low, high = 0, end  # written: between 0 and low, not between high and end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _written_from(file, middle) < end else (low, middle)
    content = os.pread(file, min(CHUNK, high), max(0, high - CHUNK))
    return high - len(content) + len(content.rstrip(NUL))


def text_parts(file: int, size: int) -> list[tuple[int, int]]:
    """From where to where a log of so many bytes has text: all of it, where nothing was left out."""
    parts: list[tuple[int, int]] = []
    at = _text_from(file, 0)
    while at < size:
        end = min(size, _written_from(file, at, os.SEEK_HOLE)) if len(parts) < MOST_PARTS else size
        parts.append((at, max(at, _text_before(file, end))))
        at = _text_from(file, end)
    return parts


def tail(file: Path, lines: int) -> str:
    """The last lines of a file, reading no more of it than they take (at most CHUNK bytes)."""
    size = size_of(file)
    text = _bytes(file, max(0, size - CHUNK), size).replace(NUL, b"").decode(errors="replace")
    return "\n".join(text.split("\n")[-lines - 1 :]) if lines else ""


def part_before(file: Path, before: int | None, lines: int) -> LogPart:
    """The last lines that end at or before an offset, at most CHUNK bytes of them; of None, the last ones of all.

    A line longer than CHUNK is cut into pieces, so that asking again always goes on.
    """
    with suppress(FileNotFoundError), open_plain(file) as opened:
        return _part_before(opened.fileno(), before, lines)
    return LogPart(start=0, end=0, size=0, lines=[])


def _part_before(file: int, before: int | None, lines: int) -> LogPart:
    size = os.fstat(file).st_size
    end = size if before is None else min(before, size)
    behind = _text_before(file, end)
    start = max(0, behind - CHUNK)
    content = os.pread(file, behind - start, start)
    if before is None:  # the last line may still be being written
        whole = content.rfind(b"\n") + 1
        content, end, behind = content[:whole], start + whole, start + whole
    if start and (first := content.find(b"\n") + 1) < len(content):
        content, start = content[first:], start + first
    kept = content.splitlines(keepends=True)[-lines:]
    return LogPart(start=behind - sum(map(len, kept)), end=end, size=size, lines=_texts(kept))


def part_after(file: Path, after: int, lines: int) -> LogPart:
    """The first whole lines from an offset on, at most CHUNK bytes of them."""
    with suppress(FileNotFoundError), open_plain(file) as opened:
        return _part_after(opened.fileno(), after, lines)
    return LogPart(start=after, end=after, size=0, lines=[])


def _part_after(file: int, after: int, lines: int) -> LogPart:
    size = os.fstat(file).st_size
    start = _text_from(file, after)
    content = os.pread(file, CHUNK, start)
    whole = content.rfind(b"\n") + 1 or (len(content) if len(content) == CHUNK else 0)
    kept = content[:whole].splitlines(keepends=True)[:lines]
    return LogPart(start=after, end=start + sum(map(len, kept)), size=size, lines=_texts(kept))


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
            found.append(Hit(at=at, line=_text(line)))
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
            line_start = max(text.rfind(b"\n", 0, match.start()), text.rfind(NUL, 0, match.start())) + 1
            line_end = text.find(b"\n", match.end())
            line_end = len(text) if line_end < 0 else line_end
            places.append((start + line_start, text[line_start : min(line_end, line_start + 4096)]))
            at = line_end + 1
        yield from reversed(places)
        end = start


def _texts(lines: list[bytes]) -> list[str]:
    return [_text(line) for line in lines]


def _text(line: bytes) -> str:
    return line.replace(NUL, b"").decode(errors="replace").rstrip("\r\n")


def _bytes(file: Path, start: int, end: int) -> bytes:
    """From one place to another; none where there is no file."""
    try:
        with open_plain(file) as opened:
            opened.seek(start)
            return opened.read(end - start)
    except FileNotFoundError:
        return b""
