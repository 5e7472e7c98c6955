"""Logging in with a token, for twelve hours; logging out; and what somebody is shown who was not let in."""

from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from contracts.doors import COOKIE, Failures, address_of
from contracts.errors import NoToken, Problem, TooLarge
from contracts.origins import Message
from contracts.tokens import OWNER, PREFIX, SESSION_HOURS, Who, is_same, seal_session
from gui.backend import Asks, Backend
from gui.pages import page, path_to
from gui.settings import Settings

router = APIRouter(include_in_schema=False)
LONGEST_FORM = 16_384
"""Bytes."""


def settings_of(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


@router.get("/login", name="login")
async def ask(request: Request, next: str = "") -> Response:
    if not settings_of(request).token:
        return RedirectResponse(path_to(request, "start"), status_code=303)
    return _form(request, next)


@router.post("/login", name="log_in")
async def log_in(request: Request, backend: Asks) -> Response:
    failures: Failures = request.app.state.failures
    address, own, then = address_of(request.scope), settings_of(request).token, ""
    if not own:
        return RedirectResponse(path_to(request, "start"), status_code=303)
    try:
        failures.refuse(address)
        failures.add(address)  # taken back when it is right: what comes at the same time counts too
        form = await _read_form(request)
        then, token = form.get("next", ""), form.get("token", "").strip()
        who = await find_who(backend, own, token, login=True)
        if who is None:
            raise NoToken("This token is not known, or has ended.", "Look whether all of it was copied, or ask for a new one.")
    except Problem as problem:
        return _form(request, then, problem)
    failures.take_back(address)
    answer = RedirectResponse(then if is_own_path(then) else path_to(request, "start"), status_code=303)
    cookie = seal_session(who, own)
    secure = request.url.scheme == "https"
    path = request.scope.get("root_path") or "/"
    answer.set_cookie(COOKIE, cookie, max_age=SESSION_HOURS * 3600, path=path, secure=secure, httponly=True, samesite="strict")
    return answer


@router.post("/logout", name="logout")
async def log_out(request: Request) -> Response:
    answer = RedirectResponse(path_to(request, "login" if settings_of(request).token else "start"), status_code=303)
    answer.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/")
    return answer


async def find_who(backend: Backend, own: str, token: str, login: bool = False) -> Who | None:
    """Whose token this is: the one of the set-up is known here, docker_sdk_api knows the named ones."""
    if is_same(token, own):
        return OWNER
    if not token.startswith(PREFIX) or not token.isascii() or not token.isprintable():
        if login:
            await backend.note_wrong_login()
        return None
    try:
        found = await backend.who(token, login)
    except NoToken:
        return None
    return found if found.id else None  # a docker_sdk_api that asks nobody would take anything for its owner's


def is_own_path(path: str) -> bool:
    """Whether a browser that is sent there stays with these pages."""
    try:
        found = urlsplit(path)
    except ValueError:
        return False
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return plain and path.startswith("/") and not path.startswith("//") and not found.netloc and not found.scheme


def turn_away(scope: Message, problem: Problem) -> Response:
    """Programs are answered as they understand it; people are asked for their token, or told what theirs does not allow."""
    request = Request(scope)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse(problem.as_dict(), problem.status, problem.headers)
    if not isinstance(problem, NoToken):
        return page(request, "problem.html", {"problem": problem}, problem.status)
    here = [("next", f"{request.url.path}{'?' if request.url.query else ''}{request.url.query}")] if request.method == "GET" else []
    answer = RedirectResponse(path_to(request, "login", here), status_code=303)
    if COOKIE in request.cookies:  # who comes from another site sends none, and stays logged in
        answer.delete_cookie(COOKIE, path=scope.get("root_path") or "/")
    return answer


async def _read_form(request: Request) -> dict[str, str]:
    """Of somebody who is not known yet, so that no more is read than a login is long. Raises TooLarge."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            raise TooLarge("This is no login.", "Send the token, and nothing else.")
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _form(request: Request, then: str, problem: Problem | None = None) -> HTMLResponse:
    found = page(request, "login.html", {"next": then if is_own_path(then) else "", "problem": problem}, problem.status if problem else 200)
    found.headers.update(problem.headers if problem else {})
    return found
