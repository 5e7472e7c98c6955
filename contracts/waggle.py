"""The Waggle way of working: a folder with its pictures and a config.list, and a run of it (docs/waggle.md).

`WaggleConfig` is what config.list says, in the keys of all versions of the plugin; `WaggleRun` is the part of a job.json that
makes a job a run of such a folder.
"""

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from contracts.errors import Invalid

CONFIG_FILE = "config.list"
MOUNTS = ("/storage", "/data")
"""What the folder is called in the plugin's container: its documents say the one, its code says the other."""
OWN_SIZE = 4096
"""Pictures come at their own size. A shorter side beyond this many pixels is shrunk to it: the most that a job can ask for."""
MOST_ROUNDS = 10_000
LARGEST_CONFIG = 2**20

ImageType = Literal["waggle_cloud", "voc", "cityscape"]
EXAMPLE = (
    '{"max_iteration": 10000, "lr": 1e-10, "momentum": 0.99, "weight_decay": 0.0005, "interval_validate": 1000, "batch_size": 1, '
    '"backbone": "resnet", "fcn": "50", "output_dir": "first", "pretrained_net": "", "n_workers": 2, "mode": "train"}'
)


class WaggleConfig(BaseModel):
    """config.list, complete. `lr` is for a loss that is summed over the pixels of a picture, hence so small."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    max_iteration: int = Field(ge=1, le=100_000_000)
    lr: float = Field(gt=0, le=10)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=1)
    interval_validate: int = Field(ge=1)
    batch_size: int = Field(1, ge=1, le=512)
    backbone: Literal["resnet"] = "resnet"
    fcn: Literal["50", "101"]
    output_dir: str = Field(min_length=1, max_length=100)
    pretrained_net: str = Field("", validation_alias=AliasChoices("pretrained_net", "pretrained"))
    n_workers: int = Field(2, ge=0, le=64)
    mode: Literal["train", "test"] = "train"

    @field_validator("fcn", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("pretrained_net", mode="before")
    @classmethod
    def _nothing_as_text(cls, value: Any) -> Any:
        return "" if value in (None, False) else value

    @field_validator("output_dir")
    @classmethod
    def _one_name(cls, value: str) -> str:
        if "/" in value or "\\" in value or "\0" in value:
            raise ValueError("it is one name, without a slash")
        return value

    @property
    def network(self) -> tuple[str, str]:
        """Network and backbone in the product's catalogue."""
        return "fcn", f"resnet{self.fcn}"

    @property
    def rounds(self) -> int:
        """From one validation to the next is what the product calls an epoch; the last one may be shorter."""
        return 1 if self.mode == "test" else math.ceil(self.max_iteration / self.interval_validate)

    def hyperparameters(self) -> dict[str, Any]:
        """The settings of a run's job, so that its pages show what was asked: nothing but SGD on whole pictures."""
        return {
            "epochs": min(self.rounds, MOST_ROUNDS),
            "batch_size": self.batch_size,
            "learning_rate": self.lr,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "workers": self.n_workers,
            "short_side": OWN_SIZE,
            "optimizer": "sgd",
            "augment": False,
            "crops_per_picture": 1,
            "rare_class_share": 0,
            "warm_up": 0,
            "clip": 0,
            "dice": 0,
            "balance": 0,
            "average": 0,
        }

    def proposal(self, pictures: int, pixels: int) -> dict[str, Any]:
        """Settings for an ordinary job that learns about as this run would, to start the wizard from.

        pictures: how many teach; pixels: of one of them. The product's loss is the mean over pixels, so a learning rate for a
        sum is larger by as many as a picture has.
        """
        return {
            "epochs": max(1, min(MOST_ROUNDS, round(self.max_iteration * self.batch_size / max(1, pictures)))),
            "batch_size": self.batch_size,
            "learning_rate": min(10.0, self.lr * pixels),
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "workers": self.n_workers,
            "optimizer": "sgd",
            "crops_per_picture": 1,
        }


class WaggleRun(BaseModel):
    """A run of a Waggle folder: where it lies, what its config.list says, and what its labels hold."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    config_file: Path
    config: WaggleConfig
    image_type: ImageType

    @property
    def output(self) -> Path:
        """The folder that the plugin's users look into."""
        return self.folder / f"MODEL-{self.config.output_dir}"

    @property
    def pretrained(self) -> Path | None:
        """The checkpoint that the weights come from, below the folder. Raises Invalid for one that is not there, or not below."""
        if not self.config.pretrained_net:
            return None
        file = below(self.folder, self.config.pretrained_net)
        if not file.is_file():
            raise Invalid(
                f"There is no checkpoint {self.config.pretrained_net} in {self.folder.name}.",
                'Correct pretrained_net in config.list, or write "" to start from scratch.',
            )
        return file


def below(folder: Path, path: str) -> Path:
    """A path of config.list: relative to the folder, or with the name that the folder has in the plugin's container."""
    named = PurePosixPath(path)
    mount = next((mount for mount in MOUNTS if named.is_relative_to(mount)), None)
    file = (folder / (named.relative_to(mount) if mount else named)).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise Invalid(f"{path} lies outside of the folder {folder.name}.", "Put it into the folder, and name it from there.")
    return file


def has_waggle_config(folder: Path) -> bool:
    """Whether a folder has a config.list that looks like the plugin's."""
    try:
        if (folder / CONFIG_FILE).stat().st_size > LARGEST_CONFIG:
            return False
        values = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and len(values.keys() & WaggleConfig.model_fields.keys()) >= 3


def read_waggle_config(folder: Path, file: Path | str = CONFIG_FILE) -> WaggleConfig:
    """config.list of a folder, or another file of its kind. Raises Invalid, naming the key and what is allowed."""
    path = folder / file
    name = Path(file).name
    if not path.is_file():
        raise Invalid(f"There is no {file} in {folder.name}.", f"Write it, such as {EXAMPLE}.")
    try:
        values = json.loads(path.read_bytes())
    except UnicodeDecodeError:
        raise Invalid(f"{name} is no text.", f"Write it as JSON, such as {EXAMPLE}.") from None
    except ValueError as error:
        raise Invalid(f"{name} is no JSON: {error}.", f"Write it as {EXAMPLE}.") from None
    try:
        return WaggleConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise Invalid(f"{name} holds no object.", f"Write it as {EXAMPLE}.") from None
        key = first["loc"][0]
        if first["type"] == "missing":
            raise Invalid(f"{name} does not say {key}.", f"Add it, as in {EXAMPLE}.") from None
        raise Invalid(f"{name} cannot say {first['input']!r} for {key}: {first['msg']}.", f"An example: {EXAMPLE}.") from None


def unknown_keys(folder: Path, file: Path | str = CONFIG_FILE) -> list[str]:
    """Keys of config.list that mean nothing here, to be named to the user."""
    known = {*WaggleConfig.model_fields, "pretrained"}
    return sorted(set(json.loads((folder / file).read_bytes())) - known)
