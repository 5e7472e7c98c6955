"""The routes, one module a noun; original.py holds those of the system before this one, which its clients go on calling."""

from typing import Any

from fastapi import Depends, Request

from contracts.refusals import Refusal
from inference_api.store import Store
from inference_api.turns import take_turn

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "What was sent cannot be read, or a parameter is not one that there is."},
    404: {"model": Refusal, "description": "There is no such model; the cure names those that there are."},
    413: {"model": Refusal, "description": "The request has too many bytes, or a picture too many pixels."},
    429: {"model": Refusal, "description": "Too many wait already; Retry-After says for how many seconds."},
    503: {"model": Refusal, "description": "Not at the moment; the cure says when."},
    504: {"model": Refusal, "description": "Not before the deadline: the service's, or the header Prefer: wait=SECONDS."},
}


TURN = [Depends(take_turn, scope="function")]
"""The dependency of routes that work for long: they wait for their turn without a thread, and give it back before they are read."""


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store
