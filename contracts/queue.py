"""What waits to be trained: the place of each job, why it waits, and when its turn may come."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Priority = Literal["low", "normal", "high"]


class Place(BaseModel):
    """A job's place among all that wait, from 1. `starts`: about when, None where nothing says; `reason`: what it waits for."""

    position: int
    of: int
    priority: Priority = "normal"
    held: bool = False
    reason: str = ""
    starts: datetime | None = None


class Waiting(Place):
    """A job that waits. `memory`: bytes that it is reckoned to take."""

    job: str
    gpus: list[int] = []
    memory: int = 0


class Running(BaseModel):
    """A job that has had its turn. `ends`: about when, None where nothing says; `counted`: whether it takes a place on the CPU."""

    job: str
    gpus: list[int] = []
    memory: int = 0
    ends: datetime | None = None
    counted: bool = True


class QueueView(BaseModel):
    """The queue as a whole. `parallel_jobs`: so many jobs learn on the CPU at once."""

    waiting: list[Waiting]
    running: list[Running]
    parallel_jobs: int = Field(description="PARALLEL_JOBS, or what suits the machine.")
