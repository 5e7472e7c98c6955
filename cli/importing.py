"""Bring labelled pictures into the datasets folder: a folder or an archive, of any known format."""

import tempfile
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from annotations.archives import Limits, is_archive, unpack
from annotations.formats import FORMATS, Choices, Source
from annotations.importing import import_dataset
from contracts.errors import Invalid, NotFound, Taken
from contracts.job import NAME_RULE, is_name
from docker_sdk_api.settings import Settings


def import_source(source: Path, name: str, format: str | None, choices: Choices, console: Console) -> Source:
    """Write the dataset `name`. Raises Problem with the cure; then nothing of it is left."""
    datasets = Settings().datasets
    if not is_name(name):
        raise Invalid(f"A dataset cannot be named “{name}”.", NAME_RULE)
    if (datasets / name).exists():
        raise Taken(f"There is a dataset {name} already.", "Choose another name, or remove it first.")
    if not source.exists():
        raise NotFound(f"There is no {source}.", "Give a folder or an archive.")
    datasets.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Unpacked beside the datasets, where there is room for them; hidden, so that nobody takes it for one.
    with Progress(*columns, console=console, transient=True) as bar, tempfile.TemporaryDirectory(prefix=".import-", dir=datasets) as work:
        folder = _unpacked(source, Path(work), bar) if source.is_file() else source
        task = bar.add_task("reading", total=None)
        return import_dataset(folder, datasets / name, format, choices, lambda done, total: bar.update(task, completed=done, total=total))


def _unpacked(archive: Path, work: Path, bar: Progress) -> Path:
    if not is_archive(archive):
        raise Invalid(f"{archive.name} is neither a folder nor an archive.", "Give a folder, a .zip or a .tar.gz.")
    folder = work / archive.name.split(".")[0]
    task = bar.add_task("unpacking", total=None)
    unpack(archive, folder, Limits(), lambda done, total: bar.update(task, completed=done, total=total))
    return folder


def read_choices(classes: str, colours: list[str], white: Literal["foreground", "ignore"] | None) -> Choices:
    """Choices as they are typed: classes between commas, colours as #ff0000=crack."""
    names = [name.strip() for name in classes.split(",") if name.strip()]
    table = {}
    for pair in colours:
        colour, equals, name = pair.partition("=")
        if not equals or not name.strip():
            raise Invalid(f"--colour {pair} names no class.", "Write it as --colour '#ff0000=crack'.")
        table[colour] = name.strip()
    return Choices(classes=names or None, colours=table or None, white=white)


def sentences(source: Source, name: str) -> list[str]:
    """What to tell of an import."""
    told = f"{name}: {len(source.items)} pictures, {len(source.classes)} classes ({', '.join(source.classes)})"
    return [f"Recognised: {FORMATS[source.format].NAME}", *source.notes, told]
