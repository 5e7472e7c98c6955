"""`python -m gui`: serves the pages with uvicorn."""

import uvicorn

from contracts.serving import serving, settle_memory
from gui.app import create_app
from gui.settings import Settings


def main() -> None:
    settings = Settings()
    options = serving("gui", settings, settings.gui_host, settings.gui_port)
    app = create_app(settings)
    settle_memory()
    uvicorn.run(app, **options)


if __name__ == "__main__":
    main()
