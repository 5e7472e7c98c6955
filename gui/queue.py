"""The queue's page: what waits, why, and about until when; buttons that change the order work without JavaScript."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.errors import Invalid
from gui.backend import Asks
from gui.pages import page, path_to

router = APIRouter(prefix="/queue", include_in_schema=False)
WISHES: dict[str, tuple[str, dict[str, object]]] = {
    "first": ("move", {"to": 1}),
    "up": ("move", {"by": -1}),
    "down": ("move", {"by": 1}),
    "hold": ("hold", {}),
    "release": ("release", {}),
    "low": ("priority", {"priority": "low"}),
    "normal": ("priority", {"priority": "normal"}),
    "high": ("priority", {"priority": "high"}),
}
"""What each button asks the API for."""


@router.get("", name="queue")
async def queue(request: Request, backend: Asks) -> HTMLResponse:
    return page(request, "queue.html", {"queue": await backend.queue()})


@router.post("/{job}", name="change_queue")
async def change(request: Request, backend: Asks, job: str) -> Response:
    """One button of a job's row."""
    wish = str((await request.form()).get("do", ""))
    if wish == "cancel":
        await backend.cancel_queued(job)
    elif wish in WISHES:
        await backend.change_queue(job, *WISHES[wish])
    else:
        raise Invalid(f"The queue has no “{wish}”.", "Use the buttons of its page.")
    return RedirectResponse(path_to(request, "queue"), status_code=303)
