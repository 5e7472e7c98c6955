"""The routes, one module a noun: /v1/datasets is in datasets.py."""

import os
from collections.abc import Mapping
from typing import BinaryIO

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send


class PlainFile(FileResponse):
    """A file that is open already (contracts/plain.py) as an answer: what its name leads to by now does not matter. Closed at the end."""

    def __init__(self, file: BinaryIO, kind: str, filename: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.file = file
        opened = f"/proc/self/fd/{file.fileno()}"
        super().__init__(opened, media_type=kind, filename=filename, headers=headers, stat_result=os.fstat(file.fileno()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await super().__call__(scope, receive, send)
