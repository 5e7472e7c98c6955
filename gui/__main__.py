"""`python -m gui`: serves the pages with uvicorn."""

import uvicorn

from contracts.serving import serving
from gui.app import create_app
from gui.settings import Settings


def main() -> None:
    settings = Settings()
    options = serving("gui", settings, settings.gui_host, settings.gui_port)
    uvicorn.run(create_app(settings), **options)


if __name__ == "__main__":
    main()
