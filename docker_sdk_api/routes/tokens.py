"""/v1/tokens: named tokens made, listed and revoked; /v1/who and /v1/login: whose token this is; /v1/audit: who did what."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from contracts.audit import Audit
from contracts.doors import ASKING
from contracts.tokens import ANYONE, NamedToken, NewToken, Scope, Tokens, Who

routes = APIRouter(prefix="/v1", tags=["tokens"])


class TokenRequest(BaseModel):
    """`days`: after so many it opens nothing any more; none: it never ends."""

    name: str = Field(max_length=64)
    scope: Scope = "read"
    days: float | None = None


def _tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


@routes.get("/tokens")
def list_tokens(request: Request) -> list[NamedToken]:
    """Every named token, in the order in which they were made; those that have ended too."""
    return _tokens(request).all()


@routes.post("/tokens", status_code=201)
def make(request: Request, wish: TokenRequest) -> NewToken:
    """A new token. It is said in this answer and never again."""
    return _tokens(request).make(wish.name, wish.scope, wish.days)


@routes.delete("/tokens/{name}", status_code=204)
def revoke(request: Request, name: str) -> Response:
    """It opens nothing from now on, and the sessions that began with it end."""
    _tokens(request).revoke(name)
    return Response(status_code=204)


@routes.get("/who")
def who() -> Who:
    """Who asks, and how far that one may go."""
    asking = ASKING.get()
    return (asking and asking.who) or ANYONE


@routes.post("/login")
def login() -> Who:
    """The same, for a login that is to be written down."""
    return who()


@routes.get("/audit")
def audit(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
    """The last changes and refusals, newest first: who, method, path, status, request id.

    Among them who asked which model about how many pictures: a line for each token, model and status in a minute.
    """
    logs: tuple[Audit, Audit] = (request.app.state.audit, request.app.state.predictions)
    rows = [row for log in logs for row in log.last(limit)]
    return sorted(rows, key=lambda row: str(row.get("at")), reverse=True)[:limit]
