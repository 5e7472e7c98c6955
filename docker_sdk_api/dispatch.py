"""Launches what waits as soon as its turn comes: woken when something changes, and looking by itself every second or so."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from annotations.doctor.check import Report
from contracts.errors import NotFound, Problem, Unavailable
from contracts.job import Job
from contracts.networks import find_network
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import place_of
from docker_sdk_api.rounds import Rounds
from docker_sdk_api.speed import Speeds, job_seconds

BETWEEN = 1.0
"""Seconds between two looks while jobs run or wait."""
IDLE = 5.0
"""Seconds between two looks else."""
UNKNOWN = 10.0
"""Seconds after which it is asked again how long a job will take that nothing said so of."""


class Dispatch:
    """One in every service. Several of them over one queue launch each job once: the queue's transactions see to that."""

    def __init__(self, jobs: Jobs, speeds: Speeds, known: Callable[[Path], Report | None]) -> None:
        """`known`: what a dataset's check found, None where that is not known yet."""
        self.jobs = jobs
        self.known = known
        self.line = jobs.line
        self.speeds = speeds
        self._expected: dict[str, tuple[str, float | None, float]] = {}
        self._adopted = False
        self._rounds = Rounds("queue of jobs", jobs.line.woken)
        jobs.launching.waits = True
        jobs.line.lasts = self.lasts

    def launching(self) -> AbstractContextManager[None]:
        """In a thread, until the block ends."""
        return self._rounds.going(self._go_round)

    def _go_round(self) -> float:
        if not self._adopted:
            self._adopted = True
            self._rounds.attempt(self.adopt, None, "What ran before could not be looked at")
        return BETWEEN if self._rounds.attempt(self.look, True, "The queue could not be looked at") else IDLE

    def adopt(self) -> None:
        """What runs or waits although the queue does not know it: it was killed between a folder and the queue, or is of before."""
        for job in reversed(self.jobs.all()):
            with suppress(NotFound, OSError, ValueError, Unavailable):  # deleted this moment, damaged, or nobody knows: Ends looks again
                if not self.jobs.standing.end(job.name) and not (status := self.jobs.status(job.name)).ended_already:
                    self.line.adopt(job, status)

    def look(self) -> bool:
        """Launch all whose turn has come. Whether any job runs or waits."""
        self.line.settle()
        while not self._rounds.over and (entry := self.line.queue.take(self.line.room())) is not None:
            self.jobs.launching.launch(entry)
        return bool(self.line.queue.entries())

    def lasts(self, job: Job) -> float | None:
        """Seconds that a job will take in all, None where nothing says: reckoned once, and again after a while where nothing said."""
        key, present = f"{job.created}{job.gpus}", time.monotonic()
        known, seconds, at = self._expected.get(job.name, ("", None, 0.0))
        if known != key or (seconds is None and present - at > UNKNOWN):
            seconds = self._reckon(job)
            self._expected[job.name] = (key, seconds, present)
        return seconds

    def _reckon(self, job: Job) -> float | None:
        if job.imported or job.waiting or job.waggle:
            return None
        try:
            network = find_network(job.engine, job.network, job.backbone)
            report = self.known(job.dataset_folder)  # never waited for: whoever asks for the queue would wait with it
            if report is None:
                return None
            report.refuse_errors()
        except (Problem, OSError):
            return None
        split = report.split_for(job.validation_share, job.seed)
        machine = describe_machine(self.jobs.settings, self.jobs.launcher)
        place, precision = place_of(machine, job.gpus), job.hyperparameters.precision
        narrow = precision in ("bfloat16", "float16") or (precision == "auto" and bool(place.gpu or machine.bfloat16))
        step = self.speeds.of(network, place, narrow).seconds
        if step is None:
            return None
        return job_seconds(step, job, split)
