"""Launches what waits as soon as its turn comes: woken when something changes, and looking by itself every second or so."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from annotations.doctor.check import Report
from contracts.errors import NotFound, Problem, Unavailable
from contracts.job import Job
from contracts.networks import find_network
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import place_of
from docker_sdk_api.speed import Speeds, training_seconds

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
        self._over = False
        self._said = ""
        jobs.waits = True
        jobs.line.lasts = self.lasts

    @contextmanager
    def launching(self) -> Iterator[None]:
        """In a thread, until the block ends."""
        thread = threading.Thread(target=self._run, name="queue of jobs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            self.line.woken.set()
            thread.join()

    def _run(self) -> None:
        self._try(self.adopt)
        while not self._over:
            self.line.woken.clear()
            busy = self._try(self.look)
            self.line.woken.wait(BETWEEN if busy else IDLE)

    def _try(self, what: Callable[[], object]) -> bool:
        """Whatever goes wrong with the database, the engine or a disk now may go well with the next look. It is said once."""
        try:
            found, said = bool(what()), ""
        except (Problem, OSError, ValueError) as problem:  # the last: a job.json that cannot be read
            found, said = True, f"The queue could not be looked at: {problem}"
        except Exception:  # noqa: BLE001 - a thread that ends would launch no job any more, and nobody would see it
            found, said = True, f"The queue could not be looked at: {traceback.format_exc()}"
        if said and said != self._said:
            print(said, file=sys.stderr, flush=True)
        self._said = said
        return found

    def adopt(self) -> None:
        """What runs or waits although the queue does not know it: it was killed between a folder and the queue, or is of before."""
        for job in reversed(self.jobs.all()):
            with suppress(NotFound, OSError, ValueError, Unavailable):  # deleted this moment, damaged, or nobody knows: Ends looks again
                if not self.jobs.standing.ended(job.name) and not (status := self.jobs.status(job.name)).ended_already:
                    self.line.adopt(job, status)

    def look(self) -> bool:
        """Launch all whose turn has come. Whether any job runs or waits."""
        self.line.settle()
        while not self._over and (entry := self.line.queue.take(self.line.room())) is not None:
            self.jobs.launch_waiting(entry)
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
        return training_seconds(step, job.hyperparameters, len(split.training), len(split.validation)) / (len(job.gpus) or 1)
