"""`python -m gui`: serves the pages with uvicorn."""

import uvicorn

from gui.app import create_app
from gui.settings import Settings


def main() -> None:
    settings = Settings()
    uvicorn.run(create_app(settings), host=settings.gui_host, port=settings.gui_port, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
