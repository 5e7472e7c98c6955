"""Where the pages are served and where the two APIs are, from the environment."""

from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """Each field is read from the environment variable of the same name in capitals, such as GUI_PORT."""

    gui_host: str = "127.0.0.1"
    gui_port: int = 4200
    docker_sdk_api_url: str = "http://127.0.0.1:4222"
    inference_api_url: str = "http://127.0.0.1:4343"
    root_path: str = ""
    """Path under which a reverse proxy shows the pages, such as /maskwright."""
