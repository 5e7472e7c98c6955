"""What the two APIs answer, where contracts/ has no shape for it."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from annotations.doctor.findings import Report
from contracts.networks import Network


class NetworkChoice(Network):
    """A row of the catalogue as this machine can run it. `defaults` is complete: a value for every setting."""

    available: bool
    cause: str = ""
    cure: str = ""


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
