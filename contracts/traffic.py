"""How much is asked at once (ASGI): so many requests a minute of one caller, so many open streams. The machine is its trainings'."""

import re
import time

from contracts.doors import ASKING, MINUTE, Refuse, address_of, as_json, needed
from contracts.errors import Busy
from contracts.origins import App, Message, Receive, Send
from contracts.serving import DoorSettings

MOST_CALLERS = 10_000
"""Whose requests are counted; of more, those that asked longest ago are forgotten."""
UNCOUNTED = re.compile(r"/(v1/)?health|/static/.*")
STREAM = re.compile(r"(/v1)?/jobs/[^/]+/(events|log/stream)")
"""What is followed: each holds a connection, and file handles, for as long as somebody looks."""
LATER = 15
"""Seconds after which a stream may be asked for again."""


class Traffic:
    """Around a whole app, behind its door. `streams`: how many are open at this moment.

    A caller is a named token, or an address. One that was quiet for a minute may at once ask all that a minute allows. Predictions do not
    count: they have a queue with an end of its own.
    """

    def __init__(self, app: App, settings: DoorSettings, refuse: Refuse = as_json) -> None:
        self.app, self.a_minute, self.most_streams, self.refuse = app, settings.requests_a_minute, settings.streams, refuse
        self.streams = 0
        self._left: dict[str, tuple[float, float]] = {}
        """How many more requests a caller may send, and since when. Who asked last is last."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else "/health"
        streams = STREAM.fullmatch(path) is not None
        try:
            if self.a_minute and not UNCOUNTED.fullmatch(path) and needed(scope["method"], path) != "infer":
                self._count(_caller(scope))
            if streams and self.most_streams and self.streams >= self.most_streams:
                cause = f"{self.streams} pages or programs follow jobs here already, as many as may at a time (STREAMS)."
                raise Busy(cause, "Close pages that nobody looks at, or ask for the job's status now and then.", LATER)
        except Busy as problem:
            await self.refuse(scope, problem)(scope, receive, send)
            return
        self.streams += streams
        try:
            await self.app(scope, receive, send)
        finally:
            self.streams -= streams

    def _count(self, caller: str) -> None:
        """Raises Busy where a caller asks too often."""
        now, most = time.monotonic(), float(self.a_minute)
        left, since = self._left.pop(caller, (most, now))
        left = min(most, left + (now - since) * most / MINUTE)
        self._left[caller] = (left - 1 if left >= 1 else left, now)  # what is refused costs nothing
        if len(self._left) > MOST_CALLERS:
            del self._left[next(iter(self._left))]
        if left < 1:
            cause = f"More than {self.a_minute} requests a minute came from you (REQUESTS_A_MINUTE)."
            raise Busy(cause, "Ask less often: a job can be followed as a stream, and many pictures go into one request.")


def _caller(scope: Message) -> str:
    asking = ASKING.get()
    return asking.who.id if asking and asking.who and asking.who.id else address_of(scope)
