"""The routes, one module a noun: /v1/datasets is in datasets.py."""

import os
from collections.abc import Mapping
from typing import BinaryIO

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send


class PlainFile(FileResponse):
    """A file that is open already (contracts/plain.py) as an answer: what its name leads to by now does not matter. Closed at the end.

    A running job's may grow while it is sent: it is sent as long as it was when it was opened, which is what its headers say.
    """

    max_ranges = 1  # several would be looked for in a file that may have been cut short, and never found

    def __init__(self, file: BinaryIO, kind: str, filename: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.file = file
        opened = f"/proc/self/fd/{file.fileno()}"
        super().__init__(opened, media_type=kind, filename=filename, headers=headers, stat_result=os.fstat(file.fileno()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left, ended = 0, False

        async def send_declared(message: Message) -> None:
            nonlocal left, ended
            if message["type"] == "http.response.start":
                left = int(Headers(raw=message["headers"])["content-length"])
            elif message["type"] == "http.response.body":
                body = message.get("body", b"")[:left]
                left -= len(body)
                message = {**message, "body": body, "more_body": message.get("more_body", False) and left > 0}
            if not ended:
                await send(message)
            ended = message["type"] == "http.response.body" and not message["more_body"]

        with self.file:
            await super().__call__(scope, receive, send_declared)
