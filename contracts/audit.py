"""Who did what: a line of JSON for every change and every refusal, in a file that is put aside when it is full."""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from contracts.tokens import OWN_FOLDER

LOG = logging.getLogger("maskwright.audit")
MOST = 10 * 2**20
"""Bytes of one file."""
AUDIT, PREDICTIONS = "audit.log", "predictions.log"
"""Of docker_sdk_api, and of inference_api, which says in a line of many predictions at once."""
KEPT = 4
"""So many older ones stay beside it: audit.log.1 is the last of them, and predictions.log.1."""


class Audit:
    """`note` is called on an event loop: it writes one line. What the disk refuses is said in the log, not to the asker."""

    def __init__(self, checkpoints: Path, name: str = AUDIT, most: int = MOST) -> None:
        self.file, self.most = checkpoints / OWN_FOLDER / name, most
        self._alone = threading.Lock()

    def note(self, record: dict[str, Any]) -> None:
        line = json.dumps({"at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **record}).encode() + b"\n"
        with self._alone:
            try:
                self._append(line)
            except OSError as error:
                LOG.error("The audit log cannot be written (%s): %s", error, line.decode().strip())

    def last(self, most: int) -> list[dict[str, Any]]:
        """The last lines, newest first."""
        lines: list[bytes] = []
        for file in (self.file, self._older(1)):
            if len(lines) < most and file.is_file():
                lines += file.read_bytes().splitlines()[::-1]
        return [record for line in lines[:most] if (record := _read(line))]

    def _append(self, line: bytes) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.file.parent):
            self._append_alone(line)

    def _append_alone(self, line: bytes) -> None:
        if self.file.is_file() and self.file.stat().st_size + len(line) > self.most:
            for number in range(KEPT, 0, -1):
                former = self._older(number - 1)
                if former.is_file():
                    former.replace(self._older(number))
        place = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if os.write(place, line) != len(line):
                os.write(place, b"\n")  # what a full disk tore stays a line of its own
        finally:
            os.close(place)

    def _older(self, number: int) -> Path:
        return self.file.with_name(f"{self.file.name}.{number}") if number else self.file


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Services of several machines may share a folder: none puts a file aside that another one is about to."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _read(line: bytes) -> dict[str, Any]:
    """Nothing where a full disk tore the line."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
