"""Which pages of other servers a service answers: none, unless the setting ALLOWED_ORIGINS names where they come from.

Browsers send some requests to any server without asking it first, a POST of text/plain among them, which is what old clients send.
So a stranger's page could start a training here. Programs other than browsers name no origin, and are never held up.
"""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import Forbidden

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
READS = ("GET", "HEAD")
"""A page of an unnamed origin may send these: its browser keeps the answer from it."""
SECONDS_REMEMBERED = "600"
"""For so long a browser need not ask again what it may send."""


class AllowedOrigins:
    """Around a whole app (ASGI). `origins`: such as "http://192.168.0.7:8080 http://lab:8080", or * for every page there is."""

    def __init__(self, app: App, origins: str = "") -> None:
        self.app = app
        self.origins = {origin.rstrip("/").lower() for origin in re.split(r"[\s,]+", origins) if origin}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", [])}
        origin = headers.get(b"origin", "")
        if scope["type"] != "http" or not origin or _is_own(origin, headers):
            await self.app(scope, receive, send)
        elif "*" not in self.origins and origin.lower() not in self.origins:
            await self._strange(origin, scope, receive, send)
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _answer(send, 204, _granted(origin, headers))
        else:
            await self.app(scope, receive, _with(send, _granted(origin, {})))

    async def _strange(self, origin: str, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] in READS:
            await self.app(scope, receive, send)
            return
        problem = Forbidden(
            f"A page of {origin} asks for this, and this service answers no other server's pages unless it is told to.",
            f"If that page is yours, start Maskwright with ALLOWED_ORIGINS={origin}.",
        )
        body = json.dumps(problem.as_dict()).encode()
        await _answer(send, problem.status, [(b"content-type", b"application/json")], body)


def _is_own(origin: str, headers: dict[bytes, str]) -> bool:
    """Whether the page is the service's own, such as /docs; behind a reverse proxy the browser's own word counts, or what the proxy says
    it was asked for: a stranger's page can set neither without asking first, which is answered with a refusal."""
    if headers.get(b"sec-fetch-site") == "same-origin":
        return True
    try:
        return urlsplit(origin).netloc in (headers.get(b"host"), headers.get(b"x-forwarded-host"))
    except ValueError:  # such as http://[
        return False


def _granted(origin: str, asked: dict[bytes, str]) -> list[tuple[bytes, bytes]]:
    """The headers that let a page read the answer; to the question beforehand, what it may send too."""
    granted = [("access-control-allow-origin", origin), ("access-control-expose-headers", "*"), ("vary", "Origin")]
    if asked:
        wished = asked.get(b"access-control-request-headers", "*")
        methods = [("access-control-allow-methods", asked[b"access-control-request-method"])]
        granted += [*methods, ("access-control-allow-headers", wished), ("access-control-max-age", SECONDS_REMEMBERED)]
    return [(name.encode(), value.encode("latin-1")) for name, value in granted]


def _with(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *headers]
        await send(message)

    return send_with


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})
