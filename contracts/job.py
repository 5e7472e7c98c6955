"""What was asked of a training job, and how it stands."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from contracts.hyperparameters import Hyperparameters
from contracts.queue import Place, Priority
from contracts.waggle import WaggleRun
from contracts.weights import WeightsType

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
NAME_RULE = "A name has 1 to 64 letters, digits, dots, dashes and underscores, and starts with a letter or a digit."


def is_name(text: str) -> bool:
    """Whether a job can be called so: no such name leads out of a folder."""
    return re.fullmatch(NAME_PATTERN.rstrip("$"), text) is not None


State = Literal["queued", "starting", "training", "publishing", "finished", "stopped", "failed"]
ENDED: frozenset[State] = frozenset({"finished", "stopped", "failed"})


def _of_a_calendar(moment: datetime) -> datetime:
    if not 1970 < moment.year < 9000:
        raise ValueError("a year between 1971 and 8999 is wanted")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_of_a_calendar)]
"""What strangers write may have no time zone, or lie where no other zone's calendar reaches."""


SOUND = ConfigDict(allow_inf_nan=False)
"""Of what holds numbers: JSON knows neither infinity nor what is none."""


class JobRequest(BaseModel):
    """What a person or a program asks for. `hyperparameters` holds only what differs from the network's defaults."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME_PATTERN, description=f"The job's name, and its model's. {NAME_RULE}")
    dataset: str = Field(description="The dataset's name.")
    engine: str = Field("pytorch", description="Which framework trains: see /v1/networks.")
    network: str = "unet"
    backbone: str = "resnet18"
    weights: WeightsType = Field("from_scratch", description="What the network starts from: see /v1/weights.")
    weights_from: str = Field("", description="Which classifier, or which earlier model; of pre-trained weights, which of several.")
    gpus: list[int] = Field([], description="GPUs to train on, by id. Empty: the CPU.")
    processes: int = Field(1, ge=1, le=256, description="Processes that learn together on the CPU. On GPUs it is the number of GPUs.")
    nodes: int = Field(1, ge=1, le=256, description="Machines of a Ray cluster that learn together, each with `gpus` or `processes`.")
    priority: Priority = Field("normal", description="Among the jobs that wait for their turn: see docs/queue.md.")
    memory_limit: int | None = Field(None, ge=16, description="Megabytes (1,000,000 bytes) it may take, in a container. None: JOB_MEMORY.")
    cpus: float | None = Field(None, gt=0, description="Processor cores that it may keep busy. None: all of them.")
    validation_share: float = Field(0.2, gt=0, lt=1, description="Share of the pictures kept aside to score the model.")
    seed: int = Field(0, ge=0, lt=2**31, description="The same seed gives the same split and the same training.")
    hyperparameters: dict[str, Any] = {}


class Job(JobRequest):
    """A job as it is written to job.json: the request, complete and checked, and where its pictures lie."""

    dataset_folder: Path
    weights_folder: Path | None = Field(None, description="The classifier's folder, or the earlier job's, that `weights_from` names.")
    created: Moment
    dataset_fingerprint: str = Field("", description="Of the dataset as it was when the job was started.")
    waggle: WaggleRun | None = Field(None, description="Of a run of a Waggle folder: see docs/waggle.md.")
    api_port: int | None = Field(None, description="Where an old client tells this job what to train: see docs/old-clients.md.")
    waiting: bool = Field(False, description="Whether that client has not told it yet.")
    imported: bool = Field(False, description="Whether its model was brought along instead of trained: see docs/old-clients.md.")
    hyperparameters: Hyperparameters  # type: ignore[assignment]  # complete here, a part in the request

    @property
    def together(self) -> int:
        """How many processes learn it on this machine: the pytorch engine takes one for each GPU, every other engine is one,
        and so is a run of a Waggle folder, whose steps are the plugin's."""
        return (len(self.gpus) or self.processes) if self.engine == "pytorch" and self.waggle is None else 1


class EpochScores(BaseModel):
    """What one pass over the validation pictures gave. An IoU of None: the class is in none of them."""

    model_config = SOUND

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    iou_per_class: dict[str, float | None] = {}
    best: bool = False


class Counts(BaseModel):
    """Validation pixels by true class (row) and predicted class (column), after an epoch."""

    epoch: int
    counts: list[list[int]]

    def predicted_classes(self) -> list[int]:
        """Ids of the classes that any pixel was taken for."""
        return [index for index, column in enumerate(zip(*self.counts, strict=True)) if any(column)]


class Confusion(BaseModel):
    """Which classes a job's model takes for which: with its best weights, and after its latest scoring."""

    classes: list[str]
    best: Counts | None = None
    latest: Counts | None = None


class JobStatus(BaseModel):
    """How a job stands: the fold of its events, and the launcher's word where the events end without one."""

    state: State = "starting"
    stage: str = "starting"
    place: Place | None = Field(None, description="In the queue, while it waits there.")
    device: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    pictures_per_second: float | None = None
    seconds_left: float | None = None
    started: Moment | None = None
    ended: Moment | None = None
    best: EpochScores | None = None
    test: EpochScores | None = None
    history: list[EpochScores] = []
    previews: list[str] = []
    pictures: list[str] = []
    warnings: list[str] = []
    boot: str = Field("", exclude=True)
    resumed_by_itself: int = Field(0, description="How often in a row nobody had to ask for it.")
    cause: str = ""
    cure: str = ""

    @property
    def ended_already(self) -> bool:
        return self.state in ENDED


class JobView(BaseModel):
    """A job as the API shows it."""

    job: Job
    status: JobStatus
    dataset_changed: bool = Field(False, description="Whether the dataset is another one now than when the job was started.")
    model: Literal["none", "published", "retired"] = Field("none", description="How its model stands: none yet, or deleted.")
