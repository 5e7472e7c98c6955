"""Settings of inference_api, from the environment; read once, at the start, and passed on."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every variable has the name of its field in capitals, such as INFERENCE_PORT."""

    model_config = SettingsConfigDict(frozen=True)

    inference_host: str = "127.0.0.1"
    inference_port: int = 4343
    checkpoints: Path = Path(__file__).resolve().parent.parent / "checkpoints"
    models_in_memory: int = 4
    """So many models stay loaded; the one that was used longest ago goes first."""
    largest_upload: int = 64 * 2**20
    """Bytes of a picture's file."""
    largest_picture: int = 100_000_000
    """Pixels of a picture."""
