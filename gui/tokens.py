"""The named tokens: who else may come in, how far and for how long. A new one is shown once."""

import math

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.errors import Invalid, Problem
from contracts.tokens import SCOPES, NewToken
from gui.backend import Asks, Backend
from gui.pages import page, path_to

router = APIRouter(prefix="/machine/tokens", include_in_schema=False)
ABOUT = {
    "read": "Looks at everything.",
    "infer": "Also asks models what they see.",
    "train": "Also brings datasets, starts and stops trainings, deletes what can be brought back.",
    "admin": "Also makes tokens, deletes for good, tests the machine.",
}


@router.get("", name="tokens")
async def tokens(request: Request, backend: Asks) -> HTMLResponse:
    return await _page(request, backend)


@router.post("", name="make_token")
async def make(request: Request, backend: Asks) -> HTMLResponse:
    form = {name: str(value).strip() for name, value in (await request.form()).items()}
    try:
        made = await backend.make_token(form.get("name", ""), form.get("scope", ""), _days(form.get("days", "")))
    except Problem as problem:
        return await _page(request, backend, problem=problem, form=form)
    return await _page(request, backend, made)


@router.post("/{name}/revoke", name="revoke_token")
async def revoke(request: Request, backend: Asks, name: str) -> Response:
    await backend.revoke_token(name)
    return RedirectResponse(path_to(request, "tokens"), status_code=303)


def _days(text: str) -> float | None:
    try:
        days = float(text) if text else None
    except ValueError:
        days = math.nan
    if days is not None and not math.isfinite(days):
        raise Invalid(f"“{text}” is no number of days.", "Give a number, or nothing for a token that never ends.")
    return days


async def _page(
    request: Request, backend: Backend, made: NewToken | None = None, problem: Problem | None = None, form: dict[str, str] | None = None
) -> HTMLResponse:
    rows = await backend.tokens()
    words = {"name": "", "scope": "infer", "days": "90", **(form or {})}
    asked = bool(request.app.state.settings.token)
    scopes = [(row, ABOUT[row]) for row in SCOPES]
    context = {"rows": rows, "made": made, "problem": problem, "form": words, "scopes": scopes, "asked": asked}
    return page(request, "tokens.html", context, problem.status if problem else 200)
