"""`python -m inference_api`: serves on INFERENCE_HOST and INFERENCE_PORT."""

import uvicorn

from inference_api.app import create_app
from inference_api.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    uvicorn.run(create_app(settings), host=settings.inference_host, port=settings.inference_port, timeout_graceful_shutdown=3)
