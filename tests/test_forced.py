"""What is on the disk before something else relies on it. No test cuts the power, so it is seen what is forced (fsync), and when."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contracts.job_folder import JobFolder
from docker_sdk_api.launchers.mirror import RECORD, Puller, Pusher
from tests.conftest import draw_dataset, wait_for
from tests.test_durable_files import found, saved
from training_api import downloads
from training_api.checkpoints import Checkpoints


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was forced so far, files and folders, in their order; what takes a name or goes in between stands there too."""
    seen: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def force(file: int) -> None:
        fsync(file)
        seen.append(Path(f"/proc/self/fd/{file}").readlink().name)

    def tell(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(path: Path, to: Path) -> Path:
            seen.append(f"-> {to.name}")
            return move(path, to)

        return moved

    monkeypatch.setattr(os, "fsync", force)
    monkeypatch.setattr(Path, "replace", tell(replace))
    monkeypatch.setattr(Path, "rename", tell(rename))
    return seen


class Shelf:
    """A bucket that is a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, content: bytes) -> None:
        self.objects[name] = content

    def put_file(self, name: str, file: Path) -> None:
        self.objects[name] = file.read_bytes()

    def get(self, name: str, start: int = 0) -> bytes:
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name][start:]

    def get_file(self, name: str, place: Path) -> None:
        place.write_bytes(self.get(name))

    def delete(self, names: list[str]) -> None:
        for name in names:
            self.objects.pop(name, None)


def test_an_imported_dataset_is_in_its_place_for_good_before_its_upload_goes(api: TestClient, tmp_path: Path, forced: list[str]):
    source = draw_dataset(tmp_path / "elsewhere" / "boards")
    view = api.post("/v1/imports", json={"folder": str(source), "name": "boards"}).json()
    wait_for(lambda: api.get(f"/v1/imports/{view['id']}").json()["state"] == "finished")
    last = len(forced) - forced[::-1].index("-> boards")
    assert forced[last:].count("datasets") == 1


def test_fetched_weights_are_whole_on_the_disk_before_they_are_found_under_their_name(tmp_path: Path, forced: list[str]):
    source = downloads.Source("some weights", "w.pth", "http://127.0.0.1/w.pth", "")
    part = tmp_path / "w.pth.part"

    def filled(_address: str, place: Path, _tell: object) -> str:
        place.write_bytes(b"weights")
        return downloads.checksum(place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "_download", filled)
        downloads._fetch(source, downloads.Places(tmp_path), lambda *_: None)
    assert not part.exists()
    assert forced.index("w.pth.part") < forced.index("-> w.pth")


def test_what_came_through_a_store_is_on_the_disk_before_it_is_noted(tmp_path: Path, forced: list[str]):
    there, here, shelf = tmp_path / "there", tmp_path / "here", Shelf()
    here.mkdir()
    (there / "model").mkdir(parents=True)
    (there / "model" / "model.json").write_text("{}")
    (there / "events.jsonl").write_text("finished\n")
    (there / "train.log").write_text("a line\n")
    Pusher(shelf, "jobs/m", "grown", there).push()
    Puller(shelf, "jobs/m", "grown", here).pull()
    assert (here / "model" / "model.json").read_text() == "{}"
    assert forced[forced.index("-> model") - 2 : forced.index("-> model")] == ["model.json", "model"]
    assert forced[-2:] == ["here", f"-> {RECORD}"]
    assert "..incoming" in forced, "the events, before they take their place"
    assert json.loads((here / RECORD).read_text())["files"].keys() == {"model/model.json", "events.jsonl", "train.log"}


def test_what_a_killed_training_was_writing_goes_when_it_goes_on(tmp_path: Path, forced: list[str]):
    folder = JobFolder(tmp_path)
    saved(folder, 1, 2)
    for name in (".last.new", ".best.old", ".model.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"half")
    (tmp_path / "best").rename(tmp_path / ".best.new")
    for name in (".split.json.77.1234", "..ballast.77.1234", ".stop.12.3456"):
        (tmp_path / name).write_bytes(b"half")
    forced.clear()
    assert found(folder) == (2, [])
    assert Checkpoints(folder, lambda _: None).has_best()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".stop.12.3456", "before", "best", "last"]
    assert forced[:2] == ["-> best", tmp_path.name]
