"""`python -m docker_sdk_api`: serves on SDK_HOST and SDK_PORT."""

import uvicorn

from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    uvicorn.run(create_app(settings), host=settings.sdk_host, port=settings.sdk_port, timeout_graceful_shutdown=3)
