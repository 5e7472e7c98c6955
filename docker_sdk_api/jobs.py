"""Jobs: started, followed, stopped and deleted. Everything about a job is in its folder; the launcher says if it lives.

How one is launched is in launching.py.
"""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from annotations.doctor.check import Report, check_dataset
from annotations.doctor.checking import fingerprint_now
from contracts.answers import DeletedJob, Gpu
from contracts.doors import request_id
from contracts.durable import force, force_all
from contracts.errors import Broken, Invalid, NotFound, Problem, Taken, Unavailable
from contracts.events import Failed, Queued, Resumed, Stopped, apply, now
from contracts.hyperparameters import read_hyperparameters
from contracts.job import Job, JobRequest, JobStatus, JobView, is_name
from contracts.job_folder import JobFolder
from contracts.networks import find_network
from contracts.plain import is_folder
from contracts.room import needed, refuse_full
from contracts.waggle import WaggleRun
from docker_sdk_api.deleted import Deleted
from docker_sdk_api.launchers import Launcher, Pulse, Usage
from docker_sdk_api.launching import Launching, refuse_no_room
from docker_sdk_api.limits import refuse_limits, refuse_nodes, refuse_processes
from docker_sdk_api.line import Line
from docker_sdk_api.machine import refuse_engine, refuse_gpus
from docker_sdk_api.settings import Settings
from docker_sdk_api.standing import Standing, end_of
from docker_sdk_api.weights import check_weights

GRACE = 10.0
"""Seconds that a task has to end by itself once it was told to stop."""
SECONDS_BETWEEN_LOOKS = 3.0
"""At a dataset's files, for whether they have changed since a job."""
GLANCE = 24
"""Epochs of a job that a list shows: enough for a small curve."""


class Jobs:
    """All jobs of a checkpoints folder."""

    def __init__(self, settings: Settings, launcher: Launcher, check: Callable[[Path], Report] = check_dataset) -> None:
        self.settings = settings
        self.check = check
        self.launcher = launcher
        self.standing = Standing()
        self.line = Line(settings, launcher, self.standing)
        self.launching = Launching(self.line)
        self.deleted = Deleted(settings.checkpoints, settings.deleted_kept_minutes)
        self._starting = threading.RLock()
        self._launching: set[str] = set()
        self._fingerprints: dict[Path, tuple[float, str]] = {}

    def start(self, request: JobRequest, dataset_folder: Path, waggle: WaggleRun | None = None, api_port: int | None = None) -> JobView:
        """Check all that can be known beforehand, write the job down, and launch it; as a run of a Waggle folder where one is given.

        `api_port`: the job then waits for an old client to say there what to train. Raises Invalid, Taken or Unavailable; then nothing
        is left behind.
        """
        kind = {"waggle": waggle, "api_port": api_port, "waiting": api_port is not None}
        job = self._complete(request, dataset_folder).model_copy(update=kind)
        return self.add(job, lambda _: None)

    def add(self, job: Job, fill: Callable[[JobFolder], None], launch: bool = True) -> JobView:
        """A new folder for a job, filled and launched; `fill` is called before the job is written down. Raises Taken; where
        anything goes wrong nothing is left behind."""
        folder = self._folder(job.name)
        taken_name = Taken(f"There is already a job named “{job.name}”.", "Choose another name, or delete that job first.")
        with self._starting:
            if folder.path.exists() or job.name in self._launching:
                raise taken_name
            self._launching.add(job.name)
        aside = JobFolder(folder.path.with_name(f".{job.name}.new"))  # a folder without its job.json would keep its name for ever
        try:
            shutil.rmtree(aside.path, ignore_errors=True)
            aside.path.mkdir(parents=True)
            fill(aside)
            if launch:
                aside.add_event(Queued(request=request_id()))
            aside.write_job(job)
            if job.waiting:
                aside.write_asked(job)
            force_all(aside.path)
            try:
                aside.path.rename(folder.path)
            except OSError as error:  # another program was quicker
                if folder.path.exists():
                    raise taken_name from error
                raise
            force(folder.path.parent)
            if launch:
                self._put_in(job, folder)
        except BaseException:
            shutil.rmtree(aside.path, ignore_errors=True)
            raise
        finally:
            self._launching.discard(job.name)
        return self.view(job.name)

    def _put_in(self, job: Job, folder: JobFolder) -> None:
        """Into the queue, and launched where its turn has come. Where that fails nothing is left."""
        try:
            self.launching.queue(job, folder)
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise

    def cancel(self, name: str) -> bool:
        """Take a job that waits out of the queue, for good. Whether it did wait."""
        folder = self.folder(name)
        waited = self.line.queue.remove_waiting(name)
        if waited:
            if not self.standing.status(folder).ended_already:
                folder.add_event(Stopped())
            self.line.wake()
        return waited

    def names(self) -> list[str]:
        """Newest first."""
        return [job.name for job in self.all()]

    def all(self) -> list[Job]:
        """What was asked of every job, newest first."""
        return sorted(self.standing.all(self.settings.checkpoints), key=lambda job: job.created, reverse=True)

    def find(self, search: str = "", running: bool | None = None) -> list[str]:
        """Names of the jobs whose name, dataset or network holds a word, of those that run or have ended; newest first.

        Of a job that its events do not end it is the launcher that knows, so that this asks it of as few as there can be.
        """
        words = search.casefold().split()
        found = [job.name for job in self.all() if all(word in _words(job) for word in words)]
        return found if running is None else [name for name in found if self._ended(name) != running]

    def view(self, name: str) -> JobView:
        folder = self.folder(name)
        job, status = self.standing.job(folder), self.status(name)
        return JobView(job=job, status=status, dataset_changed=self._dataset_changed(job), model=folder.model_state())

    def glance(self, name: str) -> JobView:
        """A view with as much as a list shows: of the epochs a few, and the last sheet."""
        status = self.status(name)
        scored = [scores for scores in status.history if scores.mean_iou is not None]
        every = -(-len(scored) // GLANCE) or 1
        short = status.model_copy(update={"history": scored[::-every][::-1], "previews": status.previews[-1:], "warnings": []})
        folder = self.folder(name)
        return JobView(job=self.standing.job(folder), status=short, model=folder.model_state())

    def _ended(self, name: str) -> bool:
        return bool(self.standing.end(name)) or self.status(name).ended_already

    def status(self, name: str) -> JobStatus:
        """The fold of the job's events; where they end without an end and the task is gone, failed with what is known."""
        folder = self.folder(name)
        status = self.standing.status(folder)
        if status.ended_already or name in self._launching:
            return status
        if status.state == "queued":
            return self._with_place(status, name)
        try:
            pulse = self._pulse(name)
        except Unavailable as problem:
            status.stage = f"{status.stage}; whether it still runs is not known. {problem.cause}"
            return status
        if pulse.alive and pulse.note:
            status.stage = pulse.note
        if not pulse.alive:
            status = self.standing.status(folder)  # once more, after the poll: a job writes its last event before it exits
            if not status.ended_already:
                apply(status, end_of(status, pulse, folder.asked_to_stop() is not None))
        return status

    def _with_place(self, status: JobStatus, name: str) -> JobStatus:
        """A job that waits, with its place in the queue and what it waits for."""
        try:
            status.place = self.line.place(name)
        except Unavailable as problem:
            status.stage = f"queued; its place is not known. {problem.cause}"
            return status
        if status.place is not None:
            status.stage = f"queued, place {status.place.position} of {status.place.of}: {status.place.reason}"
        return status

    def _pulse(self, name: str) -> Pulse:
        """The launcher's word. A job that a service is about to launch lives, and one that it has just launched is asked about again."""
        pulse = self.launcher.poll(name)
        if pulse.alive:
            return pulse
        entry = self.line.queue.entry(name)
        if entry is None:
            return self.launcher.poll(name)
        given_up = entry.state == "launching" and self.launching.waits  # in a moment the line settles what becomes of it
        lives = not entry.runs or given_up or self.line.queue.being_launched(entry)
        return Pulse(alive=True) if lives else self.launcher.poll(name)

    def settle(self, name: str, end: Failed | Stopped | None = None, goes_on: Callable[[JobStatus], bool] = lambda _: False) -> None:
        """Write down the end of a job that could not do so itself: `end`, or what is known.

        `goes_on`: whether a job that stands so is resumed without being asked.
        """
        folder = self.folder(name)
        with self._starting:
            status = self.standing.status(folder)
            open_ended = not status.ended_already and status.state != "queued" and name not in self._launching
            if open_ended and not (pulse := self._pulse(name)).alive:
                status = self.standing.status(folder)
                if not status.ended_already:
                    end = end or end_of(status, pulse, folder.asked_to_stop() is not None)
                    apply(status, end)
                    if goes_on(status):
                        self._go_on(folder, end)
                    else:
                        folder.add_event(end)

    def _go_on(self, folder: JobFolder, end: Failed | Stopped) -> None:
        """A job that ended waits for its turn again. Whoever is killed here, it either has no end yet, or waits."""
        self.launcher.stop(folder.name, GRACE)
        folder.add_event(end, Resumed(by_itself=True), Queued())
        self.launcher.remove(folder.name)  # of a job that waits, a launcher knows nothing
        self.launching.go_on(folder.job())

    def stop(self, name: str, keep_best: bool) -> JobView:
        """Ask a job to stop after the step it is at. One that has ended stays as it is; one that hangs is ended in the end (ends.py)."""
        folder = self.folder(name)
        if not self.status(name).ended_already:
            folder.ask_to_stop(keep_best)
            if not self.cancel(name) and self.launcher.poll(name).waits:  # nothing runs that could read the wish
                self.launcher.stop(name, GRACE)
        return self.view(name)

    def resume(self, name: str) -> JobView:
        """Let a job that failed or was stopped go on after its last whole epoch, from the start where it has none.

        Raises Taken while it runs, Invalid where there is nothing left to do; what keeps it from starting fails it again.
        """
        folder = self.folder(name)
        with self._starting:
            status = self.status(name)
            if status.state == "finished":
                raise Invalid(f"The job “{name}” has finished.", "Train again with more epochs, or start a new job from its model.")
            if not status.ended_already:
                raise Taken(f"The job “{name}” is still running.", "Stop it first, or wait for its end.")
            job = folder.job()
            self.launcher.stop(name, GRACE)  # its last event is written, its process may take a moment more to end
            self.launcher.remove(name)  # of a job that waits, a launcher knows nothing
            folder.stop_file.unlink(missing_ok=True)
            self._launching.add(name)
            try:
                folder.add_event(Resumed(request=request_id()))
                if not job.imported:
                    self.check(job.dataset_folder).refuse_errors()
                refuse_no_room(job, folder)
                folder.add_event(Queued(request=request_id()))
                self.launching.queue(job, folder)
            except Problem as problem:
                folder.add_event(Failed(cause=problem.cause, cure=problem.cure))
                raise
            finally:
                self._launching.discard(name)
        return self.view(name)

    def let_go(self, name: str) -> None:
        """Have the launcher forget a job whose end is written down: how it ended is not asked again."""
        with self._starting, suppress(Taken):  # it runs again
            if self.standing.end(name):
                self.launcher.remove(name)

    def usage(self, name: str) -> Usage | None:
        """What a running job takes of the machine; None where it does not run."""
        self.folder(name)
        return self.launcher.usage(name)

    def gpus(self, name: str) -> list[Gpu]:
        """Those that a job learns on, as they are now."""
        mine = self.standing.job(self.folder(name)).gpus
        return [gpu for gpu in self.launcher.gpus().found if gpu.id in mine] if mine else []

    def delete(self, name: str, waiting: bool = True) -> DeletedJob:
        """Move an ended job aside with everything in its folder, its model too, to go for good later. Raises Taken while it runs.

        One that waits is cancelled; where not `waiting`, Taken is raised.
        """
        folder = self.folder(name)
        if name in self._launching:
            raise Taken(f"The job “{name}” is being started.", "Try again in a moment.")
        if waiting:
            self.cancel(name)
        status = self.status(name)
        if status.ended_already:
            self.launcher.stop(name, GRACE)  # its last event is written, its process may take a moment more to end
        elif status.state == "queued" and not waiting:
            raise Taken(f"The job “{name}” waits for its turn.", "Cancel it first.")
        if self._pulse(name).alive:  # or a service is launching it
            raise Taken(f"The job “{name}” is still running.", "Stop it first.")
        if not self.standing.status(folder).ended_already:  # the launcher, which knew how it ended, will have forgotten it
            with suppress(Broken):  # no file to write to: it goes all the same
                folder.add_event(Failed(cause=status.cause, cure=status.cure))
        self.launcher.remove(name)
        self.standing.forget(name)
        return self.deleted.take(folder.path)

    def bring_back(self, id: str) -> JobView:
        """A job that was deleted, as it was; what old jobs keep is reckoned from now on. Raises NotFound, Taken."""
        name = self.deleted.bring_back(id)
        self._folder(name).brought_back.touch()
        return self.view(name)

    def folder(self, name: str) -> JobFolder:
        """The folder of a job. Raises NotFound."""
        folder = self._folder(name)
        if not is_name(name) or not folder.exists():
            raise NotFound(f"There is no job “{name}”.", "It may have been deleted: look at the list of jobs.")
        return folder

    def model_folder(self, name: str) -> Path:
        folder = self._folder(name).model
        if not is_name(name) or not is_folder(folder):
            raise NotFound(f"There is no model “{name}”.", "A model is there once its job has finished, unless it was deleted.")
        return folder

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(self.settings.checkpoints / name)

    def _complete(self, request: JobRequest, dataset_folder: Path) -> Job:
        job, checks = self.check_request(request, dataset_folder)
        found = {field: check() for field, check in checks}
        return job.model_copy(update={"weights_folder": found["weights"]})

    def check_request(self, request: JobRequest, dataset_folder: Path) -> tuple[Job, list[tuple[str, Callable[[], object]]]]:
        """The job that is asked for, and all that could keep it from starting: the field, and a check that raises Problem.

        Raises Invalid where there is no such network or setting.
        """
        network = find_network(request.engine, request.network, request.backbone)
        settings = read_hyperparameters(request.hyperparameters, network.defaults, request.engine)
        report = self.check(dataset_folder)
        given = request.model_dump(exclude={"hyperparameters"})
        facts = {"dataset_folder": dataset_folder, "dataset_fingerprint": report.fingerprint, "created": now()}
        job = Job(**given, **facts, hyperparameters=settings)
        return job, [
            ("crop", lambda: network.refuse_small_crop(settings.crop)),
            ("network", lambda: refuse_engine(request.engine, self.settings, self.launcher)),
            ("gpus", lambda: refuse_gpus(request.engine, request.gpus, self.settings, self.launcher)),
            ("cpus", lambda: refuse_limits(request, self.settings)),
            ("weights", lambda: check_weights(request, network, self.settings)),
            ("dataset", report.refuse_errors),
            ("network", lambda: refuse_full(self.settings.checkpoints, needed(network, settings))),
            ("nodes" if job.nodes > 1 else "processes", lambda: refuse_processes(job)),
            ("nodes", lambda: refuse_nodes(job, self.settings)),
        ]

    def _dataset_changed(self, job: Job) -> bool:
        """Whether the dataset's fingerprint is another one than at the start; asked of the disk at most every few seconds."""
        if not job.dataset_fingerprint:
            return False
        at, present = self._fingerprints.get(job.dataset_folder, (0.0, ""))
        if time.monotonic() - at > SECONDS_BETWEEN_LOOKS or not at:
            present = fingerprint_now(job.dataset_folder)
            self._fingerprints[job.dataset_folder] = (time.monotonic(), present)
        return present not in ("", job.dataset_fingerprint)


def _words(job: Job) -> str:
    """What a search looks at."""
    return " ".join((job.name, job.dataset, job.engine, job.network, job.backbone)).casefold()
