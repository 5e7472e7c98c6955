"""`python -m docker_sdk_api`: serves on SDK_HOST and SDK_PORT."""

import uvicorn

from contracts.serving import collect_garbage_early, serving
from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    options = serving("docker_sdk_api", settings, settings.sdk_host, settings.sdk_port)
    app = create_app(settings)
    collect_garbage_early()
    uvicorn.run(app, **options)
