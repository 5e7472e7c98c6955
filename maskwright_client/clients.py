"""The two clients: the same questions, asked one after another or while a program does other things."""

import asyncio
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import numpy as np

from contracts.errors import Busy, Late, Problem, Unavailable
from contracts.model import Model
from contracts.serving import is_this_machine
from maskwright_client.asks import (
    Answer,
    Ask,
    BatchState,
    Source,
    ask_batch,
    ask_batch_state,
    ask_bytes,
    ask_deletion,
    ask_drawn,
    ask_listed,
    ask_model,
    ask_models,
    ask_result,
    problem_of,
    unreachable,
)

T = TypeVar("T")
PIECE = 2**20
LOOK = 0.5
"""Seconds between two looks at a batch."""


class Client:
    """Asks one inference API. Where that is busy, it asks again when it was told to, for up to `patience` seconds.

    `timeout`: seconds without a byte, after which an answer is given up. `token`: where the service asks for one; the variable
    MASKWRIGHT_TOKEN where it is not given. Wishes are the parameters of /v1/models/{name}/predict:
    classes, min_confidence, min_area, simplify, short_side. Every method raises contracts.errors.Problem.
    """

    def __init__(self, url: str = "http://127.0.0.1:4343", timeout: float = 300, patience: float = 300, token: str = "") -> None:
        self.url, self.patience = url, patience
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=_bearer(token), mounts=_past_proxies(url))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[Model]:
        """Every published model, newest first."""
        return self._ask(ask_models())

    def model(self, name: str) -> Model:
        return self._ask(ask_model(name))

    def mask(self, model: str, picture: Source, **wish: Any) -> np.ndarray:
        """The class of every pixel: uint8 (height, width), of the picture's size."""
        return self._ask(ask_drawn(model, picture, "mask", wish))

    def overlay(self, model: str, picture: Source, **wish: Any) -> np.ndarray:
        """The picture under its classes' colours: uint8 (height, width, 3)."""
        return self._ask(ask_drawn(model, picture, "overlay", wish))

    def confidence(self, model: str, picture: Source, **wish: Any) -> np.ndarray:
        """How certain the class of every pixel is: uint8 (height, width), 255 = certain."""
        return self._ask(ask_drawn(model, picture, "confidence", wish))

    def segments(self, model: str, picture: Source, **wish: Any) -> dict[str, Any]:
        """Shares of the classes, and every region with class, box, area, confidence, polygon and holes."""
        return self._ask(ask_listed(model, picture, "segments", wish))

    def answer(self, model: str, picture: Source, answer: Answer, **wish: Any) -> bytes:
        """An answer as it came: the bytes of a PNG or of JSON."""
        return self._ask(ask_bytes(model, picture, answer, wish))

    def start_batch(self, model: str, sources: Iterable[str | PathLike[str]], **wish: Any) -> BatchState:
        """Send files, folders and archives to be answered in the background."""
        return self._ask(ask_batch(model, sources, wish))

    def batch(self, identifier: str) -> BatchState:
        return self._ask(ask_batch_state(identifier))

    def wait_for_batch(self, identifier: str, seconds: float = float("inf")) -> BatchState:
        """A batch once it has ended. Raises Late, and the cause and cure of one that failed."""
        deadline = time.monotonic() + seconds
        while not (state := self.batch(identifier)).ended:
            _heed(deadline, state)
            time.sleep(LOOK)
        return _sound(state)

    def fetch_result(self, identifier: str, into: str | PathLike[str]) -> Path:
        """Write a finished batch's zip: a PNG for every picture, segments.json, problems.json if there are."""
        with self._http.stream("GET", ask_result(identifier).path) as answer:
            if answer.is_error:
                answer.read()
                raise problem_of(answer)
            with open(into, "wb") as file:
                for piece in answer.iter_bytes(PIECE):
                    file.write(piece)
        return Path(into)

    def delete_batch(self, identifier: str) -> None:
        """Cancel a batch, or delete its result."""
        self._ask(ask_deletion(identifier))

    def _ask(self, ask: Ask[T]) -> T:
        deadline = time.monotonic() + self.patience
        while True:
            with ExitStack() as opened:
                try:
                    answer = self._http.send(ask.request(self._http, opened))
                except httpx.TransportError as error:
                    raise unreachable(error, self.url) from error
            if not answer.is_error:
                return ask.read(answer)
            time.sleep(_pause(problem_of(answer), deadline))


class AsyncClient:
    """The same for an event loop: every method is awaited, as many at once as wanted."""

    def __init__(self, url: str = "http://127.0.0.1:4343", timeout: float = 300, patience: float = 300, token: str = "") -> None:
        self.url, self.patience = url, patience
        # As many at once as are asked: the service has the queue.
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, headers=_bearer(token), mounts=_past_proxies(url))

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def models(self) -> list[Model]:
        return await self._ask(ask_models())

    async def model(self, name: str) -> Model:
        return await self._ask(ask_model(name))

    async def mask(self, model: str, picture: Source, **wish: Any) -> np.ndarray:
        return await self._ask(ask_drawn(model, picture, "mask", wish))

    async def overlay(self, model: str, picture: Source, **wish: Any) -> np.ndarray:
        return await self._ask(ask_drawn(model, picture, "overlay", wish))

    async def confidence(self, model: str, picture: Source, **wish: Any) -> np.ndarray:
        return await self._ask(ask_drawn(model, picture, "confidence", wish))

    async def segments(self, model: str, picture: Source, **wish: Any) -> dict[str, Any]:
        return await self._ask(ask_listed(model, picture, "segments", wish))

    async def answer(self, model: str, picture: Source, answer: Answer, **wish: Any) -> bytes:
        return await self._ask(ask_bytes(model, picture, answer, wish))

    async def start_batch(self, model: str, sources: Iterable[str | PathLike[str]], **wish: Any) -> BatchState:
        return await self._ask(ask_batch(model, sources, wish))

    async def batch(self, identifier: str) -> BatchState:
        return await self._ask(ask_batch_state(identifier))

    async def wait_for_batch(self, identifier: str, seconds: float = float("inf")) -> BatchState:
        deadline = time.monotonic() + seconds
        while not (state := await self.batch(identifier)).ended:
            _heed(deadline, state)
            await asyncio.sleep(LOOK)
        return _sound(state)

    async def fetch_result(self, identifier: str, into: str | PathLike[str]) -> Path:
        async with self._http.stream("GET", ask_result(identifier).path) as answer:
            if answer.is_error:
                await answer.aread()
                raise problem_of(answer)
            with open(into, "wb") as file:
                async for piece in answer.aiter_bytes(PIECE):
                    file.write(piece)
        return Path(into)

    async def delete_batch(self, identifier: str) -> None:
        await self._ask(ask_deletion(identifier))

    async def _ask(self, ask: Ask[T]) -> T:
        deadline = time.monotonic() + self.patience
        while True:
            with ExitStack() as opened:
                try:
                    answer = await self._http.send(ask.request(self._http, opened))
                except httpx.TransportError as error:
                    raise unreachable(error, self.url) from error
            if not answer.is_error:
                return ask.read(answer)
            await asyncio.sleep(_pause(problem_of(answer), deadline))


def _pause(problem: Problem, deadline: float) -> float:
    """Seconds to wait before asking again, where the service is busy and there is time for it; else the problem is raised."""
    if isinstance(problem, Busy) and time.monotonic() + problem.seconds < deadline:
        return problem.seconds
    raise problem


def _bearer(token: str) -> dict[str, str]:
    found = token or os.environ.get("MASKWRIGHT_TOKEN", "")
    return {"Authorization": f"Bearer {found}"} if found else {}


def _past_proxies(url: str) -> dict[str, None]:
    """What is asked without the proxy of the environment: no proxy reaches this machine."""
    host = httpx.URL(url).host
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if is_this_machine(host) else {}


def _heed(deadline: float, state: BatchState) -> None:
    if time.monotonic() >= deadline:
        raise Late(f"The batch is not done: {state.done} of {state.total} pictures are.", "Wait longer; it goes on meanwhile.")


def _sound(state: BatchState) -> BatchState:
    if state.state == "failed":
        raise Unavailable(state.cause, state.cure)
    return state
