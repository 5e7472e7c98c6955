"""Deleted jobs and models: moved aside whole, brought back on request, and gone for good after a while."""

import shutil
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from contracts.answers import DeletedJob
from contracts.errors import NotFound, Taken

ASIDE = ".deleted"


class Deleted:
    """What lies in checkpoints/.deleted, a folder `<unix time in ms>.<name>` each. The folders' names are all that is kept of it.

    `part`: only this folder of a job is deleted (its model), and lies in checkpoints/.deleted-<part>.
    """

    def __init__(self, checkpoints: Path, minutes: float, part: str = "") -> None:
        self.checkpoints = checkpoints
        self.part = part
        self.folder = checkpoints / (f"{ASIDE}-{part}" if part else ASIDE)
        self.minutes = minutes
        self._timer: threading.Timer | None = None
        self._setting = threading.Lock()

    def take(self, job: Path) -> DeletedJob:
        """Move a job's folder, or its part, aside: one rename, whatever its size."""
        self.folder.mkdir(exist_ok=True)
        aside = self.folder / f"{time.time_ns() // 1_000_000}.{job.name}"
        (job / self.part).rename(aside)
        self._look_later()
        return self._of(aside)

    def _look_later(self) -> None:
        """Once the next one is past its time. One timer, and so one thread, however much is deleted."""
        with self._setting:
            present = datetime.now(timezone.utc)
            if self._timer is None and (left := [moment - present for moment in self._ends() if moment > present]):
                self._timer = threading.Timer(min(left).total_seconds(), self._look)
                self._timer.daemon = True
                self._timer.start()

    def _look(self) -> None:
        try:
            self.all()
        finally:
            with self._setting:
                self._timer = None
            self._look_later()

    def _ends(self) -> list[datetime]:
        """When each is past its time for certain."""
        return [self._of(aside).until + timedelta(seconds=1) for aside in self._asides()]

    def _asides(self) -> list[Path]:
        """The last one first."""
        with suppress(FileNotFoundError):  # nothing was deleted yet
            return sorted(self.folder.iterdir(), reverse=True)
        return []

    def all(self) -> list[DeletedJob]:
        """What can still be brought back, the last one first. What is past its time is removed now."""
        rows = []
        for aside in self._asides():
            row = self._of(aside)
            if row.until > datetime.now(timezone.utc):
                rows.append(row)
            else:
                shutil.rmtree(aside, ignore_errors=True)
        return rows

    def bring_back(self, id: str) -> str:
        """The job's name. Raises NotFound where it is gone for good, Taken where its place is used again."""
        row = self._find(id)
        place = self.checkpoints / row.name / self.part
        if place.exists():
            what = self.part or "job"
            raise Taken(f"There is another {what} named “{row.name}” by now.", f"Delete that one first, then bring “{row.name}” back.")
        if not place.parent.is_dir():
            raise NotFound(f"The job “{row.name}” of this {self.part} was deleted too.", "Bring that job back first.")
        (self.folder / id).rename(place)
        return row.name

    def remove(self, id: str) -> None:
        """For good, at once: its bytes are free then."""
        self._find(id)
        shutil.rmtree(self.folder / id)

    def _find(self, id: str) -> DeletedJob:
        row = next((row for row in self.all() if row.id == id), None)
        if row is None:
            what = self.part or "job"
            raise NotFound(f"This {what} is gone for good.", f"A deleted {what} can be brought back for {self.minutes:g} minutes.")
        return row

    def _of(self, aside: Path) -> DeletedJob:
        at, _, name = aside.name.partition(".")
        since = int(at) / 1000 if at.isdigit() else 0.0
        return DeletedJob(id=aside.name, name=name, until=datetime.fromtimestamp(since + self.minutes * 60, timezone.utc))
