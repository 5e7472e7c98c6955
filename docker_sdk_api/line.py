"""The line of jobs on this machine: the queue, the room that there is, and each job's place in it as people are told it."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone

import psutil

from contracts.answers import Gpu
from contracts.errors import Problem
from contracts.events import Queued, Stopped
from contracts.job import ENDED, Job, JobStatus
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE
from contracts.queue import Place, QueueView, Running, Waiting
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.launchers import Launcher
from docker_sdk_api.machine import count_cores
from docker_sdk_api.plan import PRIORITIES, Entry, Room, in_order, plan, starts
from docker_sdk_api.queue import Queue
from docker_sdk_api.recommend import step_bytes
from docker_sdk_api.settings import Settings
from docker_sdk_api.standing import Standing, last_event

SPARE = 0.9
"""Of the machine's memory, what jobs may take together."""
PROCESS, PLAIN_PROCESS = 600e6, 100e6
"""Bytes that a training takes before its first step: with a framework, and without."""
NOTICED = 0.05
"""Of a GPU's memory that other programs hold: below this it is nobody's business."""
CORES_EACH = 2
SECONDS_BETWEEN_LOOKS = 1.0
MINUTE = 60.0
LINGERS = 120.0
"""Seconds that a process may take to end after its job has told its end."""
GRACE = 10.0


class Line:
    """`lasts` says how many seconds a job will take, None where nothing does; whoever knows sets it."""

    def __init__(self, settings: Settings, launcher: Launcher, standing: Standing) -> None:
        self.settings = settings
        self.launcher = launcher
        self.standing = standing
        self.queue = Queue(settings.checkpoints, settings.database_url)
        self.lasts: Callable[[Job], float | None] = lambda _: None
        self.woken = threading.Event()
        self._looking = threading.RLock()
        self._inside = False
        self._seen: tuple[float, QueueView] | None = None
        self._change = object()

    def wake(self) -> None:
        """Something has changed: whoever launches is to look at once."""
        self._forget()
        self.woken.set()

    def _forget(self) -> None:
        """What was seen, and what somebody is seeing at this moment."""
        self._change, self._seen = object(), None

    def entry(self, job: Job) -> Entry:
        """A job as the queue has it."""
        return Entry(
            job=job.name,
            priority=PRIORITIES.index(job.priority),
            rank=time.time(),
            gpus=() if self.settings.launcher == "ray" else tuple(dict.fromkeys(job.gpus)),  # whose GPUs are other machines'
            memory=round(self._memory(job)),
            counted=not (job.waiting or job.imported),
        )

    def adopt(self, job: Job, status: JobStatus) -> None:
        """See that a job that its events do not end is in the queue: one that waits by its age, one that runs with its GPUs."""
        if self.queue.entry(job.name) is not None:
            return
        folder = JobFolder(self.settings.checkpoints / job.name)
        if status.state == "queued" and folder.asked_to_stop() is not None:  # killed between a cancel and its word
            folder.add_event(Stopped())
        elif status.state == "queued":
            self.queue.put(replace(self.entry(job), rank=job.created.timestamp()))
            self.wake()
        elif self.launcher.poll(job.name).alive:
            self.queue.put(replace(self.entry(job), state="launched"))

    def settle(self) -> None:
        """Free what jobs held that run no more, and let those wait again whose launch came to nothing."""
        for entry in self.queue.running():
            # Where nobody knows whether it lives, or its folder is damaged, it keeps what it holds, and the others are looked at.
            with suppress(Problem, OSError, ValueError):
                if self._settle(entry):
                    self._forget()

    def _settle(self, entry: Entry) -> bool:
        """Whether anything has changed for a job that has had its turn."""
        launches = self.queue.being_launched(entry)  # asked before the launcher is: it may be launched meanwhile
        if entry.state == "launching" and not launches and self.queue.entry(entry.job) != entry:
            return False  # done since it was looked at
        pulse = self.launcher.poll(entry.job)
        if pulse.alive and entry.state == "launching" and not launches:
            self.queue.launched(entry.job)
        elif pulse.alive and self._lingers(entry.job):
            self.launcher.stop(entry.job, GRACE)
        elif pulse.alive or launches:
            return False
        elif entry.state == "launching" and pulse.exit_code is None:
            self._wait_again(entry)
        else:
            self.queue.remove(entry)
        return True

    def _lingers(self, name: str) -> bool:
        """Whether a job has told its end long ago, and its process still holds what it was given."""
        try:
            status = self.standing.status(JobFolder(self.settings.checkpoints / name))
        except FileNotFoundError:
            return False
        if not status.ended_already or status.ended is None:  # the former: what was told since says that it learns
            return False
        return (datetime.now(timezone.utc) - status.ended).total_seconds() > LINGERS

    def _wait_again(self, entry: Entry) -> None:
        """A launch that came to nothing, because its service was killed: its job says that it waits, before anybody can launch it."""
        folder = JobFolder(self.settings.checkpoints / entry.job)
        if folder.exists() and last_event(folder.events_file) not in ENDED:
            folder.add_event(Queued())
        self.queue.put_back(entry)

    def room(self, gpus: Sequence[int] = ()) -> Room:
        """What there is at this moment. `gpus`: those that are wanted besides what waiting jobs want.

        A GPU that is not found is refused: a driver that fails for a moment would else let all that wait for one be launched, and fail.
        """
        memory = psutil.virtual_memory()
        found = self.queue.entries()
        held = {gpu for entry in found if entry.runs for gpu in entry.gpus}
        wanted = {*gpus, *(gpu for entry in found if not entry.runs for gpu in entry.gpus)} - held
        there = self.launcher.gpus() if wanted else Gpus([])
        missing = dict.fromkeys(wanted, there.note or "it is not there")
        told = missing | {gpu.id: self._taken(gpu) for gpu in there.found if gpu.id in wanted}
        refused = {gpu: reason for gpu, reason in told.items() if reason}
        return Room(self.parallel(), round(memory.total * SPARE), memory.available, refused, frozenset(wanted))

    def parallel(self) -> int:
        return self.settings.parallel_jobs or max(1, count_cores() // CORES_EACH)

    def cautions(self, job: Job) -> list[str]:
        """What a job is to be told of its GPUs as it starts."""
        if not job.gpus:
            return []
        rows = [gpu for gpu in self.launcher.gpus().found if gpu.id in job.gpus and used_share(gpu) > NOTICED]
        return [f"{_used(gpu)} on GPU {gpu.id} ({gpu.name}) as this job starts: it may be slower, and memory may run out." for gpu in rows]

    def place(self, job: str) -> Place | None:
        """Of a job that waits; None where it does not, or not yet."""
        found = next((row for row in self.look().waiting if row.job == job), None)
        return None if found is None else Place.model_validate(found.model_dump(include=set(Place.model_fields)))

    def look(self) -> QueueView:
        """The whole queue, at most a second old."""
        with self._looking:
            seen = self._seen
            if self._inside:  # an estimate asks how another job stands
                return QueueView(waiting=[], running=[], parallel_jobs=self.parallel())
            if seen is None or time.monotonic() - seen[0] > SECONDS_BETWEEN_LOOKS:
                self._inside, change = True, self._change
                try:
                    view = self._look()
                    seen = (time.monotonic(), view)
                finally:
                    self._inside = False
                if self._change is change:
                    self._seen = seen
            return seen[1]

    def _look(self) -> QueueView:
        entries, room, now = self.queue.entries(), self.room(), time.time()
        reasons = plan(entries, room, now)
        left = {entry.job: self._left(entry.job) for entry in entries if entry.runs}
        soon = starts(entries, room, left, {entry.job: self._lasts(entry.job) for entry in entries if not entry.runs})
        line = in_order(entries)
        waiting = [
            Waiting(
                job=entry.job,
                gpus=list(entry.gpus),
                memory=entry.memory,
                position=number,
                of=len(line),
                priority=PRIORITIES[entry.priority],
                held=entry.state == "held",
                reason=reasons[entry.job] or "starts now",
                starts=_minute(now, soon.get(entry.job)),
            )
            for number, entry in enumerate(line, 1)
        ]
        running = [
            Running(job=entry.job, gpus=list(entry.gpus), memory=entry.memory, ends=_minute(now, left[entry.job]), counted=entry.counted)
            for entry in entries
            if entry.runs
        ]
        return QueueView(waiting=waiting, running=sorted(running, key=lambda row: row.job), parallel_jobs=room.parallel)

    def _taken(self, gpu: Gpu) -> str:
        """Why a GPU that no job here holds cannot be given; empty where it can."""
        if used_share(gpu) <= self.settings.gpu_taken_share:
            return ""
        return f"{_used(gpu)} on it (nvidia-smi names them; GPU_TAKEN_SHARE says how much is too much)"

    def _memory(self, job: Job) -> float:
        """Bytes of the machine's memory that a job is reckoned to take: its limit where it has one, else what one step keeps."""
        if limit := self.limit(job):
            return limit
        if job.engine == "majority" or job.imported:
            return PLAIN_PROCESS
        network = next((row for row in CATALOGUE if row.key == f"{job.engine}/{job.network}/{job.backbone}"), None)
        if job.gpus or network is None:
            return PROCESS * job.together
        settings = job.hyperparameters
        crops = 1 if settings.fit_memory else -(-settings.batch_size // job.together // settings.accumulate)
        return (PROCESS + step_bytes(network, settings.crop, max(1, crops))) * job.together

    def limit(self, job: Job) -> int | None:
        """Bytes that a job may take; None: as much as there is."""
        return job.memory_limit * 1_000_000 if job.memory_limit else self.settings.job_memory or None

    def _left(self, name: str) -> float | None:
        """Seconds until a running job ends, by its own word, else by what it was expected to take."""
        try:
            folder = JobFolder(self.settings.checkpoints / name)
            status = self.standing.status(folder)
        except FileNotFoundError:
            return None
        if status.seconds_left is not None or status.ended_already:
            return status.seconds_left or 0.0
        expected = self._lasts(name)
        gone = (datetime.now(timezone.utc) - status.started).total_seconds() if status.started else 0.0
        return None if expected is None else max(0.0, expected - gone)

    def _lasts(self, name: str) -> float | None:
        try:
            return self.lasts(self.standing.job(JobFolder(self.settings.checkpoints / name)))
        except FileNotFoundError:
            return None


def used_share(gpu: Gpu) -> float:
    return 1 - gpu.memory_free / gpu.memory_total if gpu.memory_total else 0.0


def _used(gpu: Gpu) -> str:
    return f"Other programs hold {(gpu.memory_total - gpu.memory_free) / 1e9:.1f} of {gpu.memory_total / 1e9:.1f} GB"


def _minute(now: float, seconds: float | None) -> datetime | None:
    """So many seconds from now, to the minute: nobody knows it better, and a page need not be told of every second."""
    return None if seconds is None else datetime.fromtimestamp((now + seconds) // MINUTE * MINUTE, timezone.utc)
