"""Whose turn it is: so many predictions at once, so many callers waiting for theirs, and none beyond its deadline or after it left.

Belongs to one event loop. A caller that waits holds no thread, so that health answers however many do.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import ceil

from fastapi import Request

from contracts.errors import Busy, Late, Problem

WAIT = re.compile(r"\bwait=(\d{1,6})\b")
"""How a caller says in the header Prefer how many seconds it is ready to wait (RFC 7240, 4.3)."""
LONGEST_RETRY = 60
MEMORY = 0.2
"""How much the last turn counts in the mean length of one."""


class Left(Problem):
    """Nobody is there to be answered: the connection was closed."""

    status = 499


@dataclass
class Turn:
    """What a caller gave up on. `until`: its deadline, as time.monotonic() says it."""

    until: float = float("inf")
    left: bool = False

    def heed(self) -> None:
        """Raises Left or Late where the answer is not waited for any more."""
        if self.left:
            raise Left("The caller closed the connection.", "Keep it open until the answer is there.")
        if time.monotonic() >= self.until:
            raise _late()


CURRENT: ContextVar[Turn | None] = ContextVar("turn", default=None)


def heed() -> None:
    """Ends the work of a turn that nobody waits for any more: asked between two tiles of a picture."""
    turn = CURRENT.get()
    if turn is not None:
        turn.heed()


class Turns:
    """A queue with an end. `refused`: callers that came when it was full; `seconds`: how long a turn takes, in the mean."""

    def __init__(self, at_once: int, most_waiting: int) -> None:
        self.at_once, self.most_waiting = at_once, most_waiting
        self.running = self.refused = 0
        self.seconds = 1.0
        self._callers: deque[asyncio.Future[None]] = deque()
        self._batches: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._callers)

    @asynccontextmanager
    async def take(self, turn: Turn, left: "asyncio.Future[None] | None" = None) -> AsyncIterator[None]:
        """The caller's turn, once it comes. Raises Busy where the queue is full, Late, and Left once `left` is done."""
        await self._enter(self._callers, turn, left)
        async with self._holding(turn):
            yield

    @asynccontextmanager
    async def take_when_idle(self, turn: Turn) -> AsyncIterator[None]:
        """A turn once no caller waits: for work that nobody is waiting for at this moment."""
        await self._enter(self._batches, turn, None)
        async with self._holding(turn):
            yield

    @asynccontextmanager
    async def _holding(self, turn: Turn) -> AsyncIterator[None]:
        CURRENT.set(turn)
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds += MEMORY * (time.monotonic() - begin - self.seconds)
            self._pass_on()

    async def _enter(self, queue: deque[asyncio.Future[None]], turn: Turn, left: "asyncio.Future[None] | None") -> None:
        if self.running < self.at_once:
            self.running += 1
            return
        if queue is self._callers and len(queue) >= self.most_waiting:
            self.refused += 1
            raise self._full()
        place = asyncio.get_running_loop().create_future()
        queue.append(place)
        patience = None if turn.until == float("inf") else max(0.0, turn.until - time.monotonic())
        try:
            await asyncio.wait({place} if left is None else {place, left}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            turn.heed()
            if not place.done():
                raise _late()
        except BaseException:
            self._give_up(queue, place)
            raise

    def _give_up(self, queue: deque[asyncio.Future[None]], place: "asyncio.Future[None]") -> None:
        if place.done():  # its turn came at the same moment
            self._pass_on()
        else:
            queue.remove(place)

    def _pass_on(self) -> None:
        queue = self._callers or self._batches
        if queue:
            queue.popleft().set_result(None)
        else:
            self.running -= 1

    def _full(self) -> Busy:
        seconds = min(LONGEST_RETRY, max(1, ceil(self.seconds * len(self._callers) / self.at_once)))
        cause = f"{len(self._callers)} predictions are waiting already, as many as may."
        return Busy(cause, f"Ask again in about {seconds} s; a client that sends one picture after another is never refused.", seconds)


def _late() -> Late:
    return Late("The answer was not there before the deadline.", "Ask again later, send a smaller picture, or allow more time.")


async def take_turn(request: Request) -> AsyncIterator[None]:
    """What a route depends on that works for long: begins when its turn comes, after the whole upload has arrived."""
    turns: Turns = request.app.state.turns
    asked = WAIT.search(request.headers.get("prefer", ""))
    patience = min(request.app.state.settings.deadline, int(asked[1]) if asked else float("inf"))
    turn = Turn(time.monotonic() + patience)
    left = asyncio.create_task(_leave(request, turn))
    try:
        async with turns.take(turn, left):
            yield
    finally:
        left.cancel()


async def _leave(request: Request, turn: Turn) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    turn.left = True
