"""`python -m docker_sdk_api`: serves on SDK_HOST and SDK_PORT."""

import uvicorn

from contracts.serving import serving, settle_memory
from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    options = serving("docker_sdk_api", settings, settings.sdk_host, settings.sdk_port)
    app = create_app(settings)
    settle_memory()
    uvicorn.run(app, **options)
