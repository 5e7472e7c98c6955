"""Datasets: what there is, and for each one its pictures under their masks, what is wrong with it, its classes, its split."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotations.doctor.cure_table import TITLES as CURES
from annotations.doctor.findings import PairView
from contracts.errors import Invalid, NotFound
from gui.answers import Checking, DatasetReport
from gui.backend import Asks, Backend, dataset_path
from gui.findings import finding_choices, group_findings
from gui.pages import page, path_to

router = APIRouter(include_in_schema=False)
PER_PAGE = 48


@dataclass(frozen=True)
class Shares:
    """How a split would be drawn, as typed: validation and test in per cent."""

    validation: str = "20"
    test: str = "0"
    seed: str = "0"

    def numbers(self) -> tuple[float, int, float]:
        """Validation share, seed, test share. Raises Invalid where one is no number."""
        try:
            return float(self.validation) / 100, int(self.seed), float(self.test) / 100
        except ValueError:
            raise Invalid("The split cannot be drawn so.", "Give shares between 0 and 99 % and a whole number as seed.") from None


@dataclass(frozen=True)
class Filter:
    """Which pictures of a dataset are looked at: those that show a class (its id), have a finding (its code), lie on a side."""

    shows: Annotated[str, Query(alias="class")] = ""
    finding: Annotated[str, Query()] = ""
    side: Annotated[str, Query()] = ""

    def pairs(self) -> list[tuple[str, str]]:
        words = (("class", self.shows), ("finding", self.finding), ("side", self.side))
        return [(name, value) for name, value in words if value]

    def __call__(self, rows: list[PairView], sides: dict[str, str]) -> list[PairView]:
        return [
            row
            for row in rows
            if (not self.shows or self.shows in map(str, row.classes))
            and (not self.finding or self.finding in row.findings)
            and (not self.side or sides.get(row.stem) == self.side)
        ]


Filtered = Annotated[Filter, Depends(Filter)]


@router.get("/datasets", name="datasets")
async def datasets(request: Request, backend: Asks) -> HTMLResponse:
    return page(request, "datasets.html", {"datasets": await backend.datasets()})


@router.get("/datasets/{name}", name="dataset")
async def dataset(
    request: Request, backend: Asks, name: str, chosen: Filtered, shares: Annotated[Shares, Depends(Shares)], start: int = 0
) -> HTMLResponse:
    found = await backend.checked(name)
    if isinstance(found, Checking):
        return page(request, "dataset_checking.html", {"name": name, "checking": found})
    split = await split_of(backend, found, shares)
    sides = {stem: side for side, stems in split.items() for stem in stems}
    rows = await backend.pictures(name) if found.stems else []
    kept = chosen(rows, sides)
    start = max(0, min(start, len(kept) - 1)) // PER_PAGE * PER_PAGE
    context = {
        "report": found,
        "name": name,
        "rows": rows,
        "kept": len(kept),
        "shown": kept[start : start + PER_PAGE],
        "first": start,
        "earlier": start - PER_PAGE if start else None,
        "later": start + PER_PAGE if start + PER_PAGE < len(kept) else None,
        "filter": chosen,
        "codes": finding_choices(rows),
        "groups": group_findings(found),
        "stems": {f"{place}/{row.stem}" for row in rows for place in ("images", "labels")},
        "classes": class_rows(found),
        "sides": sides,
        "split": split,
        "shares": shares,
        "said": dict(request.query_params),
        "brought": await _brought(backend, request.query_params.get("brought", "")),
    }
    return page(request, "dataset.html", context)


@router.get("/datasets/{name}/pictures/{stem}", name="picture")
async def picture(request: Request, backend: Asks, name: str, stem: str, chosen: Filtered) -> HTMLResponse:
    """One picture at a time, under its mask, with the way to its neighbours among those looked at."""
    report = await backend.dataset(name)
    rows = {row.stem: row for row in await backend.pictures(name)} if stem in report.stems else {}
    if stem not in rows:
        raise NotFound(f"The dataset {name} has no picture {stem}.", "Open the dataset again: it has changed since.")
    split = await split_of(backend, report, Shares()) if chosen.side else {}
    sides = {other: side for side, stems in split.items() for other in stems}
    stems = [row.stem for row in chosen(list(rows.values()), sides)]
    stems = stems if stem in stems else report.stems
    place = stems.index(stem)
    context = {
        "report": report,
        "name": name,
        "row": rows[stem],
        "findings": [finding for finding in report.findings if PurePosixPath(finding.file).stem == stem and "/" in finding.file],
        "places": [finding.place for finding in report.findings if finding.place and PurePosixPath(finding.file).stem == stem],
        "offers": {offer.code: offer for offer in report.cures},
        "place": place,
        "count_all": len(stems),
        "before": stems[place - 1] if place else None,
        "after": stems[place + 1] if place + 1 < len(stems) else None,
        "filter": chosen,
    }
    return page(request, "picture.html", context)


@router.get("/datasets/{name}/overlays/{stem}", name="overlay")
async def overlay(request: Request, backend: Asks, name: str, stem: str) -> Response:
    return await backend.pass_on(dataset_path(name, "overlays", stem), params=dict(request.query_params))


@router.get("/datasets/{name}/augmented", name="augmented")
async def augmented(request: Request, backend: Asks, name: str) -> Response:
    """A contact sheet of crops as a training with the settings in the address would be taught."""
    return await backend.pass_on(dataset_path(name, "augmented"), params=dict(request.query_params))


@router.get("/datasets/{name}/report.json", name="dataset_report")
async def report(backend: Asks, name: str) -> Response:
    return await backend.pass_on(dataset_path(name, "report.json"))


@router.get("/datasets/{name}/cures/{code}", name="cure")
async def preview_cure(request: Request, backend: Asks, name: str, code: str) -> HTMLResponse:
    """Exactly what a cure would change, before it changes anything."""
    context = {"name": name, "code": code, "title": CURES.get(code, code), "changes": await backend.preview_cure(name, code)}
    return page(request, "dataset_cure.html", context)


@router.post("/datasets/{name}/cures/{code}", name="apply_cure")
async def apply_cure(request: Request, backend: Asks, name: str, code: str) -> Response:
    undo = await backend.apply_cure(name, code)
    return RedirectResponse(path_to(request, "dataset", [("undo", undo)], name=name), status_code=303)


@router.post("/datasets/{name}/undo/{undo}", name="undo_cure")
async def undo_cure(request: Request, backend: Asks, name: str, undo: str) -> Response:
    await backend.undo_cure(name, undo)
    return RedirectResponse(path_to(request, "dataset", [("undone", "yes")], name=name), status_code=303)


@router.post("/datasets/{name}/split", name="store_split")
async def store_split(request: Request, backend: Asks, name: str) -> Response:
    """Keep a split with the dataset, or, where none is given, let every training draw its own again."""
    form = await request.form()
    typed = {key: str(form[key]) for key in ("validation", "test", "seed") if key in form}
    if typed:
        await backend.store_split(name, *Shares(**typed).numbers())
    else:
        await backend.forget_split(name)
    return RedirectResponse(path_to(request, "dataset", name=name) + "#h-split", status_code=303)


async def _brought(backend: Backend, id: str) -> dict[str, Any] | None:
    """What the import that made the dataset says of it: its format's name and its notes. None where it is forgotten."""
    if not id:
        return None
    try:
        found = await backend.imported(id)
    except NotFound:
        return None
    return {"notes": found.notes, "format": {row.format: row.name for row in await backend.formats()}.get(found.format or "", found.format)}


async def split_of(backend: Backend, report: DatasetReport, shares: Shares) -> dict[str, list[str]]:
    """Stems by side: as they lie with the dataset, else as a job with these shares and seed would have them; {} where it cannot."""
    if report.split:
        return {side: stems for side, stems in report.split.sides().items() if stems}
    try:
        found = await backend.split(report.dataset, *shares.numbers())
    except Invalid:
        return {}
    return {side: stems for side, stems in found.items() if stems}


def class_rows(report: DatasetReport) -> list[dict[str, Any]]:
    """Each class: pictures that show it and its share of the pixels that are not ignored."""
    total = sum(report.class_pixels) or 1
    return [
        {"name": name, "pictures": pictures, "pixels": pixels, "share": pixels / total}
        for name, pictures, pixels in zip(report.classes, report.class_pictures, report.class_pixels, strict=True)
    ]
