"""Ends that a job cannot tell of itself: it died unseen, or it hangs. They are written down as events, and resumed from when asked to."""

import time
from contextlib import AbstractContextManager, suppress
from functools import partial

from contracts.errors import NotFound, Unavailable
from contracts.events import Failed, Stopped
from contracts.job import JobStatus
from contracts.job_folder import JobFolder
from docker_sdk_api.jobs import GRACE, Jobs
from docker_sdk_api.log_limit import LogLimit
from docker_sdk_api.rounds import Rounds
from docker_sdk_api.standing import OUT_OF_MEMORY, changed, last_event, written

BETWEEN = 5.0
"""Seconds between two looks."""
PATIENCE = 120.0
"""A job that was asked to stop, and of which nothing was heard for so long since, is ended by the launcher."""
UNSURE = 60.0
"""For so many seconds a job without a task may be one that another program is about to launch."""


class Ends:
    """Looks after all jobs of a folder."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.silence = jobs.settings.silent_minutes * 60
        self.logs = LogLimit(jobs.settings.train_log_megabytes)
        self._heard: dict[str, tuple[tuple[int, int], float]] = {}
        self.between = min(BETWEEN, self.silence / 3) if self.silence else BETWEEN
        self._rounds = Rounds("ends of jobs")

    def looking(self) -> AbstractContextManager[None]:
        """Every few seconds, in a thread, until the block ends."""
        return self._rounds.going(self._go_round, first=self.between)

    def _go_round(self) -> float:
        self._rounds.attempt(self.look, None, "The jobs could not be looked at")
        self._rounds.attempt(self.tidy, None, "What ended jobs have left could not be removed")
        return self.between

    def look(self) -> None:
        """At every job once. What goes wrong with one keeps nobody from looking at the others."""
        names = self.jobs.names()
        self._heard = {name: self._heard[name] for name in names if name in self._heard}
        for name in names:
            self._rounds.attempt(partial(self._look_past, name), None, f"The job {name} could not be looked at")

    def tidy(self) -> None:
        """Nothing is kept of the tasks of jobs that have ended but their folders."""
        with suppress(Unavailable):  # nobody knows what there is
            for name in self.jobs.launcher.held():
                self._rounds.attempt(partial(self.jobs.let_go, name), None, f"What {name} has left could not be removed")

    def _look_past(self, name: str) -> None:
        with suppress(NotFound, FileNotFoundError, Unavailable):  # deleted this moment; or nobody knows whether it lives
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        folder = self.jobs.folder(name)
        self._rounds.attempt(partial(self.logs.hold, folder.log_file), None, f"The log of {name} could not be kept short")
        if self.jobs.standing.end(name):
            self._heard.pop(name, None)
            return
        status = self.jobs.status(name)
        if not status.ended_already:
            with suppress(Unavailable):  # the queue's database is away: whether a job hangs is seen all the same
                self.jobs.line.adopt(self.jobs.standing.job(folder), status)
        if status.state == "queued":
            self._heard.pop(name, None)
        elif status.ended_already:
            if self._is_sure(folder):
                lost = self.jobs.launcher.poll(name).lost
                if lost:  # while nobody could take it, its end is not told either, and it is looked at again
                    self.jobs.launcher.require(self.jobs.standing.job(folder).engine)
                self.jobs.settle(name, goes_on=partial(self._goes_on, folder, lost))
        elif self._is_silent(name, folder):
            self._end_hung(folder)
        elif self._heeds_nobody(folder, status):
            self.jobs.launcher.stop(name, GRACE)  # its end is told once it is seen to be gone

    def _is_sure(self, folder: JobFolder) -> bool:
        """Whether its task has really gone, and is not about to be launched by another program."""
        pulse = self.jobs.launcher.poll(folder.name)
        if (pulse.exit_code is not None or pulse.lost) and last_event(folder.events_file) != "resumed":
            return True
        latest = max(folder.job_file.stat().st_mtime, written(folder)[0] / 1e9)
        return time.time() - latest > UNSURE

    def _is_silent(self, name: str, folder: JobFolder) -> bool:
        """Whether a job has written neither an event nor a line for too long, on a clock that stops while the machine sleeps.

        One that only waits for room, and one of which nothing can be seen, is not silent. Raises Unavailable.
        """
        heard = written(folder)
        if name not in self._heard or self._heard[name][0] != heard or self.jobs.standing.job(folder).waiting:
            self._heard[name] = (heard, time.monotonic())
        if not self.silence or time.monotonic() - self._heard[name][1] <= self.silence:
            return False
        del self._heard[name]  # where it turns out to be alive, its time begins anew
        pulse = self.jobs.launcher.poll(name)
        return not pulse.waits and not pulse.note

    def _end_hung(self, folder: JobFolder) -> None:
        self.jobs.launcher.stop(folder.name, GRACE)
        cause = f"The training hung: nothing was heard of it for {self.silence / 60:g} minutes, so it was ended."
        cure = "Resume it: it goes on after its last whole epoch. Where its steps take as long as that, raise SILENT_MINUTES."
        end = Stopped() if folder.asked_to_stop() is not None else Failed(cause=cause, cure=cure)
        self.jobs.settle(folder.name, end, partial(self._goes_on, folder, False))

    def _heeds_nobody(self, folder: JobFolder, status: JobStatus) -> bool:
        """Whether a job was asked to stop long ago and is not heard of: one that hangs does not read its stop file.

        One that is heard of is given more time, as it scores many pictures; and so is one that publishes its best.
        """
        asked = changed(folder.stop_file)
        if not asked or status.state not in ("starting", "training"):
            return False
        return time.time() - max(asked, *written(folder)) / 1e9 > PATIENCE

    def _goes_on(self, folder: JobFolder, lost: bool, status: JobStatus) -> bool:
        """Whether a job that stands so is resumed without being asked: as often as the settings say. `lost`: its node is gone."""
        if status.state != "failed" or folder.asked_to_stop() is not None:
            return False
        if status.cause.startswith(OUT_OF_MEMORY):  # which would only come again
            return False
        settings = self.jobs.settings
        return status.resumed_by_itself < max(settings.resume_by_itself, settings.go_on_elsewhere if lost else 0)
