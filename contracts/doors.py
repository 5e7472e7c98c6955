"""The door of every service (ASGI): which host may be asked for, whose page may ask, who may come in and how far; and what is written down.

The inside has one rule for what is needed (`needed`), by method and path, for all three services: nothing is open that it does not name.
"""

import json
import logging
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlencode

from contracts.errors import Busy, Forbidden, Misdirected, NotFound, NoToken, Problem
from contracts.origins import AllowedOrigins, App, Message, Receive, Send
from contracts.serving import DoorSettings, is_this_machine
from contracts.tokens import ANYONE, OWNER, PREFIX, Scope, Tokens, Who, is_same, open_session

Find = Callable[[str], Awaitable[Who | None]]
Refuse = Callable[[Message, Problem], App]
Record = dict[str, Any]
COOKIE = "maskwright"
FOR = b"x-on-behalf-of"
"""The pages ask with the TOKEN, and say with this header for which named token's owner: no more is then allowed than to that one."""
READS = ("GET", "HEAD", "OPTIONS")
REFUSED = (401, 403, 421)
MINUTE = 60.0
MOST_FAILURES = 10
"""Wrong tokens of an address in a minute that are compared: the TOKEN may be one that somebody thought of. Named ones cannot be guessed."""
MOST_NOTED = 60
"""Refusals of an address in a minute that are written down."""
MOST_ADDRESSES = 10_000
LOG = logging.getLogger("maskwright.requests")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
POLICY = "default-src 'none'; frame-ancestors 'none'"
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"DENY",
}
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LONGEST_WRITTEN = 300
"""Letters of an address that are written down."""
LONGEST = 255
"""Bytes of a name in an address: no file system takes longer ones."""
DOCS = "/docs", "/redoc"
DOCS_POLICY = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    b"worker-src blob:; frame-ancestors 'none'"
)
"""Of the pages that FastAPI makes of the routes: their script stands in the page. Nothing that a user wrote is on them."""

RULES: tuple[tuple[str, str, Scope | None], ...] = (
    ("GET HEAD", r"/(v1/)?health", None),  # Docker's health checks; they say nothing but that the service runs
    ("GET HEAD POST", r"/login|/logout", None),
    ("GET HEAD", r"/static/.*", None),
    ("*", r"/v1/(tokens|audit)(/.*)?|/machine/tokens(/.*)?", "admin"),
    ("POST", r"/v1/self-test|/machine/self-test(/.*)?", "admin"),
    ("DELETE", r"/v1/deleted(-models)?/[^/]+", "admin"),  # for good
    ("POST", r"/(jobs|models)/deleted/[^/]+/remove", "admin"),
    ("POST", r"/v1/retention|/machine/disk", "admin"),
    ("GET HEAD", r"/v1/diagnostics|/machine/diagnostics", "admin"),
    ("POST", r"/v1/(forecast|login)|/dataset/(validate|classes)/?|/jobs/container/logs/?", "read"),  # questions with a body
    ("POST", r"(/v1)?/models/[^/]+/(predict|predict/batch|predict_batch|predict_image|inference|batches|try)/?", "infer"),
    ("POST", r"/(detect|get_labels)/?", "infer"),
    ("DELETE", r"/v1/batches/[^/]+", "infer"),
    ("GET", r"/load/?|/models/[^/]+/load/?", "infer"),
    ("GET HEAD OPTIONS", r".*", "read"),
    ("*", r".*", "train"),
)
_RULES = [(methods.split(), re.compile(pattern, re.DOTALL), scope) for methods, pattern, scope in RULES]


def needed(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None: nobody is asked."""
    return next(scope for methods, pattern, scope in _RULES if (methods == ["*"] or method in methods) and pattern.fullmatch(path))


@dataclass
class Asked:
    """A request as it is written down. `who` is known once somebody was let in, by `token`, which is written down nowhere.

    `pictures`: how many `model` was asked about.
    """

    id: str
    who: Who | None = None
    token: str = field(default="", repr=False)
    model: str = ""
    pictures: int = 0


ASKING: ContextVar[Asked | None] = ContextVar("asking", default=None)
"""The request that is being answered: the pages pass its id and who asks on to the services behind them."""


def note_pictures(model: str, count: int = 1) -> None:
    """That a model was asked about so many more pictures by the request that is being answered."""
    if asking := ASKING.get():
        asking.model, asking.pictures = model, asking.pictures + count


def request_id() -> str:
    """Of the request that is being answered; "" where there is none."""
    asking = ASKING.get()
    return asking.id if asking else ""


def as_json(_scope: Message, problem: Problem) -> App:
    """The answer of a service that programs ask."""

    async def answer(_scope: Message, _receive: Receive, send: Send) -> None:
        body = json.dumps(problem.as_dict()).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


class Lately:
    """How often something happened in the last minute, by the address that it came from."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def __call__(self, address: str) -> int:
        return len(self.times(address))

    def times(self, address: str) -> deque[float]:
        """The moments, oldest first."""
        times = self._times.get(address, deque())
        while times and times[0] <= time.monotonic() - MINUTE:
            times.popleft()
        if not times:
            self._times.pop(address, None)
        return times

    def add(self, address: str) -> None:
        if address not in self._times and len(self._times) >= MOST_ADDRESSES:
            self._times.pop(next(iter(self._times)))
        self._times.setdefault(address, deque()).append(time.monotonic())

    def take_back(self, address: str) -> None:
        """The last one was none."""
        if times := self._times.get(address):
            times.pop()


class Failures(Lately):
    """Wrong tokens."""

    def refuse(self, address: str) -> None:
        """Raises Busy where there were too many: whoever guesses, guesses slowly."""
        times = self.times(address)
        if len(times) >= MOST_FAILURES:
            wait = int(times[0] + MINUTE - time.monotonic()) + 1
            raise Busy("Too many wrong tokens came from your address.", f"Wait {wait} seconds, then try again.", wait)


class Doors:
    """Around a whole app. `tokens`: the named ones, where the app can read them; `find`: asks somebody else whose token this is.

    `note`: is told of every change and every refusal.
    """

    def __init__(
        self,
        app: App,
        settings: DoorSettings,
        tokens: Tokens | None = None,
        find: Find | None = None,
        refuse: Refuse = as_json,
        note: Callable[[Record], None] | None = None,
        policy: str = POLICY,
    ) -> None:
        self.app, self.settings, self.tokens, self.find, self.refuse, self.note = app, settings, tokens, find, refuse, note
        self.headers = {**HEADERS, b"content-security-policy": policy.encode()}
        self.hosts = {name.lower() for name in re.split(r"[\s,]+", settings.hosts) if name}
        self.failures, self.refused = Failures(), Lately()
        self.inside = AllowedOrigins(self._let_in, origins=settings.allowed_origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        asking = Asked(given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
        said, begun, status = ASKING.set(asking), time.monotonic(), 0

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _complete(message, scope["path"], {**self.headers, b"x-request-id": asking.id.encode()})
            await send(message)

        try:
            host = headers.get(b"host", "")
            app = self.inside if self._knows(host) else self.refuse(scope, _misdirected(host))
            await app(scope, receive, send_more)
        finally:
            ASKING.reset(said)
            self._write_down(scope, asking, status, time.monotonic() - begun)

    def _knows(self, host: str) -> bool:
        """Whether a browser that asks for this host can only mean this service. A stranger may let a name of his own point to this
        machine (DNS rebinding), but neither an address nor a name without a dot, which only your own network gives."""
        name = re.sub(r":\d*$", "", host).lower().rstrip(".")
        if not name or "*" in self.hosts or name in self.hosts or name.endswith(".localhost") or not set(name) & set(".:"):
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    async def _let_in(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        # A route's pattern ends before a line's end, too: a path with such a sign may mean more than it says.
        scopes = "admin" if CONTROL.search(path) else needed(scope["method"], path)
        if scopes is None:
            await self.app(scope, receive, send)
            return
        try:
            who, token = await self._whose(scope)
            if asking := ASKING.get():
                asking.who, asking.token = who, token
            if not who.may(scopes):
                cause = f"This needs the scope “{scopes}”, and the token “{who.name}” has “{who.scope}”."
                raise Forbidden(cause, "Ask with another token.")
        except Problem as problem:
            await self.refuse(scope, problem)(scope, receive, send)
            return
        parts = path.split("/")
        nothing = NotFound("There is nothing at this address.", "Look whether all of it was copied.")
        strange = "\0" in path or {".", ".."} & {*parts} or any(len(part.encode("utf-8", "replace")) > LONGEST for part in parts)
        await (self.refuse(scope, nothing) if strange else self.app)(scope, receive, send)

    async def _whose(self, scope: Message) -> tuple[Who, str]:
        """And the token by which that one is known, "" without. Raises NoToken where nobody is known who asks."""
        headers = dict(scope["headers"])
        token = _take_token(scope, headers)
        if not self.settings.token:
            return ANYONE, ""
        if not token:
            sessions = (open_session(value, self.settings.token) for value in _cookies(headers))
            session = next((found for found in sessions if found), None)
            if session is None:
                cure = "Send one, as “Authorization: Bearer TOKEN”, or log in at /login of the pages."
                raise NoToken("This needs a token, and none was sent.", cure)
            return self._still(session), ""
        address, guessable = address_of(scope), not token.startswith(PREFIX)
        if guessable:
            self.failures.refuse(address)
        if is_same(token, self.settings.token):
            asked_for = headers.get(FOR, b"").decode("latin-1")
            return self._still(Who(name=asked_for, scope="admin", id=asked_for)) if asked_for else OWNER, token
        found = await self._find(token)
        if found is None:
            if guessable and not is_this_machine(address):  # whose users would keep the pages out with their own mistakes
                self.failures.add(address)
            raise NoToken("The token is not known here, or has ended.", "Ask for a new one: maskwright token make NAME --scope train.")
        return found, token

    async def _find(self, token: str) -> Who | None:
        if self.find:
            return await self.find(token)
        return self.tokens.find(token) if self.tokens else None

    def _still(self, session: Who) -> Who:
        """A session's owner as its token is now: it may have been revoked, or have ended, since."""
        if self.tokens is None or not session.id:
            return session
        found = self.tokens.who(session.id)
        if found is None:
            raise NoToken("The token of this session was revoked, or has ended.", "Log in with another one.")
        return found

    def _write_down(self, scope: Message, asking: Asked, status: int, seconds: float) -> None:
        who = asking.who.name if asking.who else "-"
        record = {"who": who, "method": scope["method"], "path": scope["path"][:LONGEST_WRITTEN], "status": status, "request": asking.id}
        if asking.model:
            record |= {"model": asking.model, "pictures": asking.pictures}
        words = {**record, "ms": round(seconds * 1000)}
        LOG.info("%s", " ".join(f"{key}={_word(value)}" for key, value in words.items()), extra={"said": words})
        if self.note and self._is_noted(scope, status):
            self.note(record)

    def _is_noted(self, scope: Message, status: int) -> bool:
        """Every change, and of refusals so many a minute from one address: whoever is refused could wash away what was written before."""
        if status not in REFUSED:
            return scope["method"] not in READS
        address = address_of(scope)
        self.refused.add(address)
        return self.refused(address) <= MOST_NOTED


def address_of(scope: Message) -> str:
    """Where a request comes from; "" where nobody knows."""
    return str((scope.get("client") or ("",))[0])


def _complete(message: Message, path: str, more: dict[bytes, bytes]) -> None:
    there = [*message.get("headers", [])]
    names = {name.lower() for name, _ in there}
    if path.startswith(DOCS):
        more[b"content-security-policy"] = DOCS_POLICY
    message["headers"] = there + [(name, value) for name, value in more.items() if name not in names]


def _misdirected(host: str) -> Misdirected:
    return Misdirected(f"This service is not known as “{host[:100]}”.", f"If that is its name, start it with HOSTS={host[:100]}.")


def _take_token(scope: Message, headers: dict[bytes, bytes]) -> str:
    """The token that was sent, "" for none. One in the address is taken out of it, so that no log keeps it."""
    scheme, _, bearer = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    words = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True) if b"token=" in scope["query_string"] else []
    asked = [value for name, value in words if name == "token"]
    if asked:
        scope["query_string"] = urlencode([word for word in words if word[0] != "token"]).encode()
    sent = bearer.strip() if scheme.lower() == "bearer" else headers.get(b"x-token", b"").decode("latin-1")
    return sent or (asked[-1] if asked else "")


def _cookies(headers: dict[bytes, bytes]) -> list[str]:
    """All sessions that were sent: cookies know no ports, and other programs' may be ones that strict readers give up at."""
    sent = (part.strip().partition("=") for part in headers.get(b"cookie", b"").decode("latin-1").split(";"))
    return [value.strip('"') for name, _, value in sent if name == COOKIE]


def _word(value: Any) -> str:
    """A value of a line, which it can neither leave nor end."""
    text = str(value)
    return text if re.fullmatch(r"[!#-~]*", text) else json.dumps(text)
