"""Server-sent events: a job's events, its status and its log, followed as they are written, resumed where they broke off."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from contracts.job import JobStatus

PAUSE = 0.4
HEARTBEAT = 15.0
CHUNK = 256 * 1024


async def follow_events(file: Path, status: Callable[[], JobStatus], after: int) -> AsyncIterator[str]:
    """Frames `event` (one line of events.jsonl, id = its number from 1), `status` when it changed, and `end`.

    `after`: the number of the last line that the reader has.
    """
    shown, quiet = "", 0.0
    reader = LineReader(file)
    number = 0
    while True:
        present = await asyncio.to_thread(status)
        sent = False
        for line, _ in await asyncio.to_thread(reader.read):
            number += 1
            if number > after:
                sent = True
                yield _frame("event", line, str(number))
        text = present.model_dump_json()
        if text != shown:
            shown, sent = text, True
            yield _frame("status", text)
        if present.ended_already:
            yield _frame("end", present.state)
            return
        quiet = 0.0 if sent else quiet + PAUSE
        if quiet >= HEARTBEAT:
            quiet = 0.0
            yield ": still there\n\n"
        await asyncio.sleep(PAUSE)


async def follow_log(file: Path, status: Callable[[], JobStatus], offset: int) -> AsyncIterator[str]:
    """The lines of train.log from a byte offset on, each frame's id being the offset behind it; then `end`."""
    reader = LineReader(file, offset)
    while True:
        ended = (await asyncio.to_thread(status)).ended_already
        lines = await asyncio.to_thread(reader.read)
        for line, behind in lines:
            yield _frame("message", line, str(behind))
        if not lines:
            if ended:
                yield _frame("end", "")
                return
            await asyncio.sleep(PAUSE)


class LineReader:
    """Reads the whole lines that a growing file has gained since the last time, a bounded part at a time."""

    def __init__(self, file: Path, offset: int = 0) -> None:
        self.file = file
        self.offset = offset

    def read(self) -> list[tuple[str, int]]:
        """Lines without their ends, each with the offset behind it."""
        if not self.file.exists():
            return []
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            lines = file.readlines(CHUNK)
        result = []
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self.offset += len(line)
            result.append((line.decode(errors="replace").rstrip("\r\n"), self.offset))
        return result


def tail(file: Path, lines: int) -> str:
    """The last lines of a file, reading no more of it than they take (at most CHUNK bytes)."""
    if not file.exists():
        return ""
    with open(file, "rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - CHUNK))
        text = opened.read().decode(errors="replace")
    return "\n".join(text.split("\n")[-lines - 1 :]) if lines else ""


def _frame(event: str, data: str, number: str = "") -> str:
    identity = f"id: {number}\n" if number else ""
    body = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"{identity}event: {event}\n{body}\n"
