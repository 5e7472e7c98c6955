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
from contracts.doors import ASKING
from contracts.tokens import ANYONE, Who
from gui.figures import FILTERS, colour

FOLDER = Path(__file__).parent


def path_to(request: Request, route: str, /, query: Iterable[tuple[str, str]] = (), **params: object) -> str:
    """The path of a route, under the proxy's root path, without a host: right whatever name the machine is reached by.

    A list has hundreds of links, and the framework takes a third of a millisecond to find a route by its name: each is looked for once.
    """
    shapes: dict[tuple[str, ...], str] = request.app.state.shapes
    shape = shapes.get((route, *params))
    if shape is None:
        shape = shapes[(route, *params)] = str(request.app.url_path_for(route, **{name: f"{{{name}}}" for name in params}))
    root = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    path = root + shape.format(**{name: quote(str(value), safe="") for name, value in params.items()})
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


def who_asks() -> Who | None:
    """Who is logged in; None where nobody is asked to, or has yet."""
    asked = ASKING.get()
    return asked.who if asked and asked.who != ANYONE else None


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
    templates.env.globals["who_asks"] = who_asks
    return templates


def page(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A page of the app that the request came to."""
    templates: Jinja2Templates = request.app.state.templates
    return templates.TemplateResponse(request, template, context, status_code=status)
