"""Bringing a dataset: files from the browser or a folder of the machine, the import, and another try with what it asked for.

With JavaScript the browser sends pieces to /uploads, pauses, and goes on past a broken connection; without it, one plain form.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.answers import ImportView
from contracts.errors import Invalid, Problem
from contracts.job import NAME_RULE, is_name
from gui.asking import part
from gui.backend import Asks, Backend
from gui.incoming import read_form
from gui.pages import page, path_to

router = APIRouter(include_in_schema=False)
CHUNK = 8_000_000
"""Bytes that are sent at once: what a broken connection can cost."""
COLOUR = re.compile(r"#?([0-9a-fA-F]{6})|(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})")
RESERVED = "new"
ARCHIVE = re.compile(r"\.(zip|tgz|tbz2|txz|tar(\.(gz|bz2|xz))?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Wish:
    """What is to be imported under which name, and what the files alone do not say; all as typed."""

    name: str = ""
    upload: str = ""
    folder: str = ""
    format: str = ""
    classes: str = ""
    colours: str = ""
    white: str = ""

    def pairs(self, *left_out: str) -> list[tuple[str, str]]:
        words = [(row.name, str(getattr(self, row.name))) for row in fields(self)]
        return [(name, value) for name, value in words if value and name not in left_out]

    def request(self) -> dict[str, Any]:
        """The body of POST /v1/imports. Raises Invalid where something typed cannot be read."""
        source = {"upload": self.upload} if self.upload else {"folder": self.folder}
        choices: dict[str, Any] = {}
        if self.classes:
            choices["classes"] = [line.strip() for line in self.classes.splitlines() if line.strip()]
        if self.colours:
            choices["colours"] = read_colours(self.colours)
        if self.white:
            choices["white"] = self.white
        return {"name": self.name, **source, **({"format": self.format} if self.format else {}), "choices": choices}


def read_wish(words: Mapping[str, str]) -> Wish:
    """From a form or an address; what is not known is passed over."""
    return Wish(**{row.name: words.get(row.name, "").strip() for row in fields(Wish)})


def read_colours(text: str) -> dict[str, str]:
    """Lines such as `#ff0000 crack` or `255 0 0 crack` as {"#ff0000": "crack"}. Raises Invalid, quoting the line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return dict(_read_colour(line) for line in lines)


def _read_colour(line: str) -> tuple[str, str]:
    found = COLOUR.match(line)
    name = line[found.end() :].strip(" \t:=,") if found else ""
    numbers = [int(number) for number in found.groups()[1:] if number] if found else []
    if found is None or not name or any(number > 255 for number in numbers):
        raise Invalid(f"The line “{line}” is not a colour and a class.", "Write lines such as “#ff0000 crack” or “255 0 0 crack”.")
    return "#" + (found[1].lower() if found[1] else bytes(numbers).hex()), name


def name_fault(name: str, taken: set[str]) -> str:
    """Why a dataset cannot have this name; empty where it can."""
    if not is_name(name) or name == RESERVED:
        return NAME_RULE if name != RESERVED else f"“{RESERVED}” is the name of this page: choose another."
    return f"There is a dataset {name} already: choose another name." if name in taken else ""


def propose_name(source: str, taken: set[str]) -> str:
    """A free name from that of a file or folder: Risse (2).zip becomes Risse-2, or Risse-2-2 where that is taken."""
    stem = PurePosixPath(source.replace("\\", "/").rstrip("/")).name
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", ARCHIVE.sub("", stem)).strip("-._")[:56] or "pictures"
    free = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in free if name not in taken and name != RESERVED)


@router.get("/datasets/new", name="new_dataset")
async def choose_files(request: Request, backend: Asks) -> HTMLResponse:
    return await _upload_page(request, backend, read_wish(request.query_params))


@router.post("/datasets/new", name="bring_dataset")
async def bring(request: Request, backend: Asks) -> Response:
    """Takes the whole form, files and all; they are passed on one by one and then forgotten here.

    Whatever is refused after that, the page that says so still knows the upload: nobody sends gigabytes twice.
    """
    wish = Wish()
    try:
        async with read_form(request) as form:
            wish = read_wish(form.fields)
            taken = {row.name for row in await backend.datasets()}
            if form.files:
                wish = replace(_named(wish, form.files[0][0], taken), upload=await send_files(backend, form.files), folder="")
        if not wish.upload and not wish.folder:
            raise Invalid("Nothing was chosen.", "Choose files or a folder, or give the path of a folder on this machine.")
        wish = _named(wish, wish.folder, taken)
        if fault := name_fault(wish.name, taken):
            return await _upload_page(request, backend, wish, fault=fault, status=422)
        started = await backend.start_import(wish.request())
    except Problem as problem:
        return await _upload_page(request, backend, wish, problem=problem, status=problem.status)
    return RedirectResponse(path_to(request, "import", wish.pairs("name"), id=started), status_code=303)


async def send_files(backend: Backend, files: list[tuple[str, Path]]) -> str:
    """The upload that holds these files once all are there. What breaks on the way leaves no upload behind."""
    upload = await backend.start_upload([(name, path.stat().st_size) for name, path in files])
    try:
        for index, (_, path) in enumerate(files):
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    await backend.send_chunk(upload, index, file.tell() - len(chunk), chunk)
            path.unlink()
    except Problem:
        await backend.forget_upload(upload)
        raise
    return upload


@router.get("/imports/{id}", name="import")
async def follow(request: Request, backend: Asks, id: str) -> Response:
    """How far an import is; once it has ended well, its dataset; where it failed, what to tell it and another try."""
    found = await backend.imported(id)
    if found.state == "finished":
        return RedirectResponse(path_to(request, "dataset", [("brought", id)], name=found.name), status_code=303)
    wish = replace(read_wish(request.query_params), name=found.name)
    context = {"found": found, "wish": wish, "formats": await backend.formats(), "asks": what_it_asks(found)}
    return page(request, "dataset_import.html", context)


def what_it_asks(found: ImportView) -> set[str]:
    """Which of the choices the problem speaks of: they are shown open."""
    words = f"{(found.cause or '').partition(' Looked for: ')[0]} {found.cure}".lower()
    signs = {"classes": ("class",), "colours": ("colour",), "white": ("255",), "format": ("format", "recognise")}
    return {choice for choice, parts in signs.items() if any(part in words for part in parts)}


@router.post("/uploads", name="new_upload")
async def new_upload(request: Request, backend: Asks) -> Response:
    return await backend.relay("/v1/uploads", request)


@router.get("/uploads/{id}", name="upload")
@router.delete("/uploads/{id}", name="forget_upload")
async def upload(request: Request, backend: Asks, id: str) -> Response:
    return await backend.relay(f"/v1/uploads/{part(id)}", request)


@router.put("/uploads/{id}/files/{index}", name="upload_chunk")
async def upload_chunk(request: Request, backend: Asks, id: str, index: int) -> Response:
    return await backend.relay(f"/v1/uploads/{part(id)}/files/{index}", request)


def _named(wish: Wish, source: str, taken: set[str]) -> Wish:
    """With a name proposed where none was typed: the folder's that files came in, else the first file's."""
    source = source.split("/")[0] if "/" in source and not source.startswith("/") else source
    return wish if wish.name or not source else replace(wish, name=propose_name(source, taken))


async def _upload_page(
    request: Request, backend: Backend, wish: Wish, problem: Problem | None = None, fault: str = "", status: int = 200
) -> HTMLResponse:
    context = {
        "wish": wish,
        "formats": await backend.formats(),
        "running": [row for row in await backend.imports() if row.state == "running"],
        "taken": [row.name for row in await backend.datasets()],
        "problem": problem,
        "fault": fault,
        "chunk": CHUNK,
    }
    return page(request, "upload.html", context, status)
