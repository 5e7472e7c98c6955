"""The templates, and what every one of them can use: links, figures, class colours."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined, pass_context
from jinja2.runtime import Context

from annotations.colours import class_colours
from gui.figures import FILTERS, colour

FOLDER = Path(__file__).parent


def path_to(request: Request, route: str, /, query: Iterable[tuple[str, str]] = (), **params: object) -> str:
    """The path of a route, under the proxy's root path, without a host: right whatever name the machine is reached by."""
    quoted = {key: quote(str(value), safe="") for key, value in params.items()}
    path = request.url_for(route, **quoted).path
    words = urlencode(list(query))
    return f"{path}?{words}" if words else path


@pass_context
def link(context: Context, route: str, /, query: Iterable[tuple[str, str]] = (), **params: object) -> str:
    return path_to(context["request"], route, query, **params)


@pass_context
def here_is(context: Context, routes: Sequence[str]) -> bool:
    """Whether the page that is shown belongs to one of these routes."""
    route = context["request"].scope.get("route")
    return getattr(route, "name", "") in routes


def classes_in_colour(names: Sequence[str]) -> list[dict[str, str]]:
    """Name and colour of each class; class 0, the background, is left bare."""
    colours = class_colours(len(names))
    return [{"name": name, "colour": colour(rgb) if index else ""} for index, (name, rgb) in enumerate(zip(names, colours, strict=True))]


def build_templates() -> Jinja2Templates:
    templates = Jinja2Templates(FOLDER / "templates")
    templates.env.undefined = StrictUndefined
    templates.env.trim_blocks = templates.env.lstrip_blocks = True
    templates.env.filters |= FILTERS
    templates.env.filters["in_colour"] = classes_in_colour
    templates.env.globals["link"] = link
    templates.env.globals["here_is"] = here_is
    return templates


def page(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A page of the app that the request came to."""
    templates: Jinja2Templates = request.app.state.templates
    return templates.TemplateResponse(request, template, context, status_code=status)
