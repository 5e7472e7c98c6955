"""What the two APIs answer, where contracts/ has no shape for it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from annotations.doctor.findings import Report
from contracts.networks import Network


class Gpu(BaseModel):
    """Sizes in bytes."""

    id: int
    name: str
    memory_total: int
    memory_free: int
    load: int | None = None
    driver: str = ""
    compute_capability: str = ""
    refused: dict[str, str] = {}


class DeletedJob(BaseModel):
    """`id` brings it back; `until` is when it goes for good."""

    id: str
    name: str
    until: datetime


class LogPart(BaseModel):
    """Whole lines of a log: the first starts at byte `start`, `end` lies behind the last one, `size` is the log's."""

    start: int
    end: int
    size: int
    lines: list[str]


class EngineState(BaseModel):
    """An engine and, where it cannot train here, why and what to do about it."""

    engine: str
    about: str
    available: bool
    cause: str = ""
    cure: str = ""


class Machine(BaseModel):
    """Sizes in bytes."""

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
    version: str


class NetworkChoice(Network):
    """A row of the catalogue as this machine can run it. `defaults` is complete: a value for every setting."""

    available: bool
    cause: str = ""
    cure: str = ""


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
    """What would come of a training: see docker_sdk_api/forecast.py. Sizes in bytes."""

    seconds: float | None
    epoch_seconds: float | None
    basis: str
    memory: int | None
    memory_free: int
    classes: list[ClassSides]
    obstacles: list[Remark]
    cautions: list[Remark]


class Recommendation(BaseModel):
    """The network to take for a dataset and why, the settings for the network that was asked about, and, where a config.list of
    the Waggle FCN plugin lies with the dataset, what it asks for."""

    network: str
    reason: str
    settings: list[Recommended]
    waggle: WaggleStart | None = None


class DatasetRow(BaseModel):
    """A dataset at a glance, not checked. `error`: why its folder cannot be read at all. `sample`: the stem of its first picture."""

    name: str
    pictures: int
    classes: list[str]
    error: str | None = None
    sample: str | None = None


class Undo(BaseModel):
    """A cure that was done and can be taken back, and how many files it changed."""

    id: str
    title: str
    files: int


class DatasetReport(Report):
    """The full check of a dataset, the names of its pictures, and the cures that can be taken back, the latest first."""

    stems: list[str]
    undos: list[Undo] = Field([])


class Checking(BaseModel):
    """How far the check of a large dataset is, in pictures."""

    done: int
    total: int


class Change(BaseModel):
    """What a cure does to one file."""

    file: str
    what: str


class Format(BaseModel):
    """A layout of datasets that can be read, and its name for people."""

    format: str
    name: str


class ImportState(BaseModel):
    """How far an import is: `done` of `total` bytes while it unpacks, pictures while it reads. `notes`: how it understood the files."""

    id: str
    name: str
    state: Literal["running", "finished", "failed"]
    stage: str = ""
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


class ServedModel(BaseModel):
    """A model as the inference API serves it; `runtime` is there once it was loaded."""

    name: str
    runtime: str | None = None


class ClassShare(BaseModel):
    """How much of a picture a class covers, as the model sees it."""

    id: int
    name: str
    share: float
    pixels: int
    confidence: float | None = None


class Segments(BaseModel):
    """What a model sees in a picture: its classes in figures. The outlines are passed over here."""

    width: int
    height: int
    classes: list[ClassShare]
    segments: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Seen:
    """All answers about a picture: in figures, the same as it came (JSON), and two PNGs: class ids, and confidence (255: certain)."""

    segments: Segments
    listed: bytes
    mask: bytes
    confidence: bytes
