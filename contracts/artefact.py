"""A model as the GluonCV training GUI leaves it: a folder with model_best.params, palette.txt and configuration.json."""

import json
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, model_validator

from contracts.errors import Invalid
from contracts.job import SOUND
from contracts.networks import Network, find_network
from contracts.plain import read_plain

WEIGHTS, PALETTE, CONFIGURATION = "model_best.params", "palette.txt", "configuration.json"
FILES = (WEIGHTS, PALETTE, CONFIGURATION)
MOST = 16 * 2**20
CROP = 480
"""Side of the squares that the original trains on where nobody says otherwise; its configuration.json does not tell."""


class Artefact(BaseModel):
    """configuration.json. Keys that are not listed here do not matter."""

    model_config = SOUND

    network: str
    backbone: str
    num_classes: int = Field(ge=2, le=255)
    classes_names: list[str]
    checkpoint_name: str = ""
    epochs: int = 0
    lr: float = 0.0
    crop_size: int = Field(CROP, ge=32, le=1024)

    @model_validator(mode="after")
    def _agrees(self) -> "Artefact":
        if len(self.classes_names) != self.num_classes:
            raise ValueError(f"num_classes is {self.num_classes}, and classes_names names {len(self.classes_names)}")
        if len(set(self.classes_names)) < self.num_classes:
            raise ValueError("classes_names names a class twice")
        return self

    @property
    def row(self) -> Network:
        """Its network in the catalogue. Raises Invalid."""
        return find_network("gluon", self.network, self.backbone)


def read_artefact(folder: Path) -> Artefact:
    """Raises Invalid where a file is missing, says nothing sensible, or asks for a network that is not there."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        cure = f"A model of the GluonCV training GUI has {WEIGHTS}, {PALETTE} and {CONFIGURATION}; one of Maskwright has model.json."
        raise Invalid(f"There is no {' and no '.join(missing)} in it.", cure)
    try:
        artefact = Artefact.model_validate_json(read_small(folder / CONFIGURATION))
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ").rstrip(".")
        place = ".".join(map(str, first["loc"]))
        cure = f"It must hold an object such as {json.dumps(_example())}."
        raise Invalid(f"{CONFIGURATION}: {f'{place}: ' if place else ''}{what}.", cure) from None
    _ = artefact.row
    read_palette(folder, artefact.num_classes)
    return artefact


def read_palette(folder: Path, classes: int) -> list[tuple[int, int, int]]:
    """The colours of so many classes. Raises Invalid."""
    words = read_small(folder / PALETTE).decode(errors="replace").split()
    numbers = [int(word) for word in words if word.isdecimal() and int(word) < 256]
    if len(numbers) != len(words) or len(numbers) < 3 * classes or len(numbers) % 3:
        cause = f"{PALETTE} does not hold red, green and blue of {classes} classes."
        raise Invalid(cause, "Write 3 numbers of 0 to 255 a class, each on a line of its own; the original writes 768.")
    return list(zip(numbers[0 : 3 * classes : 3], numbers[1 : 3 * classes : 3], numbers[2 : 3 * classes : 3], strict=True))


def read_small(file: Path) -> bytes:
    """A file that is to be read, and not only to be copied. Raises Invalid: a zip can hold a file of any size."""
    try:
        return read_plain(file, most=MOST)
    except FileNotFoundError:
        cause = f"{file.name} is no plain file of at most {MOST // 2**20} MB."
        raise Invalid(cause, "Take it from the model as it was downloaded.") from None


def _example() -> dict[str, object]:
    return {"network": "fcn", "backbone": "resnet50", "num_classes": 2, "classes_names": ["background", "crack"]}
