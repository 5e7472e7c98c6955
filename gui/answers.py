"""What the two APIs answer, where contracts/ has no shape for it."""

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
    gpus: list[Gpu]
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


class Recommendation(BaseModel):
    """The network to take for a dataset and why, the settings for the network that was asked about, and, where a config.list of
    the Waggle FCN plugin lies with the dataset, what it asks for."""

    network: str
    reason: str
    settings: list[Recommended]
    waggle: WaggleStart | None = None


class DatasetRow(BaseModel):
    """A dataset at a glance, not checked. `error`: why its folder cannot be read at all."""

    name: str
    pictures: int
    classes: list[str]
    error: str | None = None


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
