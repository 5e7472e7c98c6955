"""Imports through the front door: uploads and folders on the machine become datasets, all or nothing."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings
from docker_sdk_api.uploads import held
from tests.conftest import draw_dataset, wait_for
from tests.test_uploads import announce, received, send


def bring(api: TestClient, **wish: object) -> dict:
    """Import, and wait for its end: the ImportView as JSON."""
    answer = api.post("/v1/imports", json={"name": "plates", **wish})
    assert answer.status_code == 202, answer.text
    return wait_for(lambda: (view := api.get(f"/v1/imports/{answer.json()['id']}").json())["state"] != "running" and view)


def upload(api: TestClient, files: dict[str, bytes]) -> str:
    id = announce(api, *((name, len(content)) for name, content in files.items()))
    for index, content in enumerate(files.values()):
        send(api, id, content, index=index)
    return id


def below(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def as_zip(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def as_tar(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return memory.getvalue()


def hidden(settings: Settings) -> list[str]:
    """What lies in the datasets folder and is no dataset: files below uploads, imports and the like."""
    return [str(path) for path in settings.datasets.rglob("*") if path.relative_to(settings.datasets).parts[0][0] == "." and path.is_file()]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A sound dataset outside of the datasets folder."""
    return draw_dataset(tmp_path / "elsewhere" / "mine")


def is_there(api: TestClient, settings: Settings, drawn: Path) -> None:
    """The dataset came whole: sound, and its pictures unchanged."""
    assert [(row["name"], row["pictures"], row["error"]) for row in api.get("/v1/datasets").json()] == [("plates", 6, None)]
    came = below(settings.datasets / "plates" / "images")
    assert came == below(drawn / "images")


@pytest.mark.parametrize("pack", [as_zip, as_tar])
@pytest.mark.parametrize("prefix", ["", "mine/", "mine/and/"])
def test_an_uploaded_archive_becomes_a_dataset(api: TestClient, settings: Settings, drawn: Path, pack, prefix: str):
    id = upload(api, {"mine.archive.zip": pack(below(drawn, prefix))})
    view = bring(api, upload=id)
    assert view["state"] == "finished", view
    assert view["format"]
    is_there(api, settings, drawn)
    assert hidden(settings) == []
    assert api.get(f"/v1/uploads/{id}").status_code == 404
    assert api.get("/v1/imports").json()[0]["id"] == view["id"]


def test_an_uploaded_folder_becomes_a_dataset(api: TestClient, settings: Settings, drawn: Path):
    files = {**below(drawn, "mine/"), "mine/.DS_Store": b"x", "mine/images/Thumbs.db": b"x", "mine/images/._p0.png": b"x"}
    view = bring(api, upload=upload(api, files), choices=None)
    assert view["state"] == "finished", view
    is_there(api, settings, drawn)
    assert hidden(settings) == []


def test_several_archives_and_a_file_beside_them_become_one_dataset(api: TestClient, settings: Settings, drawn: Path):
    parts = {f"{name}.zip": as_zip(below(drawn / name)) for name in ("images", "labels")}
    parts["objectclasses.json"] = (drawn / "objectclasses.json").read_bytes()
    view = bring(api, upload=upload(api, parts))
    assert view["state"] == "finished", view
    is_there(api, settings, drawn)


def test_a_folder_on_the_machine_becomes_a_dataset_and_stays_as_it_is(api: TestClient, settings: Settings, drawn: Path):
    before = below(drawn)
    view = bring(api, folder=str(drawn))
    assert view["state"] == "finished", view
    is_there(api, settings, drawn)
    assert below(drawn) == before
    assert hidden(settings) == []


def test_an_archive_on_the_machine_becomes_a_dataset(api: TestClient, settings: Settings, drawn: Path, tmp_path: Path):
    (tmp_path / "mine.zip").write_bytes(as_zip(below(drawn)))
    view = bring(api, folder=str(tmp_path / "mine.zip"))
    assert view["state"] == "finished", view
    is_there(api, settings, drawn)


def test_a_failed_import_says_why_leaves_nothing_and_keeps_the_upload(api: TestClient, settings: Settings, drawn: Path):
    files = below(drawn)
    files["labels/p0.png"] = b"no picture"
    content = as_zip(files)
    id = upload(api, {"mine.zip": content})
    view = bring(api, upload=id)
    assert view["state"] == "failed", view
    assert "p0" in view["cause"]
    assert view["cure"]
    assert api.get("/v1/datasets").json() == []
    assert len(hidden(settings)) == 2  # the upload and its record
    assert received(api, id) == [len(content)]
    assert api.delete(f"/v1/uploads/{id}").status_code == 204
    assert hidden(settings) == []


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (as_zip({"../../../outside.txt": b"!"}), "leads out"),
        (as_zip({"notes.txt": b"no pictures"}), "mine"),
        (b"PK\x03\x04 and then nothing", "damaged"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ],
)
def test_a_hostile_or_empty_archive_fails_with_its_cause(api: TestClient, settings: Settings, content: bytes, word: str):
    view = bring(api, upload=upload(api, {"mine.zip": content}))
    assert view["state"] == "failed", view
    assert word in view["cause"]
    assert view["cure"]
    assert api.get("/v1/datasets").json() == []
    assert list((settings.datasets / ".imports").iterdir()) == []
    assert not (settings.datasets / "outside.txt").exists()


def test_an_archive_that_unpacks_to_too_much_fails_with_the_limit(settings: Settings):
    with TestClient(create_app(settings.model_copy(update={"largest_unpacked": 1000}))) as api:
        view = bring(api, upload=upload(api, {"mine.zip": as_zip({"a.png": bytes(1001)})}))
        assert "unpacks to more than" in view["cause"]


def refused(api: TestClient, status: int, word: str, **wish: object) -> None:
    answer = api.post("/v1/imports", json={"name": "plates", **wish})
    assert answer.status_code == status, answer.text
    assert word in answer.json()["cause"] + answer.json()["cure"], answer.text
    assert answer.json()["cure"]
    assert api.get("/v1/imports").json() == []


@pytest.mark.parametrize("folder", ["/", "/etc", "/proc/self", "/usr/share", "/home", "/tmp", "/sys", "/var", "/../etc", "/tmp/../dev"])
def test_a_folder_of_the_system_is_refused(api: TestClient, folder: str):
    refused(api, 400, "is a folder of the system", folder=folder)


def test_a_link_to_a_folder_of_the_system_is_refused(api: TestClient, tmp_path: Path):
    (tmp_path / "link").symlink_to("/etc")
    refused(api, 400, "is a folder of the system", folder=str(tmp_path / "link"))


def test_a_folder_that_is_no_source_is_refused(api: TestClient, settings: Settings, dataset: Path, tmp_path: Path):
    (tmp_path / "letter.txt").write_text("no archive")
    refused(api, 400, "lies in the datasets folder already", folder=str(dataset), name="again")
    refused(api, 400, "lies in the datasets folder already", folder=str(settings.datasets), name="again")
    refused(api, 400, "holds the datasets folder itself", folder=str(tmp_path), name="again")
    refused(api, 400, "There is no folder", folder=str(tmp_path / "nowhere"), name="again")
    refused(api, 400, "neither a folder nor an archive", folder=str(tmp_path / "letter.txt"), name="again")
    for folder in ("plates", "", "../plates", "~", "/a\0b"):
        refused(api, 400, "no absolute path", folder=folder, name="again")


def test_a_request_that_makes_no_sense_is_refused(api: TestClient, drawn: Path):
    refused(api, 400, "Give one of")
    refused(api, 400, "Give one of", folder=str(drawn), upload="0" * 16)
    refused(api, 404, "There is no upload", upload="0" * 16)
    refused(api, 404, "There is no upload", upload="../../etc")
    refused(api, 400, "The formats are", folder=str(drawn), format="jpeg2000")
    refused(api, 400, "the choices are", folder=str(drawn), choices={"color": {}})
    refused(api, 400, "choices", folder=str(drawn), choices={"white": "purple"})
    for name in ("", "../up", "a/b", ".hidden", "ä", "x" * 65):
        refused(api, 400, "name", folder=str(drawn), name=name)
    assert api.get("/v1/imports/unknown").status_code == 404


def test_a_name_that_is_taken_is_refused(api: TestClient, dataset: Path, drawn: Path):
    before = below(dataset)
    refused(api, 409, "already a dataset “plates”", folder=str(drawn))
    assert below(dataset) == before


def test_an_upload_with_bytes_missing_is_refused(api: TestClient):
    id = announce(api, ("a.zip", 3), ("b.zip", 3))
    send(api, id, b"123", index=1)
    refused(api, 400, "a.zip", upload=id)


def test_of_two_imports_to_one_name_the_second_is_refused_and_an_upload_in_use_is_kept(api: TestClient, drawn: Path):
    id = upload(api, {"mine.zip": as_zip(below(drawn))})
    with api.app.state.imports._working:  # another import is at work, so these wait
        first = api.post("/v1/imports", json={"name": "plates", "upload": id})
        assert first.json()["state"] == "running"
        assert api.post("/v1/imports", json={"name": "plates", "folder": str(drawn)}).status_code == 409
        assert api.post("/v1/imports", json={"name": "other", "upload": id}).status_code == 409
        assert api.delete(f"/v1/uploads/{id}").status_code == 409
    wait_for(lambda: api.get(f"/v1/imports/{first.json()['id']}").json()["state"] == "finished")


def test_a_restart_removes_what_a_dead_import_left_and_nothing_that_lives(api: TestClient, settings: Settings, dataset: Path):
    half = settings.datasets / ".imports" / "0123456789abcdef" / "plates" / "images"
    half.mkdir(parents=True)
    (half / "a.png").write_bytes(b"half")
    alive = settings.datasets / ".imports" / "fedcba9876543210"
    alive.mkdir()
    before = below(dataset)
    with held(alive), TestClient(create_app(settings)) as again:
        assert [row["name"] for row in again.get("/v1/datasets").json()] == ["plates"]
        assert list((settings.datasets / ".imports").iterdir()) == [alive]
    create_app(settings)
    assert list((settings.datasets / ".imports").iterdir()) == []
    assert below(dataset) == before


def test_the_formats_are_listed_with_their_names(api: TestClient):
    rows = api.get("/v1/formats").json()
    assert len(rows) >= 10
    assert all(set(row) == {"format", "name"} and row["name"] for row in rows)
