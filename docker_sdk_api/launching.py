"""The way of a job from the queue to its task: put in, launched when its turn has come, put back where that may yet succeed."""

import logging
from contextlib import suppress
from pathlib import Path

from contracts.doors import ASKING
from contracts.errors import Full, Invalid, Problem, Unavailable
from contracts.events import Failed, Queued, Stage, Stopped, Warned
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.networks import find_network
from contracts.room import needed, refuse_full, taken
from contracts.tokens import proof_of
from docker_sdk_api.launchers import Limits, Task
from docker_sdk_api.line import Line
from docker_sdk_api.plan import Entry
from docker_sdk_api.standing import last_event
from docker_sdk_api.weights import add_all_weights, add_weights

LOG = logging.getLogger("maskwright.jobs")
AGAIN = 20.0
"""Seconds after which a launch is tried again that the launcher could not even be asked for."""
CHOSEN = {"network", "backbone", "weights", "weights_from", "weights_folder", "gpus", "validation_share", "hyperparameters", "waiting"}
"""What an old client says of its job while that waits for it (contracts/original.py)."""


def refuse_no_room(job: Job, folder: JobFolder) -> None:
    """Raises Full where the disk has too little room for what a training writes besides what is in its folder by now."""
    if not job.imported:
        network = find_network(job.engine, job.network, job.backbone)
        refuse_full(folder.path, needed(network, job.hyperparameters) - taken(folder.path))


class Launching:
    """`waits`: whether a job may wait for its turn. Else nobody would launch it later: it starts at once, and counts as one that runs."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.settings, self.standing = line.settings, line.standing
        self.waits = False

    def queue(self, job: Job, folder: JobFolder) -> None:
        """Put a job in, and launch it where its turn has come. Raises Problem where it then cannot be; it is out again."""
        entry = self._put(job)
        if entry is not None:
            try:
                self._launch(job, folder)
            except BaseException:
                self.line.queue.remove(entry)
                raise
            finally:
                self.line.queue.begun(entry)
        self.line.wake()

    def go_on(self, job: Job) -> None:
        """Put in a job that nobody asks for at this moment: what keeps it from starting now may be over when it is tried again."""
        entry = self._put(job)
        if entry is not None:
            self.launch(entry)
        self.line.wake()

    def launch(self, entry: Entry) -> None:
        """Launch a job that has waited for its turn. What keeps it from starting fails it, unless it may be over in a moment."""
        try:
            self._launch_waiting(entry)
        finally:
            self.line.queue.begun(entry)

    def _put(self, job: Job) -> Entry | None:
        """Given back: its turn has come already."""
        self.line.settle()
        at_once = not self.waits or job.waiting or job.imported or self.settings.launcher == "ray"  # which has a queue of its own
        mine = self.line.entry(job)
        return self.line.queue.put(mine, self.line.room(mine.gpus), at_once)

    def _launch_waiting(self, entry: Entry) -> None:
        folder = JobFolder(self.settings.checkpoints / entry.job)
        try:
            job, ended = folder.job(), self.standing.status(folder).ended_already
        except (FileNotFoundError, ValueError):  # deleted, or not to be read
            self.line.queue.remove(entry)
            return
        if ended or folder.asked_to_stop() is not None:
            if not ended:
                folder.add_event(Stopped())
            self.line.queue.remove(entry)
            return
        try:
            self.line.launcher.require(job.engine)
        except Unavailable as problem:
            self._put_off(entry, job.engine, f"could not be started yet. {problem}")
            return
        try:
            self._launch(job, folder)
        except (Unavailable, Full) as problem:
            self._wait_again(entry, folder, f"could not be started yet. {problem}")
        except Problem as problem:
            try:
                folder.add_event(Failed(cause=problem.cause, cure=problem.cure))
            finally:
                self.line.queue.remove(entry)
        except BaseException as error:
            self._wait_again(entry, folder, f"could not be started yet ({error})")
            raise

    def _put_off(self, entry: Entry, engine: str, trouble: str) -> None:
        """This one, and all that would be refused by the same: it is asked for once."""
        self.line.queue.put_back(entry, trouble, AGAIN)
        alike = (job.name for job in self.standing.all(self.settings.checkpoints) if job.engine == engine)
        self.line.queue.put_off(alike, trouble, AGAIN)

    def _wait_again(self, entry: Entry, folder: JobFolder, trouble: str) -> None:
        """A job whose launch went wrong by what may pass."""
        if last_event(folder.events_file) != "queued":  # it is tried again and again, perhaps for days
            with suppress(Full):
                folder.add_event(Queued())
        self.line.queue.put_back(entry, trouble, AGAIN)

    def _launch(self, job: Job, folder: JobFolder) -> None:
        """Launch a job that has been given its turn; nobody else does meanwhile.

        Raises what went wrong only where nothing runs. Where something may, it keeps its turn, and `settle` finds out.
        """
        try:
            self._begin(job, folder)
        except BaseException as error:
            if not self._may_run(job.name):
                raise
            LOG.warning("Whether %s was launched is seen later: %s", job.name, error)

    def _may_run(self, name: str) -> bool:
        try:
            return self.line.launcher.poll(name).alive
        except (Problem, OSError, ValueError):  # nobody can tell
            return True

    def _begin(self, job: Job, folder: JobFolder) -> None:
        refuse_no_room(job, folder)
        folder.add_event(Stage(state="starting", stage="starting"))
        told = self.standing.status(folder).warnings  # where it is tried again
        for caution in self.line.cautions(job):
            if caution not in told:
                folder.add_event(Warned(message=caution))
        self.line.launcher.launch(self.task(job, folder))
        with suppress(Unavailable):  # it runs, whatever its queue says of it: `settle` writes it down later
            self.line.queue.launched(job.name)

    def task(self, job: Job, folder: JobFolder) -> Task:
        """What is to be run for a job. Raises Invalid where an old client's job has made more of itself than such a client can ask for."""
        self._refuse_altered(job, folder)
        task = Task(
            job_id=job.name,
            runtime=job.engine,
            arguments=["-m", "training_api.original" if job.waiting else "training_api", str(folder.path.resolve())],
            folder=folder.path.resolve(),
            read_only=[job.dataset_folder],
            writable=[job.waggle.folder] if job.waggle else [],
            nodes=job.nodes,
            gpus=job.gpus,
            limits=Limits(memory_bytes=self.line.limit(job), cpus=job.cpus),
            # Threads that wait must not spin: on a machine that does anything else besides, spinning costs up to half the speed.
            environment={"OMP_WAIT_POLICY": "PASSIVE", **(self._proofs() if job.waiting else {})},
        )
        return add_all_weights(task, job, self.settings) if job.waiting else add_weights(task, job, self.settings)

    def _proofs(self) -> dict[str, str]:
        """Where doors are locked: what a waiting job knows the TOKEN by, and the one that started it."""
        asking = ASKING.get()
        tokens = {self.settings.token, asking.token if asking else ""} - {""} if self.settings.token else set()
        return {"PROOFS": " ".join(proof_of(token) for token in sorted(tokens))} if tokens else {}

    def _refuse_altered(self, job: Job, folder: JobFolder) -> None:
        """An old client's job writes its job.json itself, and what is in there decides what a resume may read and write."""
        try:
            asked = folder.asked()
        except FileNotFoundError:
            return
        same = job.model_dump(exclude=CHOSEN) == asked.model_dump(exclude=CHOSEN) and {*job.gpus} <= {*asked.gpus}
        if not same or not self._is_ours(job.weights_folder):
            cause = f"The job “{folder.name}” has changed what its client cannot: its folders, its limits, or its GPUs."
            raise Invalid(cause, "Delete it, and start it anew; its job.json and asked.json show what.")

    def _is_ours(self, weights: Path | None) -> bool:
        """Whether an old client may start from weights that lie there: an earlier job's or a classifier's, one folder of ours each."""
        roots = (self.settings.checkpoints.resolve(), self.settings.classifiers.resolve())
        return weights is None or (weights.parent.resolve() in roots and not weights.name.startswith("."))
