"""Where the pages are served and where the two APIs are, from the environment."""

from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.serving import DoorSettings


class Settings(DoorSettings, BaseSettings):
    """Each field is read from the environment variable of the same name in capitals, such as GUI_PORT."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    gui_host: str = "127.0.0.1"
    gui_port: int = 4200
    docker_sdk_api_url: str = "http://127.0.0.1:4222"
    inference_api_url: str = "http://127.0.0.1:4343"
    docker_sdk_api_shown_url: str = ""
    """Where people and programs reach docker_sdk_api, for commands to copy; where not given, as the pages do."""
    api_certificate: str = ""
    """File of the certificate to trust where the two APIs are encrypted with one of their own."""
    largest_upload: int = 512 * 2**20
    """Bytes of a request with pictures to try a model on: as many as inference_api takes."""
    largest_dataset_upload: int = 64 * 2**30
    """Bytes of a form with a dataset, from a browser without scripts: as many as docker_sdk_api takes."""
    largest_picture: int = 400_000_000
    """Pixels of a picture that Try it shows: as many as inference_api takes."""
    root_path: str = ""
    """Path under which a reverse proxy shows the pages, such as /maskwright."""

    @property
    def shown_url(self) -> str:
        return self.docker_sdk_api_shown_url or self.docker_sdk_api_url
