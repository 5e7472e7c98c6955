"""Server-sent events: a job's events, its status and its log, followed as they are written, resumed where they broke off."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from contracts.errors import NotFound
from contracts.job import JobStatus
from docker_sdk_api.logs import LineReader

PAUSE = 0.4
HEARTBEAT = 15.0
FROM_NOW = -1
GROWING = ("history", "previews")
"""Lists of a status that may be long: of a status that goes on, only what is new is sent."""


class Watch:
    """One look at a job for everybody who follows it at the moment: 200 open pages ask the disk as often as one does."""

    def __init__(self, file: Path, status: Callable[[], JobStatus]) -> None:
        self.file = file
        self._status = status
        self._turn = asyncio.Lock()
        self._at = 0.0
        self._present: JobStatus | None = None
        self._parts: dict[int, tuple[list[str], int]] = {}

    async def look(self) -> JobStatus | None:
        """The status, at most PAUSE old; None where the job is gone."""
        async with self._turn:
            if time.monotonic() - self._at >= PAUSE * 0.9:
                try:
                    self._present = await asyncio.to_thread(self._status)
                except NotFound:
                    self._present = None
                self._at, self._parts = time.monotonic(), {}
            return self._present

    async def read(self, offset: int) -> tuple[list[str], int]:
        """The whole lines of events from an offset on, a bounded part of them, and the offset behind."""
        async with self._turn:
            if offset not in self._parts:
                self._parts[offset] = await asyncio.to_thread(_read, self.file, offset)
            return self._parts[offset]


async def follow_events(watch: Watch, after: int) -> AsyncIterator[str]:
    """Frames `event` (one line of events.jsonl, id = its number from 1), `status`, `news` and `end`.

    `after`: the number of the last line that the reader has; FROM_NOW: it wants only what comes. The first status is whole;
    `news` is a status again, with only the new part of the lists GROWING and where it starts: `history_from`, `previews_from`.
    """
    reader = LineReader(watch.file)
    number = await asyncio.to_thread(reader.to_the_end) if after == FROM_NOW else 0
    offset, quiet = reader.offset, 0.0
    shown: JobStatus | None = None
    while True:
        present = await watch.look()
        if present is None:
            yield _frame("end", "deleted")
            return
        sent = False
        while (part := await watch.read(offset))[1] > offset:
            lines, offset = part
            for line in lines:
                number += 1
                if number > after:
                    sent = True
                    yield _frame("event", line, str(number))
        if present != shown:
            yield _frame("status", present.model_dump_json()) if shown is None else _news(shown, present)
            shown, sent = present, True
        if present.ended_already:
            yield _frame("end", present.state)
            return
        quiet = 0.0 if sent else quiet + PAUSE
        if quiet >= HEARTBEAT:
            quiet = 0.0
            yield ": still there\n\n"
        await asyncio.sleep(PAUSE)


def _news(shown: JobStatus, present: JobStatus) -> str:
    """What a reader who was shown one status needs to have the next."""
    body = present.model_dump(mode="json", exclude=set(GROWING))
    for name in GROWING:
        before, now = getattr(shown, name), getattr(present, name)
        same = len(before) if now[: len(before)] == before else 0
        body[f"{name}_from"] = same
        body[name] = [row if isinstance(row, str) else row.model_dump(mode="json") for row in now[same:]]
    return _frame("news", json.dumps(body))


async def follow_log(watch: Watch, file: Path, offset: int) -> AsyncIterator[str]:
    """The lines of train.log from a byte offset on, each frame's id being the offset behind it; then `end`."""
    reader = LineReader(file, offset)
    quiet = 0.0
    while True:
        present = await watch.look()
        ended = present is None or present.ended_already
        before, lines = reader.offset, await asyncio.to_thread(reader.read)
        if lines:
            quiet = 0.0
            yield "".join(_frame("message", line, str(behind)) for line, behind in lines)
        if reader.offset > before:
            continue
        if ended:
            yield _frame("end", "")
            return
        quiet += PAUSE
        if quiet >= HEARTBEAT:
            quiet = 0.0
            yield ": still there\n\n"
        await asyncio.sleep(PAUSE)


def _read(file: Path, offset: int) -> tuple[list[str], int]:
    reader = LineReader(file, offset)
    return [line for line, _ in reader.read()], reader.offset


def _frame(event: str, data: str, number: str = "") -> str:
    identity = f"id: {number}\n" if number else ""
    body = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"{identity}event: {event}\n{body}\n"
