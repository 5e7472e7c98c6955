"""How many bytes a request may have, by method and path: nothing that has no end gets into a service's memory (ASGI)."""

import re
from collections.abc import Sequence

from contracts.doors import Refuse, as_json
from contracts.errors import TooLarge
from contracts.origins import App, Message, Receive, Send

WORDS = 4 * 2**20
"""Bytes of a request that holds only words: a form that was filled in, or JSON."""


class BodyLimit:
    """Around a whole app. Ends requests with more bytes than are taken: at once where they say so, else when they come.

    `limits`: pattern of method and path, and bytes; the first that fits holds, and None leaves the limit to the route. Of a request that
    is cut off here nothing but the refusal is answered, whatever the app makes of it.
    """

    def __init__(self, app: App, limits: Sequence[tuple[str, int | None]], cure: str, refuse: Refuse = as_json) -> None:
        self.app, self.cure, self.refuse = app, cure, refuse
        self.limits = [(re.compile(pattern, re.DOTALL), most) for pattern, most in limits]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        most = self._most(f"{scope['method']} {scope['path']}") if scope["type"] == "http" else None
        if most is None:
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        seen, begun = int(declared) if declared.isdigit() else 0, False
        problem = TooLarge(f"The request has more than {_size(most)}.", self.cure)

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise problem
            return message

        async def heard(message: Message) -> None:
            nonlocal begun
            if begun or seen <= most:
                begun = True
                await send(message)

        if seen <= most:
            seen = 0
            try:
                await self.app(scope, counted, heard)
            except TooLarge:
                if seen <= most:
                    raise
        if seen > most and not begun:
            await self.refuse(scope, problem)(scope, receive, _closing(send))

    def _most(self, asked: str) -> int | None:
        return next((most for pattern, most in self.limits if pattern.fullmatch(asked)), None)


def _closing(send: Send) -> Send:
    """The rest of the body is not read."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        await send(message)

    return send_and_close


def _size(most: int) -> str:
    return f"{most // 2**20} MB" if most >= 2**20 else f"{most} bytes"
