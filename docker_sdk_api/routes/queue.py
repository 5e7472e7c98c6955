"""/v1/queue: what waits and what runs; another order, another priority, on hold, cancelled."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from contracts.errors import Invalid, NotFound
from contracts.queue import Priority, QueueView
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.line import Line
from docker_sdk_api.plan import PRIORITIES

routes = APIRouter(prefix="/v1/queue", tags=["queue"])


class Move(BaseModel):
    """To a place from 1, or by so many places: -1 is one earlier."""

    to: Annotated[int, Field(ge=1, le=2**31)] | None = None
    by: Annotated[int, Field(ge=-(2**31), le=2**31)] | None = None


class NewPriority(BaseModel):
    priority: Priority


def _line(request: Request) -> Line:
    line: Line = request.app.state.jobs.line
    return line


@routes.get("")
def show(request: Request) -> QueueView:
    """Jobs that wait, the next one first, each with what it waits for; and those that run."""
    return _line(request).look()


@routes.post("/{job}/move")
def move(request: Request, job: str, wish: Move) -> QueueView:
    """Another place. A job that moves past others takes on the priority that belongs there."""
    if (wish.to is None) == (wish.by is None):
        raise Invalid("Where to is not said, or twice.", "Give `to` (a place from 1) or `by` (so many places).")
    line = _line(request)
    line.queue.move(job, wish.to if wish.to is not None else _place(line, job) + (wish.by or 0))
    return _changed(line)


@routes.post("/{job}/priority")
def priority(request: Request, job: str, wish: NewPriority) -> QueueView:
    """Before all of a lower priority, after all of a higher one; among its like it keeps its order."""
    line = _line(request)
    line.queue.change(job, priority=PRIORITIES.index(wish.priority))
    return _changed(line)


@routes.post("/{job}/hold")
def hold(request: Request, job: str) -> QueueView:
    """It keeps its place and is passed over until it is released."""
    line = _line(request)
    line.queue.change(job, held=True)
    return _changed(line)


@routes.post("/{job}/release")
def release(request: Request, job: str) -> QueueView:
    line = _line(request)
    line.queue.change(job, held=False)
    return _changed(line)


@routes.delete("/{job}")
def cancel(request: Request, job: str) -> QueueView:
    """It is stopped before it started. Resume puts it in the queue again."""
    jobs: Jobs = request.app.state.jobs
    if jobs.status(job).state != "queued":
        raise NotFound(f"The job “{job}” does not wait.", "Where it runs by now, stop it on its page.")
    jobs.folder(job).ask_to_stop(keep_best=False)  # where it is launched this very moment, it stops by that
    jobs.cancel(job)
    return _changed(jobs.line)


def _place(line: Line, job: str) -> int:
    line.wake()
    return next((row.position for row in line.look().waiting if row.job == job), 1)


def _changed(line: Line) -> QueueView:
    line.wake()
    return line.look()
