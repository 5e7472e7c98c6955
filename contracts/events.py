"""What happens in a training job, one JSON object a line of events.jsonl, and how a job's status follows from it."""

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from contracts.job import EpochScores, JobStatus


def now() -> datetime:
    return datetime.now(timezone.utc)


class _Event(BaseModel):
    at: datetime = Field(default_factory=now)


class Started(_Event):
    """The job's process runs and has read job.json. It goes on after `from_epoch`; 0: from the beginning."""

    event: Literal["started"] = "started"
    epochs: int
    device: str
    from_epoch: int = 0


class Resumed(_Event):
    """Somebody asked a job that had ended to go on. Written by docker_sdk_api, while no training of the job runs."""

    event: Literal["resumed"] = "resumed"


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
    """A picture of what the model sees, in previews/."""

    event: Literal["preview"] = "preview"
    epoch: int
    file: str


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


Event = Started | Resumed | Stage | Progress | EpochDone | EndedEarly | TestScored | Preview | Warned | Finished | Stopped | Failed
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: str) -> Event:
    """One line of events.jsonl. Raises pydantic's ValidationError for anything else."""
    return _EVENT.validate_json(line)


def fold(events: Iterable[Event]) -> JobStatus:
    """A job's status from everything that happened in it so far. No event: it is starting."""
    status = JobStatus()
    for event in events:
        _apply(status, event)
    return status


def _apply(status: JobStatus, event: Event) -> None:
    match event:
        case Started():
            status.started, status.epochs, status.device = status.started or event.at, event.epochs, event.device
            status.history = [scores for scores in status.history if scores.epoch <= event.from_epoch]
        case Resumed():
            status.state, status.stage, status.ended = "starting", "starting again", None
            status.cause = status.cure = ""
        case Stage():
            status.state, status.stage = event.state, event.stage
        case Progress():
            status.epoch, status.step, status.steps, status.loss = event.epoch, event.step, event.steps, event.loss
            status.pictures_per_second, status.seconds_left = event.pictures_per_second, event.seconds_left
        case EpochDone():
            status.epoch, status.loss = event.scores.epoch, event.scores.loss
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
        case Warned():
            status.warnings.append(event.message)
        case Finished() | Stopped() | Failed():
            status.state = status.stage = event.event
            status.ended, status.seconds_left = event.at, None
            if isinstance(event, Failed):
                status.cause, status.cure = event.cause, event.cure
