"""Who did what: a line of JSON for every change and every refusal, in a file that is put aside when it is full."""

import json
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from contracts.tokens import OWN_FOLDER

MOST = 10 * 2**20
"""Bytes of one file."""
KEPT = 4
"""So many older ones stay beside it: audit.log.1 is the last of them."""


class Audit:
    """`note` is called on an event loop: it writes one line, and what the disk refuses is said on stderr instead of to the asker."""

    def __init__(self, checkpoints: Path, most: int = MOST) -> None:
        self.file, self.most = checkpoints / OWN_FOLDER / "audit.log", most
        self._alone = threading.Lock()

    def note(self, record: dict[str, Any]) -> None:
        line = json.dumps({"at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **record}).encode() + b"\n"
        with self._alone:
            try:
                self._append(line)
            except OSError as error:
                print(f"the audit log cannot be written ({error}): {line.decode().strip()}", flush=True)

    def last(self, most: int) -> list[dict[str, Any]]:
        """The last lines, newest first."""
        lines: list[bytes] = []
        for file in (self.file, self._older(1)):
            if len(lines) < most and file.is_file():
                lines += file.read_bytes().splitlines()[::-1]
        return [record for line in lines[:most] if (record := _read(line))]

    def _append(self, line: bytes) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
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


def _read(line: bytes) -> dict[str, Any]:
    """Nothing where a full disk tore the line."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
