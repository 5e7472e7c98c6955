"""What can be asked of an inference API: a request and the way to read its answer, as one value for both clients."""

import io
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from PIL.PngImagePlugin import PngImageFile
from pydantic import BaseModel

from contracts.errors import Broken, Busy, Forbidden, Invalid, Late, NotFound, NoToken, Problem, Taken, TooLarge, Unavailable
from contracts.model import Model

T = TypeVar("T")
Source = str | PathLike[str] | bytes
"""A picture: the path of its file, or the file's bytes."""
Answer = Literal["mask", "overlay", "confidence", "segments", "coco", "shares"]
KINDS = (Invalid, NoToken, Forbidden, NotFound, Taken, TooLarge, Unavailable, Late, Broken)
PROBLEMS: dict[int, type[Problem]] = {kind.status: kind for kind in KINDS}


class BatchState(BaseModel):
    """How far a batch is. `failures`: file → error, cause and cure. `seconds_left` is None until it can be told."""

    id: str
    model: str
    state: Literal["waiting", "running", "finished", "failed"]
    created: datetime
    total: int
    done: int
    seconds_left: float | None = None
    failures: dict[str, dict[str, str]] = {}
    cause: str = ""
    cure: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "failed")


@dataclass(frozen=True)
class Ask(Generic[T]):
    """A request before it is sent. `files`: name and source of what is sent along in the field “picture”."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: dict[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, Source], ...] = ()

    def request(self, client: httpx.Client | httpx.AsyncClient, opened: ExitStack) -> httpx.Request:
        """The request; its files are open as long as `opened` is. Raises Invalid for a file that cannot be read."""
        parts = [("picture", (name, _content(source, opened))) for name, source in self.files]
        return client.build_request(self.method, self.path, params=self.params, files=parts or None)


def ask_models() -> Ask[list[Model]]:
    return Ask("GET", "/v1/models", lambda answer: [Model.model_validate(row) for row in answer.json()])


def ask_model(name: str) -> Ask[Model]:
    return Ask("GET", f"/v1/models/{quote(name, safe='')}", lambda answer: Model.model_validate(answer.json()))


def ask_drawn(model: str, picture: Source, answer: Answer, wish: dict[str, Any]) -> Ask[np.ndarray]:
    return Ask("POST", _predict(model), _pixels, {**wish, "answer": answer}, (_named(picture),))


def ask_listed(model: str, picture: Source, answer: Answer, wish: dict[str, Any]) -> Ask[dict[str, Any]]:
    return Ask("POST", _predict(model), _content_of_json, {**wish, "answer": answer}, (_named(picture),))


def ask_bytes(model: str, picture: Source, answer: Answer, wish: dict[str, Any]) -> Ask[bytes]:
    return Ask("POST", _predict(model), lambda response: response.content, {**wish, "answer": answer}, (_named(picture),))


def ask_batch(model: str, sources: Iterable[str | PathLike[str]], wish: dict[str, Any]) -> Ask[BatchState]:
    """Files, archives, and folders with all that lies in them. Raises Invalid where there is none."""
    files = tuple(row for source in sources for row in _below(Path(source)))
    if not files:
        raise Invalid("There is no file to send.", "Give pictures, folders of them, or zips.")
    return Ask("POST", f"/v1/models/{quote(model, safe='')}/batches", _batch, wish, files)


def ask_batch_state(identifier: str) -> Ask[BatchState]:
    return Ask("GET", f"/v1/batches/{quote(identifier, safe='')}", _batch)


def ask_result(identifier: str) -> Ask[None]:
    return Ask("GET", f"/v1/batches/{quote(identifier, safe='')}/result.zip", lambda _: None)


def ask_deletion(identifier: str) -> Ask[None]:
    return Ask("DELETE", f"/v1/batches/{quote(identifier, safe='')}", lambda _: None)


def problem_of(answer: httpx.Response) -> Problem:
    """What a refusal says, as the problem that was raised in the service; the answer's body was read."""
    try:
        said = answer.json()
        cause, cure = str(said["cause"]), str(said["cure"])
    except (ValueError, KeyError, TypeError):
        cause, cure = f"{answer.url} answered {answer.status_code}.", "Check that this is the address of a Maskwright inference API."
    if answer.status_code == Busy.status:
        again = answer.headers.get("Retry-After", "")
        return Busy(cause, cure, int(again) if again.isdecimal() else 1)
    return PROBLEMS.get(answer.status_code, Invalid if answer.status_code < 500 else Broken)(cause, cure)


def unreachable(error: httpx.TransportError, url: str) -> Problem:
    """Why no answer came."""
    if isinstance(error, httpx.TimeoutException):
        return Late(f"{url} did not answer in time.", "Allow more with timeout=SECONDS, or see whether the service is overloaded.")
    said = str(error) or type(error).__name__
    return Unavailable(f"{url} cannot be reached ({said}).", "Start the service (maskwright up), or check the address.")


def _predict(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/predict"


def _pixels(answer: httpx.Response) -> np.ndarray:
    """An answer's PNG, as large as the picture that was sent: Pillow's guard against larger ones, in Image.open, is not asked."""
    try:
        with PngImageFile(io.BytesIO(answer.content)) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        cause = f"What {answer.url} answered is no picture ({error})."
        raise Broken(cause, "Check that this is the address of a Maskwright inference API.") from error


def _content_of_json(answer: httpx.Response) -> dict[str, Any]:
    content: dict[str, Any] = answer.json()
    return content


def _batch(answer: httpx.Response) -> BatchState:
    return BatchState.model_validate(answer.json())


def _named(source: Source) -> tuple[str, Source]:
    return ("picture" if isinstance(source, bytes) else Path(source).name), source


def _below(source: Path) -> list[tuple[str, Source]]:
    if not source.is_dir():
        return [(source.name, source)]
    return [(path.relative_to(source).as_posix(), path) for path in sorted(source.rglob("*")) if path.is_file()]


def _content(source: Source, opened: ExitStack) -> Any:
    if isinstance(source, bytes):
        return source
    try:
        return opened.enter_context(open(source, "rb"))
    except OSError as error:
        raise Invalid(f"{source} cannot be read: {error.strerror or error}.", "Give the path of a file.") from error
