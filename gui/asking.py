"""Asking the two APIs over HTTP: what they refuse is raised again, what is large or lasts is passed on as it comes."""

import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from contracts.doors import ASKING
from contracts.errors import (
    Broken,
    Busy,
    Forbidden,
    Full,
    Invalid,
    Late,
    Misdirected,
    NotFound,
    NoToken,
    Problem,
    Taken,
    TooLarge,
    Unavailable,
)

T = TypeVar("T")
PASSED_ON = (
    *("content-type", "content-length", "content-disposition", "content-encoding", "cache-control", "etag", "last-modified"),
    "x-accel-buffering",  # a reverse proxy holds no live event back
)
KINDS = (Invalid, TooLarge, NoToken, Forbidden, Misdirected, NotFound, Taken, Busy, Unavailable, Late, Full, Broken)
PROBLEMS: dict[str, type[Problem]] = {kind.__name__: kind for kind in KINDS}
PATIENCE = httpx.Timeout(10, read=120)
"""Seconds: checking a large dataset reads every picture of it."""
MANY = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Every page that follows a job holds a connection or two for as long as it is open."""
FOR_EVER = httpx.Timeout(10, read=None)


def part(name: str) -> str:
    """A name as a part of an address. Raises NotFound for what would make another address of it."""
    if name in ("", ".", "..") or "/" in name:
        raise NotFound(f"There is nothing called “{name}”.", "Go back and choose again.")
    return quote(name, safe="")


def client_at(url: str, certificate: str = "") -> httpx.AsyncClient:
    """Of an API that lies beside the pages: a proxy that the environment names is for the outside.

    `certificate`: the file of one to trust, beside those that everybody trusts.
    """
    trusted = ssl.create_default_context()
    if certificate:
        trusted.load_verify_locations(certificate)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=MANY, trust_env=False, verify=trusted)


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_rows(kind: type[T], content: bytes) -> list[T]:
    """A list of such values, out of JSON."""
    rows: list[T] = _reader(list.__class_getitem__(kind)).validate_json(content)
    return rows


class Asking:
    """The clients of the two APIs. Every method raises the API's own Problem, or Unavailable where it does not answer."""

    def __init__(self, docker_sdk: httpx.AsyncClient, inference: httpx.AsyncClient, token: str = "") -> None:
        self.docker_sdk = docker_sdk
        self.inference = inference
        self.token = token
        for client in (docker_sdk, inference):
            client.event_hooks["request"].append(self._introduce)

    async def _introduce(self, request: httpx.Request) -> None:
        """Say with every request that these pages ask, for whom, and as part of which request of a browser's."""
        asked = ASKING.get()
        if asked:
            request.headers["X-Request-Id"] = asked.id
        if self.token and "Authorization" not in request.headers:
            request.headers["Authorization"] = f"Bearer {self.token}"
            if asked and asked.who and asked.who.id:
                request.headers["X-On-Behalf-Of"] = asked.who.id

    async def close(self) -> None:
        await self.docker_sdk.aclose()
        await self.inference.aclose()

    async def relay(self, path: str, incoming: Request) -> StreamingResponse:
        """A request of the browser's own as it comes, body and all, and the training API's answer to it, refusals too."""
        headers = {name: incoming.headers[name] for name in ("content-type", "content-length") if name in incoming.headers}
        body = incoming.stream() if incoming.method in ("POST", "PUT") else None
        params = dict(incoming.query_params)
        request = self.docker_sdk.build_request(incoming.method, path, params=params, headers=headers, content=body, timeout=FOR_EVER)
        return _as_it_comes(await _send(self.docker_sdk, request))

    async def pass_on(self, path: str, *, params: Mapping[str, str] | None = None, last_event_id: str | None = None) -> StreamingResponse:
        """What the training API answers, as it comes: a picture, a download, live events (from after `last_event_id`)."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        request = self.docker_sdk.build_request("GET", path, params=params, headers=headers, timeout=FOR_EVER)
        return await as_it_answers(self.docker_sdk, request)

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return (await self._ask(self.docker_sdk, "GET", path, params=params)).json()

    async def _rows(self, kind: type[T], path: str, params: Mapping[str, str] | None = None) -> list[T]:
        return read_rows(kind, (await self._ask(self.docker_sdk, "GET", path, params=params)).content)

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str, **content: Any) -> httpx.Response:
        answer = await _send(client, client.build_request(method, path, **content))
        await answer.aread()
        _raise_problem(answer)
        return answer


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    try:
        return await client.send(request, stream=True)
    except httpx.TimeoutException as error:
        raise Unavailable(
            f"{request.url} did not answer in time.", "It may be busy: try again in a minute; the page Machine says whether it is there."
        ) from error
    except httpx.TransportError as error:
        cause = f"Nothing answers at {client.base_url}."
        raise Unavailable(cause, "Start Maskwright's services (run/local.sh), or correct the address that this page was given.") from error


async def as_it_answers(client: httpx.AsyncClient, request: httpx.Request) -> StreamingResponse:
    """The answer as it comes. Raises the API's own Problem where it is a refusal."""
    answer = await _send(client, request)
    if answer.is_error:
        await answer.aread()
        _raise_problem(answer)
    return _as_it_comes(answer)


def _as_it_comes(answer: httpx.Response) -> StreamingResponse:
    headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    return StreamingResponse(_chunks(answer), answer.status_code, headers)


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. A connection that breaks ends it: a browser asks again by itself."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.TransportError:
        return
    finally:
        await answer.aclose()


def _raise_problem(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        body = answer.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and "cause" in body:
        raise PROBLEMS.get(body.get("error", ""), Broken)(body["cause"], body.get("cure", ""))
    if answer.status_code == 404:
        raise NotFound(f"There is nothing at {answer.url.path}.", "Go back and choose again: it may have been removed since.")
    raise Broken(f"{answer.url} answered {answer.status_code} without saying why.", "Its log says more.")
