"""What docker_sdk_api answers beside jobs, models and networks: written by it, read by the pages and the command line."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel


class Gpu(BaseModel):
    """One GPU. `id` is nvidia-smi's; memory in bytes; `load` in percent, None where the GPU does not tell it."""

    id: int
    name: str
    memory_total: int
    memory_free: int
    load: int | None = None
    driver: str = ""
    compute_capability: str = ""
    refused: dict[str, str] = {}
    """Why an engine's build cannot use it, by engine."""


class EngineState(BaseModel):
    """An engine and, where it cannot train here, why and what to do about it."""

    engine: str
    about: str
    available: bool
    cause: str = ""
    cure: str = ""


class Machine(BaseModel):
    """What this machine has. Sizes in bytes."""

    cores: int
    processor: str
    bfloat16: bool = False
    memory_total: int
    memory_free: int
    disk_free: int
    disk_total: int = 0
    gpus: list[Gpu]
    gpus_note: str = ""
    engines: list[EngineState]
    launcher: str
    nodes: int = 1
    """Machines that could learn one job together: more than one only in a Ray cluster."""
    version: str


class DeletedJob(BaseModel):
    """A job, or a job's model. `id` brings it back; `until` is when it goes for good."""

    id: str
    name: str
    until: datetime


class LogPart(BaseModel):
    """Whole lines of a log, the first of which starts at byte `start`; `end` lies behind the last one, `size` is the log's."""

    start: int
    end: int
    size: int
    lines: list[str]


class Recommended(BaseModel):
    """A setting's recommended value, the network's own default, and why as a sentence."""

    setting: str
    value: Any
    usual: Any
    reason: str

    @property
    def differs(self) -> bool:
        return bool(self.value != self.usual)


class WaggleStart(BaseModel):
    """The network and the settings that a config.list of the Waggle FCN plugin asks for."""

    network: str
    settings: dict[str, Any]


class Recommendation(BaseModel):
    """The network to take for a dataset and why, the settings for the network that was asked about, and, where a config.list of
    the Waggle FCN plugin lies with the dataset, what it asks for."""

    network: str
    reason: str
    settings: list[Recommended]
    waggle: WaggleStart | None = None


class Speed(BaseModel):
    """Seconds of a training step on one crop of 256 × 256 pixels, None where nothing says; and what they come from."""

    seconds: float | None
    basis: str


class Remark(BaseModel):
    """Something that keeps a training from starting or from going well, at the field that it is about."""

    field: str
    cause: str
    cure: str


class ClassSides(BaseModel):
    """In how many pictures a class is shown: of those that teach, and of those that score."""

    name: str
    training: int
    validation: int


class Forecast(BaseModel):
    """What would come of a training. `seconds` of the whole of it and of one epoch, None where nothing says; `basis`: what they come
    from. Memory in bytes: what one step takes, None where nobody counted, and what is free where it would run."""

    seconds: float | None = None
    epoch_seconds: float | None = None
    basis: str = ""
    memory: int | None = None
    memory_free: int
    classes: list[ClassSides] = []
    obstacles: list[Remark] = []
    cautions: list[Remark] = []


class ImportView(BaseModel):
    """How an import stands. `done` of `total`: bytes while it unpacks, pictures while it reads; 0 of 0: not known yet.
    `notes`: how it understood the files."""

    id: str
    name: str
    state: Literal["running", "finished", "failed"] = "running"
    stage: str = "waiting"
    done: int = 0
    total: int = 0
    format: str | None = None
    notes: list[str] = []
    cause: str = ""
    cure: str = ""


class Step(BaseModel):
    """A step of the self-test: what it is, how it stands, and what came of it."""

    title: str
    state: Literal["waiting", "running", "good", "failed"] = "waiting"
    said: str = ""
    cure: str = ""


class KeptJob(BaseModel):
    """What an old job keeps that a rule lets go of: all of it (job), or what a resume would begin with (checkpoint)."""

    job: str
    what: Literal["job", "checkpoint"]
    ended: datetime
    bytes: int


class Kept(BaseModel):
    """All of it, the largest first, and its bytes."""

    rows: list[KeptJob]
    bytes: int
