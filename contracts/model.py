"""What is served: the contents of model/model.json, written by the training job, read by inference and the pages."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from contracts.job import SOUND, EpochScores, Moment
from contracts.plain import read_plain

MODEL_FILE = "model.json"
RETIRED_FILE = "retired"
"""Beside the model's folder: while it is there, the model is kept and not served."""


LARGEST_SIDE = 2**16
"""Pixels: no network was taught with more, and a stranger's model.json shall not take all memory."""
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class Geometry(BaseModel):
    """How a picture of any size comes to the network, in training's scoring and in serving alike.

    The picture is resized so that its shorter side is `short_side`, never enlarged beyond its own size unless the
    tile asks for it; then it is read in tiles. `tile` (height, width) in pixels, None: the whole resized picture,
    padded to a multiple of `multiple_of`.
    """

    model_config = SOUND

    short_side: Side
    tile: tuple[Side, Side] | None = None
    multiple_of: int = Field(32, ge=1, le=1024)
    overlap: float = Field(0.25, ge=0, le=0.9)


class Parity(BaseModel):
    """How well the exported graph agrees with the engine: share of equal pixels and largest difference of scores."""

    model_config = SOUND

    pictures: int
    equal_pixels: float
    largest_difference: float


class Comparison(BaseModel):
    """Whole validation pictures read in one kind of numbers, against the same read by ONNX Runtime in float32.

    `equal_pixels`: share of pixels with the same class. `mean_iou`: of these pictures, 0…1; `drop`: how much less that is than
    in float32. `seconds`: of a picture, the median. `pictures` of 0: not compared, and `note` says why.
    """

    model_config = SOUND

    precision: Literal["float32", "bfloat16", "int8"]
    runtime: str
    pictures: int = 0
    equal_pixels: float = 0.0
    mean_iou: float | None = None
    drop: float | None = None
    seconds: float | None = None
    note: str = ""


Deviation = Annotated[float, Field(gt=0)]


class Model(BaseModel):
    """A published model. `mean` and `deviation` are per channel (red, green, blue) of pixels scaled to 0…1."""

    model_config = SOUND

    name: str
    job: str
    created: Moment
    engine: str
    network: str
    backbone: str
    predictor: Literal["onnx_graph", "majority"]
    classes: list[str]
    palette: list[tuple[int, int, int]]
    geometry: Geometry
    mean: tuple[float, float, float]
    deviation: tuple[Deviation, Deviation, Deviation]
    scores: EpochScores
    parity: Parity
    comparisons: list[Comparison] = []
    dataset: str
    weights: str
    weights_from: str = ""
    weights_licence: str
    train_pictures: int
    validation_pictures: int
    seconds: float

    def write(self, folder: Path) -> None:
        (folder / MODEL_FILE).write_text(self.model_dump_json(indent=2))


class PublishedModel(Model):
    """A model as it lies on the disk. Sizes in bytes: `size` of what a download holds, `graph_size` of the ONNX file, 0 where it has none.

    `dataset_now`: whether the dataset is still the one of `dataset_fingerprint`; unknown in lists, and where nobody wrote it down.
    """

    size: int
    graph_size: int = 0
    example: bool = False
    retired: bool = False
    imported: bool = False
    dataset_fingerprint: str = ""
    dataset_now: Literal["same", "changed", "gone", "unknown"] = "unknown"


def read_model(folder: Path) -> Model:
    return Model.model_validate_json(read_plain(folder / MODEL_FILE))
