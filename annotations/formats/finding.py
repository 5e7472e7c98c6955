"""Finding the files that an annotation names, and annotation files by what is in them; never outside the folder that was brought."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from annotations.dataset import PICTURE_ENDINGS
from annotations.formats.pairs import side_of
from annotations.formats.reading import naming, shown
from annotations.formats.source import Side
from contracts.errors import Invalid

LOOKED_AT = 20
"""How many files are opened to recognise a format."""


def json_files(folder: Path) -> list[Path]:
    """Every JSON file in a folder and below, but hidden ones, in the order of their paths."""
    return _files(folder, {".json"})


def mentions(file: Path, *keys: str) -> bool:
    """Whether a JSON file seems to hold all these keys, without reading it as JSON."""
    with naming(shown(file)):
        content = file.read_bytes()
    return all(f'"{key}"'.encode() in content for key in keys)


def any_mentions(folder: Path, *keys: str) -> bool:
    """Whether one of the first JSON files of a folder does."""
    return any(mentions(file, *keys) for file in json_files(folder)[:LOOKED_AT])


class PictureIndex:
    """The pictures of a folder and all below, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        self._by_folder: dict[Path, list[Path]] = {}
        for file in _files(root, PICTURE_ENDINGS):
            self._by_folder.setdefault(file.parent, []).append(file)
            self._by_name.setdefault(file.name, []).append(file)
            self._by_stem.setdefault(file.stem, []).append(file)

    def find(self, name: str, near: Path, side: Side | None = None) -> Path | None:
        """The picture that `name` means, a path beside the file `near` or anywhere here; None where there is none.

        Raises Invalid where several have that name and neither its folders nor its side say which.
        """
        tail = PurePosixPath(PureWindowsPath(name).as_posix()) if "\\" in name else PurePosixPath(name)
        beside = near.parent / tail
        if beside.is_file() and beside.resolve().is_relative_to(self.root):
            return beside
        candidates = self._by_name.get(tail.name, [])
        for narrowed in (
            [file for file in candidates if file.as_posix().endswith(f"/{tail}")],
            [file for file in candidates if side is not None and side_of(file, self.root) == side],
        ):
            candidates = narrowed or candidates
        if len(candidates) > 1:
            twins = " and ".join(shown(file) for file in candidates[:2])
            raise Invalid(
                f"{shown(near)} names the picture {name}, but {twins} both have that name.", "Rename one of them, with its labels."
            )
        return candidates[0] if candidates else None

    def beside(self, file: Path) -> list[Path]:
        """The pictures in the folder of a file."""
        return self._by_folder.get(file.parent, [])

    def of_stem(self, stem: str) -> Path | None:
        """The picture of this name, whatever its ending; None where there is none or more than one."""
        found = self._by_stem.get(stem, [])
        return found[0] if len(found) == 1 else None


def _files(folder: Path, endings: set[str]) -> list[Path]:
    files = (path for path in folder.resolve().rglob("*") if path.suffix.lower() in endings and path.is_file())
    return sorted(
        path for path in files if not any(part[0] == "." or part == "__MACOSX" for part in path.relative_to(folder.resolve()).parts)
    )
