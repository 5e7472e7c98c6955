"""What the browser may load and send: response headers, and refusal of changes that another site asks for."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Styles may stand in attributes: widths of bars and colours of classes are data. Scripts may not.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


class Guard:
    """Around the whole app. It passes bodies on as they come, so that live events are not held back.

    `root_path`: where a reverse proxy shows the app; every link starts with it. Whether the proxy takes it off again, and whether
    somebody comes past the proxy, makes no difference.
    """

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self.app = app
        self.root_path = "/" + root_path.strip("/") if root_path.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        if self.root_path:
            scope["root_path"] = self.root_path
            if not f"{scope['path']}/".startswith(f"{self.root_path}/"):
                scope["path"] = self.root_path + scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if "/static/" in scope["path"]:
                    headers["Cache-Control"] = "no-cache"  # asked for again each time, answered 304: an upgrade shows at once
            await send(message)

        app = _refuse if _from_elsewhere(scope) else self.app
        await app(scope, receive, send_with_headers)


def _from_elsewhere(scope: Scope) -> bool:
    """Whether another site made a visitor's browser send this change. Programs send no such header."""
    return scope["method"] == "POST" and Headers(scope=scope).get("sec-fetch-site") in ("cross-site", "same-site")


_refuse = PlainTextResponse("Another site asked for this change. Open Maskwright itself and do it there.", status_code=403)
