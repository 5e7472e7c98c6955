"""One folder per job: where each file lies, and who writes it. Everything else about a job follows from this folder.

Most of it is the training's to write, so nothing in it is read through a link (contracts/plain.py).

job.json        what was asked                            docker_sdk_api, once; of an old client's job its training API, once more
asked.json      the first job.json of an old client's job docker_sdk_api, once
artefact/       a model from elsewhere that it converts   docker_sdk_api, once
stop            somebody asked it to stop                 docker_sdk_api
split.json      which picture teaches, which one scores   the training job, once
weights.json    what its first weights came from          the training job, once
events.jsonl    what happened, one JSON object a line     the training job, append only; docker_sdk_api while none runs
train.log       what it printed                           the launcher
task.json       how to find the running task again        the launcher
pulse.json      what it takes and how it ended, on Ray    the node that runs it
log.csv         figures per step and epoch                the training job
confusion.json  which classes are taken for which         the training job, replaced by rename
previews/       validation pictures per epoch             the training job
tensorboard/    the same figures, for TensorBoard         the training job
mlflow.json     its run, where an MLflow server is told   the training job, once
last/  best/    weights and everything needed to go on    the training job, each replaced by rename, with its checksums
before/         what was in last/ before                  the training job: gone on from where last/ is damaged
.ballast        bytes kept back for the last word         the training job, while it runs
model/          what is served and downloaded             the training job, last, by rename: there = servable
retired         while it is there, the model is not served docker_sdk_api
"""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from contracts.durable import append_line, folder_aside, write_aside
from contracts.events import Event, Failed, Finished, Progress, Stopped, fold, read_events
from contracts.job import Confusion, Job, JobStatus
from contracts.model import RETIRED_FILE
from contracts.plain import is_folder, is_plain, plain_lines, read_plain

__all__ = ["BALLAST", "JobFolder", "folder_aside", "write_aside"]
BALLAST = 256 * 1024
"""Bytes that a running job keeps back for its last word, should the disk be full by then."""


class _At:
    """A place in a job's folder, made into a path when it is asked for: lists look at a thousand folders."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: "JobFolder", _: type) -> Path:
        return folder.path / self.name


class JobFolder:
    """The folder of one job. Reading is safe at any moment, whoever is writing."""

    job_file = _At("job.json")
    asked_file = _At("asked.json")
    artefact = _At("artefact")
    stop_file = _At("stop")
    split_file = _At("split.json")
    weights_file = _At("weights.json")
    events_file = _At("events.jsonl")
    log_file = _At("train.log")
    task_file = _At("task.json")
    pulse_file = _At("pulse.json")
    figures_file = _At("log.csv")
    confusion_file = _At("confusion.json")
    previews = _At("previews")
    tensorboard = _At("tensorboard")
    mlflow_file = _At("mlflow.json")
    last = _At("last")
    best = _At("best")
    before = _At("before")
    ballast = _At(".ballast")
    model = _At("model")
    retired_file = _At(RETIRED_FILE)
    brought_back = _At(".brought-back")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def exists(self) -> bool:
        return is_plain(self.job_file)

    def job(self) -> Job:
        return Job.model_validate_json(read_plain(self.job_file))

    def write_job(self, job: Job) -> None:
        write_aside(self.job_file, job.model_dump_json(indent=2))

    def asked(self) -> Job:
        """What docker_sdk_api asked of a job that writes its job.json itself. Raises FileNotFoundError for all others."""
        return Job.model_validate_json(read_plain(self.asked_file))

    def write_asked(self, job: Job) -> None:
        write_aside(self.asked_file, job.model_dump_json(indent=2))

    def events(self) -> list[Event]:
        """Every event so far, oldest first. A line that is still being written is left for the next time."""
        return list(self.events_after(0))

    def events_after(self, number: int) -> Iterator[Event]:
        """Those behind the first ones, one at a time: a week tells of its progress 600,000 times, which nobody holds in memory."""
        lines = (line.decode(errors="replace") for line in plain_lines(self.events_file) if line)
        return read_events(islice(lines, number, None))

    def status(self) -> JobStatus:
        """The fold of all events so far."""
        return fold(self.events_after(0))

    def add_event(self, *events: Event) -> None:
        """Append an event; from outside the training only while none runs. Once it returns, all but progress is on the disk.

        Of several, nobody who is killed writes a part. Raises Full where there is no room; a job's end has some, which was kept back
        for it.
        """
        if any(isinstance(event, Finished | Stopped | Failed) for event in events):
            self.ballast.unlink(missing_ok=True)
        lines = b"\n".join(event.model_dump_json().encode() for event in events)
        append_line(self.events_file, lines, durable=not all(isinstance(event, Progress) for event in events))

    def keep_ballast(self) -> None:
        """Raises Full."""
        write_aside(self.ballast, os.urandom(BALLAST), durable=False)  # what disks cannot compress away

    def confusion(self) -> Confusion | None:
        """None: nothing was scored yet, or by a version that did not write it down."""
        try:
            return Confusion.model_validate_json(read_plain(self.confusion_file))
        except FileNotFoundError:
            return None

    def model_state(self) -> Literal["none", "published", "retired"]:
        if not is_folder(self.model):
            return "none"
        return "retired" if self.retired_file.exists() else "published"

    def ask_to_stop(self, keep_best: bool) -> None:
        write_aside(self.stop_file, json.dumps({"keep_best": keep_best}))

    def asked_to_stop(self) -> dict[str, bool] | None:
        """None, or `{"keep_best": whether the best weights so far are to be published}`."""
        try:
            wish: dict[str, bool] = json.loads(read_plain(self.stop_file))
        except FileNotFoundError:
            return None
        return wish
