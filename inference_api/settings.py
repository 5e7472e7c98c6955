"""Settings of inference_api, from the environment; read once, at the start, and passed on."""

from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.serving import DoorSettings


class Settings(DoorSettings, BaseSettings):
    """Every variable has the name of its field in capitals, such as INFERENCE_PORT."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    inference_host: str = "127.0.0.1"
    inference_port: int = 4343
    checkpoints: Path = Path(__file__).resolve().parent.parent / "checkpoints"
    memory_for_models: int = 4 * 2**30
    """Bytes that loaded models may take; the one that was used longest ago goes first."""
    runtime: Literal["auto", "openvino", "onnxruntime"] = "auto"
    """What computes. auto: ONNX Runtime on a GPU, OpenVINO elsewhere, ONNX Runtime where that is missing."""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """In which numbers. auto: the quickest whose masks were compared when the model was published, and found as good."""
    largest_upload: int = 512 * 2**20
    """Bytes of a request with its pictures."""
    largest_picture: int = 400_000_000
    """Pixels of a picture."""
    most_pictures: int = 100
    """Pictures of a request."""
    predictions_at_once: int = 0
    """So many are worked on at the same time; 0: one for every processor, and two at least."""
    queue: int = 256
    """So many more may wait for their turn."""
    deadline: float = 300
    """Seconds from the arrival of a request's last byte to its answer."""
    batches: Path | None = None
    """Where background batches lie; None: in .batches of the checkpoints."""
    largest_batches: int = 20 * 2**30
    """Bytes of all of them."""
    batches_kept: float = 72
    """Hours after which a batch that is done goes."""
