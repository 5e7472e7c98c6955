"""What old jobs keep that nobody may need any more: told first with its bytes, gone on request or after the days that are set.

Two rules, each off at 0 days. A job that failed or was stopped and left no model goes whole, and can be brought back for a while. Of a
finished job the state to go on from goes (last/, before/), which nothing asks for any more: its model, its best weights, its curves and
its log stay.
"""

import logging
import shutil
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from contracts.answers import DeletedJob, Kept, KeptJob
from contracts.errors import NotFound, Taken
from contracts.job_folder import JobFolder
from contracts.plain import is_folder
from contracts.room import on_disk
from docker_sdk_api.deleted import Deleted
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.rounds import Rounds
from docker_sdk_api.standing import changed

LOG = logging.getLogger("maskwright.jobs")
Days = Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)]
BETWEEN = 3600.0
"""Seconds between two looks."""


class Rules(BaseModel):
    """After how many days what goes; 0: never."""

    model_config = ConfigDict(extra="forbid")

    failed_days: Days = Field(0, description="Jobs that failed or were stopped and have no model: the whole job.")
    checkpoints_days: Days = Field(0, description="Finished jobs: what a resume would begin with. Weights and model stay.")


class Retention:
    """Over all jobs of a folder."""

    def __init__(self, jobs: Jobs, *deleted: Deleted) -> None:
        self.jobs, settings = jobs, jobs.settings
        self.deleted = (jobs.deleted, *deleted)
        self.rules = Rules(failed_days=settings.keep_failed_days, checkpoints_days=settings.keep_checkpoints_days)
        self._rounds = Rounds("retention")

    def preview(self, rules: Rules) -> Kept:
        """What would go by these rules now, the largest first. Nothing is touched."""
        rows = [row for name in self.jobs.names() if (row := self._judge(name, rules))]
        return Kept(rows=sorted(rows, key=lambda row: -row.bytes), bytes=sum(row.bytes for row in rows))

    def apply(self, rules: Rules) -> Kept:
        """Let go of what goes by these rules now. What it was."""
        found = self.preview(rules)
        for row in found.rows:
            with suppress(NotFound, Taken):  # gone or resumed since
                if self._judge(row.job, rules) is not None:
                    self._let_go(row)
        return found

    def looking(self) -> AbstractContextManager[None]:
        """Let go of what was deleted long enough ago, and apply the rules that are set: now and every hour, in a thread, until the
        block ends."""
        return self._rounds.going(self._go_round)

    def _go_round(self) -> float:
        for aside in self.deleted:
            self._rounds.attempt(aside.all, list[DeletedJob](), f"What lies in {aside.folder} could not be looked at")
        if self.rules.failed_days or self.rules.checkpoints_days:
            self._rounds.attempt(self._apply_and_say, None, "What was kept long enough could not be removed")
        return BETWEEN

    def _apply_and_say(self) -> None:
        found = self.apply(self.rules)
        if found.rows:
            names = ", ".join(f"{row.job} ({row.what})" for row in found.rows)
            LOG.warning("Kept long enough, %.0f MB: %s", found.bytes / 1e6, names)

    def _judge(self, name: str, rules: Rules) -> KeptJob | None:
        try:
            folder = self.jobs.folder(name)
            status = self.jobs.status(name)
        except (NotFound, FileNotFoundError):
            return None
        if not status.ended_already or status.ended is None:
            return None
        since = max(status.ended, _brought_back(folder))
        if status.state == "finished":
            parts = _checkpoints(folder)
            if not parts or _younger(since, rules.checkpoints_days):
                return None
            return KeptJob(job=name, what="checkpoint", ended=status.ended, bytes=on_disk(*parts, besides=folder.best))
        if folder.model.is_dir() or _younger(since, rules.failed_days):
            return None
        return KeptJob(job=name, what="job", ended=status.ended, bytes=on_disk(folder.path))

    def _let_go(self, row: KeptJob) -> None:
        if row.what == "job":
            self.jobs.delete(row.job, waiting=False)
        else:
            for part in _checkpoints(self.jobs.folder(row.job)):
                shutil.rmtree(part)


def _checkpoints(folder: JobFolder) -> list[Path]:
    return [part for part in (folder.last, folder.before) if is_folder(part)]


def _brought_back(folder: JobFolder) -> datetime:
    """When somebody undid that it was deleted: they want to have it."""
    return datetime.fromtimestamp(changed(folder.brought_back) / 1e9, timezone.utc)


def _younger(since: datetime, days: float) -> bool:
    return not days or datetime.now(timezone.utc) - since < timedelta(days=days)
