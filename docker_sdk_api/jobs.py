"""Jobs: started, followed, stopped and deleted. Everything about a job is in its folder; the launcher says if it lives."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from annotations.doctor.check import Report, check_dataset
from annotations.doctor.checking import fingerprint_now
from contracts.errors import Invalid, NotFound, Problem, Taken
from contracts.events import Failed, Resumed, fold, now
from contracts.hyperparameters import read_hyperparameters
from contracts.job import Job, JobRequest, JobStatus, JobView
from contracts.job_folder import JobFolder
from contracts.model import Model, read_model
from contracts.networks import find_network
from contracts.waggle import WaggleRun
from docker_sdk_api.launchers import Launcher, Pulse, Task
from docker_sdk_api.machine import list_engines, list_gpus
from docker_sdk_api.settings import Settings
from docker_sdk_api.weights import add_weights, check_weights

GRACE = 10.0
"""Seconds that a task has to end by itself once it was told to stop."""
MINUTES_TO_STOP = 2.0
"""A job that was asked to stop and still runs after so long is ended by the launcher."""
SECONDS_BETWEEN_LOOKS = 3.0
"""At a dataset's files, for whether they have changed since a job."""
ENDED_FROM_OUTSIDE = {-15, 143, -2, 130}
"""Exit codes of a task that SIGTERM or SIGINT ended: a process says minus the signal, a container 128 and the signal."""


class Jobs:
    """All jobs of a checkpoints folder."""

    def __init__(self, settings: Settings, launcher: Launcher, check: Callable[[Path], Report] = check_dataset) -> None:
        self.settings = settings
        self.check = check
        self.launcher = launcher
        self._starting = threading.Lock()
        self._fingerprints: dict[Path, tuple[float, str]] = {}

    def start(self, request: JobRequest, dataset_folder: Path, waggle: WaggleRun | None = None) -> JobView:
        """Check all that can be known beforehand, write the job down, and launch it; as a run of a Waggle folder where one is given.

        Raises Invalid, Taken or Unavailable; then nothing is left behind.
        """
        job = self._complete(request, dataset_folder).model_copy(update={"waggle": waggle})
        folder = self._folder(request.name)
        with self._starting:
            if folder.path.exists():
                raise Taken(f"There is already a job named “{request.name}”.", "Choose another name, or delete that job first.")
            folder.path.mkdir(parents=True)
        try:
            folder.write_job(job)
            self.launcher.launch(self._task(job, folder))
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        return self.view(request.name)

    def names(self) -> list[str]:
        """Newest first."""
        folders = [JobFolder(path) for path in self.settings.checkpoints.iterdir() if path.is_dir()]
        return [folder.name for folder in sorted((f for f in folders if f.exists()), key=lambda f: f.job().created, reverse=True)]

    def view(self, name: str) -> JobView:
        folder = self.folder(name)
        job = folder.job()
        return JobView(job=job, status=self.status(name), dataset_changed=self._dataset_changed(job))

    def status(self, name: str) -> JobStatus:
        """The fold of the job's events; where they end without an end and the task is gone, failed with what is known."""
        folder = self.folder(name)
        status = fold(folder.events())
        if status.ended_already:
            return status
        pulse = self.launcher.poll(name)
        if not pulse.alive:
            status = fold(folder.events())  # once more, after the poll: a job writes its last event before it exits
            if not status.ended_already:
                _died(status, pulse)
        return status

    def stop(self, name: str, keep_best: bool) -> JobView:
        """Ask a job to stop after the step it is at. One that has ended stays as it is."""
        folder = self.folder(name)
        if not self.status(name).ended_already:
            folder.ask_to_stop(keep_best)
            self._insist_later(name)
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
            folder.stop_file.unlink(missing_ok=True)
            folder.add_event(Resumed())
            try:
                self.check(job.dataset_folder).refuse_errors()
                self.launcher.launch(self._task(job, folder))
            except Problem as problem:
                folder.add_event(Failed(cause=problem.cause, cure=problem.cure))
                raise
        return self.view(name)

    def delete(self, name: str) -> None:
        """Remove an ended job with everything in its folder, its model too. Raises Taken while it runs."""
        folder = self.folder(name)
        if self.status(name).ended_already:
            self.launcher.stop(name, GRACE)  # its last event is written, its process may take a moment more to end
        if self.launcher.poll(name).alive:
            raise Taken(f"The job “{name}” is still running.", "Stop it first.")
        self.launcher.remove(name)
        gone = folder.path.with_name(f".{name}.deleted")
        folder.path.rename(gone)
        shutil.rmtree(gone)

    def folder(self, name: str) -> JobFolder:
        """The folder of a job. Raises NotFound."""
        folder = self._folder(name)
        if "/" in name or name.startswith(".") or not folder.exists():
            raise NotFound(f"There is no job “{name}”.", "It may have been deleted: look at the list of jobs.")
        return folder

    def models(self) -> list[Model]:
        """Every published model, newest first."""
        found = [read_model(self._folder(name).model) for name in self.names() if self._folder(name).model.is_dir()]
        return sorted(found, key=lambda model: model.created, reverse=True)

    def model_folder(self, name: str) -> Path:
        folder = self._folder(name).model
        if "/" in name or name.startswith(".") or not folder.is_dir():
            raise NotFound(f"There is no model “{name}”.", "A model is there once its job has finished.")
        return folder

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(self.settings.checkpoints / name)

    def _complete(self, request: JobRequest, dataset_folder: Path) -> Job:
        network = find_network(request.engine, request.network, request.backbone)
        settings = read_hyperparameters(request.hyperparameters, network.defaults, request.engine)
        network.refuse_small_crop(settings.crop)
        state = next(state for state in list_engines(self.settings, self.launcher) if state.engine == request.engine)
        if not state.available:
            raise Invalid(f"The engine {request.engine} is not available. {state.cause}", state.cure)
        known = {gpu["id"] for gpu in list_gpus()} if request.gpus else set()
        missing = sorted(set(request.gpus) - known)
        if missing:
            have = ", ".join(map(str, sorted(known))) or "none"
            raise Invalid(f"There is no GPU {', '.join(map(str, missing))} (there is: {have}).", "Choose the CPU or a GPU that is there.")
        weights_folder = check_weights(request, network, self.settings)
        report = self.check(dataset_folder)
        report.refuse_errors()
        given = request.model_dump(exclude={"hyperparameters"})
        folders = {"dataset_folder": dataset_folder, "weights_folder": weights_folder}
        facts = {**folders, "dataset_fingerprint": report.fingerprint, "created": now()}
        job = Job(**given, **facts, hyperparameters=settings)
        _refuse_processes(job)
        return job

    def _dataset_changed(self, job: Job) -> bool:
        """Whether the dataset's fingerprint is another one than at the start; asked of the disk at most every few seconds."""
        if not job.dataset_fingerprint:
            return False
        at, present = self._fingerprints.get(job.dataset_folder, (0.0, ""))
        if time.monotonic() - at > SECONDS_BETWEEN_LOOKS or not at:
            present = fingerprint_now(job.dataset_folder)
            self._fingerprints[job.dataset_folder] = (time.monotonic(), present)
        return present not in ("", job.dataset_fingerprint)

    def _task(self, job: Job, folder: JobFolder) -> Task:
        task = Task(
            job_id=job.name,
            runtime=job.engine,
            arguments=["-m", "training_api", str(folder.path.resolve())],
            folder=folder.path.resolve(),
            read_only=[job.dataset_folder],
            writable=[job.waggle.folder] if job.waggle else [],
            gpus=job.gpus,
            # Threads that wait must not spin: on a machine that does anything else besides, spinning costs up to half the speed.
            environment={"OMP_WAIT_POLICY": "PASSIVE"},
        )
        return add_weights(task, job, self.settings)

    def _insist_later(self, name: str) -> None:
        """A job that hangs does not read its stop file: the launcher ends it in the end, unless it is publishing its best."""

        def insist() -> None:
            folder = self._folder(name)
            if folder.exists() and folder.asked_to_stop() and self.status(name).state in ("starting", "training"):
                self.launcher.stop(name, GRACE)

        timer = threading.Timer(MINUTES_TO_STOP * 60, insist)
        timer.daemon = True
        timer.start()


def _refuse_processes(job: Job) -> None:
    """Raises Invalid where a job cannot be learnt by as many processes as were asked for."""
    if job.processes not in (1, job.together):
        if job.engine != "pytorch":
            raise Invalid(f"The engine {job.engine} learns in one process.", "Leave `processes` at 1, or choose the engine pytorch.")
        raise Invalid("On GPUs there is one process for each of them.", "Leave `processes` at 1, and choose as many GPUs as you want.")
    crops, parts = job.hyperparameters.batch_size, job.hyperparameters.accumulate
    if job.together > crops // parts:
        raise Invalid(
            f"{job.together} processes cannot share a batch of {crops}{f' in {parts} parts' if parts > 1 else ''}.",
            "Choose a larger batch size, or fewer processes.",
        )


def _died(status: JobStatus, pulse: Pulse) -> None:
    """What a job is whose task is gone although its events do not end."""
    status.state = status.stage = "failed"
    if pulse.out_of_memory:
        status.cause, status.cure = "The training ran out of memory and was ended.", "Choose a smaller batch size, crop or short side."
    elif pulse.exit_code is None:
        status.cause = "The training is gone, and nobody saw it end: its process or the machine was stopped."
        status.cure = "Resume it: it goes on after its last whole epoch."
    elif pulse.exit_code in ENDED_FROM_OUTSIDE:
        status.cause = "The training was ended from outside, for instance because Maskwright or the machine was stopped."
        status.cure = "Resume it: it goes on after its last whole epoch."
    else:
        status.cause = f"The training ended without a word, with exit code {pulse.exit_code}."
        status.cure = "The log's last lines may show why; exit code 137 or -9 often means that memory ran out."
