"""`python -m inference_api`: serves on INFERENCE_HOST and INFERENCE_PORT."""

import uvicorn

from contracts.serving import serving, settle_memory
from inference_api.app import create_app
from inference_api.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    options = serving("inference_api", settings, settings.inference_host, settings.inference_port)
    app = create_app(settings)
    settle_memory()
    uvicorn.run(app, **options)
