"""The protocol of a launcher: it runs tasks somewhere and knows nothing of segmentation. The job id is the handle."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from docker_sdk_api.gpus import Gpus


@dataclass(frozen=True)
class Limits:
    """The most that a task may take. None: no limit."""

    memory_bytes: int | None = None
    cpus: float | None = None


@dataclass(frozen=True)
class Task:
    """What to run, not where. `runtime` names the environment or image; `arguments` follow its Python.

    The task sees `folder` and every folder of `writable` (to write) and of `read_only` under the very paths given here, whatever
    launches it. `network`: it may reach other machines. `port`: where on this machine, and from it alone, the task is asked over
    HTTP; the variable LISTEN tells it the address and port to listen on. `nodes`: so many machines run it together, each with as many
    GPUs; only a launcher that has several does that.
    """

    job_id: str
    runtime: str
    arguments: list[str]
    folder: Path
    read_only: list[Path] = field(default_factory=list)
    writable: list[Path] = field(default_factory=list)
    network: bool = False
    port: int | None = None
    nodes: int = 1
    gpus: list[int] = field(default_factory=list)
    limits: Limits = Limits()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pulse:
    """Whether a task lives and how it ended. An `exit_code` of None when not alive: nobody knows, never success.

    `note`: what only the launcher knows, in words: for what a task waits, or why it is gone. `waits`: it lives and does not run yet.
    `lost`: it ended through no fault of its own, and may go on somewhere else.
    """

    alive: bool
    exit_code: int | None = None
    out_of_memory: bool = False
    note: str = ""
    waits: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Usage:
    """What a task has taken of the machine: processor seconds since its start, and bytes of memory that it holds now."""

    cpu_seconds: float
    memory_bytes: int


class Launcher(Protocol):
    def require(self, runtime: str) -> None:
        """Raises contracts.errors.Unavailable, with the cure, where tasks of this runtime cannot be launched."""
        ...

    def launch(self, task: Task) -> None:
        """Start the task; its output goes to train.log in its folder. Raises contracts.errors.Unavailable or Taken."""
        ...

    def poll(self, job_id: str) -> Pulse:
        """How the task is. One that the launcher does not know: Pulse(alive=False, exit_code=None)."""
        ...

    def stop(self, job_id: str, grace: float) -> None:
        """End the task: kindly, then after `grace` seconds by force. Repeatable; unknown tasks are no error."""
        ...

    def remove(self, job_id: str) -> None:
        """Forget an ended task and free what it held. Repeatable; unknown tasks are no error."""
        ...

    def logs(self, job_id: str) -> Iterator[str]:
        """The lines that the task printed so far, without their line ends."""
        ...

    def usage(self, job_id: str) -> Usage | None:
        """What a task and all that it started take; None where it does not run."""
        ...

    def used_ports(self) -> set[int]:
        """The ports of this machine that are taken, as far as can be seen from here."""
        ...

    def gpus(self) -> Gpus:
        """The GPUs that a task can be given; where there is none, why."""
        ...

    def nodes(self) -> int:
        """How many machines could learn one task together, as far as can be seen now."""
        ...

    def running(self) -> set[str]:
        """The ids of all tasks alive."""
        ...

    def held(self) -> set[str]:
        """The ids of ended tasks of which there is more than their folders, until they are removed."""
        ...
