"""What happens in a training job, one JSON object a line of events.jsonl, and how a job's status follows from it."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from contracts.job import SOUND, EpochScores, JobStatus, Moment


def now() -> datetime:
    return datetime.now(timezone.utc)


def boot_id() -> str:
    """Which boot of the machine this is, in a container too; empty where nobody says."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.is_file() else ""


class _Event(BaseModel):
    model_config = SOUND

    at: Moment = Field(default_factory=now)


class Started(_Event):
    """The job's process runs and has read job.json. It goes on after `from_epoch`; 0: from the beginning. `boot`: the machine's."""

    event: Literal["started"] = "started"
    epochs: int
    device: str
    from_epoch: int = 0
    boot: str = ""


class Resumed(_Event):
    """A job that had ended goes on, because `request` asked for it or `by_itself`. Written by docker_sdk_api, while none runs."""

    event: Literal["resumed"] = "resumed"
    by_itself: bool = False
    request: str = ""


class Queued(_Event):
    """The job waits for its turn (docs/queue.md). Written by docker_sdk_api, while none runs.

    `request`: the id of the request that asked for it, as it stands in the services' logs; "": it waits again, or nobody asked over HTTP.
    """

    event: Literal["queued"] = "queued"
    request: str = ""


class Stage(_Event):
    """What the job does now, in words."""

    event: Literal["stage"] = "stage"
    state: Literal["starting", "training", "publishing"]
    stage: str


class Progress(_Event):
    """Where the training is; at most one a second. `loss` is the mean since the last one."""

    event: Literal["progress"] = "progress"
    epoch: int
    step: int
    steps: int
    loss: float
    pictures_per_second: float
    seconds_left: float


class EpochDone(_Event):
    """An epoch is over; with scores where the validation pictures were scored after it."""

    event: Literal["epoch"] = "epoch"
    scores: EpochScores


class EndedEarly(_Event):
    """The training ends after this epoch, before its last one, and why: nothing better came for as long as it had patience."""

    event: Literal["ended_early"] = "ended_early"
    epoch: int
    message: str


class TestScored(_Event):
    """The best weights against the pictures that were kept for the end, once."""

    event: Literal["test"] = "test"
    test_scores: EpochScores


class Preview(_Event):
    """Pictures of what the model sees, in previews/: a sheet, and the layers of each validation picture named in `pictures`."""

    event: Literal["preview"] = "preview"
    epoch: int
    file: str
    pictures: list[str] = []


class Warned(_Event):
    """Something the user should know, that does not stop the job."""

    event: Literal["warning"] = "warning"
    message: str


class Finished(_Event):
    """The model is published: the last event of a job that went well."""

    event: Literal["finished"] = "finished"


class Stopped(_Event):
    """Somebody asked the job to stop, and it did, without a model."""

    event: Literal["stopped"] = "stopped"


class Failed(_Event):
    """The job ended without a model, and why."""

    event: Literal["failed"] = "failed"
    cause: str
    cure: str


Event = Started | Resumed | Queued | Stage | Progress | EpochDone | EndedEarly | TestScored | Preview | Warned | Finished | Stopped | Failed
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: str) -> Event:
    """One line of events.jsonl. Raises pydantic's ValidationError for anything else."""
    return _EVENT.validate_json(line)


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Whole lines of events.jsonl. One that is damaged becomes a warning: what was told after it counts all the same."""
    for line in lines:
        try:
            yield read_event(line)
        except ValueError:
            yield Warned(message="A line of events.jsonl cannot be read: what it told is not shown here.")


def fold(events: Iterable[Event]) -> JobStatus:
    """A job's status from everything that happened in it so far. No event: it is starting."""
    status = JobStatus()
    for event in events:
        apply(status, event)
    return status


def apply(status: JobStatus, event: Event) -> None:
    """Let a status go on by one event."""
    match event:
        case Started():
            status.started, status.epochs, status.device = status.started or event.at, event.epochs, event.device
            status.boot = event.boot
            status.history = [scores for scores in status.history if scores.epoch <= event.from_epoch]
            status.best = next((scores for scores in reversed(status.history) if scores.best), None)
        case Resumed():
            status.state, status.stage, status.ended = "starting", "starting again", None
            status.resumed_by_itself = status.resumed_by_itself + 1 if event.by_itself else 0
            status.cause = status.cure = status.boot = ""  # it has not begun in any boot
        case Queued():
            status.state = status.stage = "queued"
        case Stage():
            status.state, status.stage = event.state, event.stage
        case Progress():
            status.epoch, status.step, status.steps, status.loss = event.epoch, event.step, event.steps, event.loss
            status.pictures_per_second, status.seconds_left = event.pictures_per_second, event.seconds_left
        case EpochDone():
            status.epoch, status.loss = event.scores.epoch, event.scores.loss
            if status.history and status.history[-1].epoch == event.scores.epoch:  # scored once more
                status.history.pop()
            status.history.append(event.scores)
            if event.scores.best:
                status.best = event.scores
        case EndedEarly():
            status.epochs = event.epoch  # there will be no more: what is shown is complete
            if event.message not in status.warnings:  # said again where the training was broken off after it
                status.warnings.append(event.message)
        case TestScored():
            status.test = event.test_scores
        case Preview():
            if event.file not in status.previews:  # an epoch that was broken off is shown again
                status.previews.append(event.file)
            status.pictures = event.pictures
        case Warned():
            if event.message not in status.warnings:
                status.warnings.append(event.message)
        case Finished() | Stopped() | Failed():
            status.state = status.stage = event.event
            status.ended, status.seconds_left = event.at, None
            if isinstance(event, Failed):
                status.cause, status.cure = event.cause, event.cure
