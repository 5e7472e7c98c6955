"""Background batches through the front door: a zip or many files in, a zip of answers out, and everything wrong with one said."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.durable import force, write_aside
from inference_api import batch_files, batches
from tests.conftest import wait_for
from tests.served import serve_brightness, served
from tests.service import picture, serve_texture

BATCHES = "/v1/models/brightness/batches"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    serve_brightness(tmp_path)
    return tmp_path


@pytest.fixture
def inference(checkpoints: Path) -> Iterator[TestClient]:
    with served(checkpoints) as client:
        yield client


def packed(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def ended(client: TestClient, identifier: str, seconds: float = 60) -> dict:
    def look() -> dict | None:
        state = client.get(f"/v1/batches/{identifier}").json()
        return state if state["ended"] else None

    return wait_for(look, seconds)


def result(client: TestClient, identifier: str) -> zipfile.ZipFile:
    answer = client.get(f"/v1/batches/{identifier}/result.zip")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_a_zip_is_answered_like_its_pictures_one_by_one_under_their_names(inference: TestClient):
    pictures = {f"{folder}/p{number}.png": picture(number, 40 + number, 60) for number, folder in enumerate("aab")}
    started = inference.post(BATCHES, files={"picture": ("photos.zip", packed(pictures))})
    assert (started.status_code, started.json()["total"]) == (202, 3)
    state = ended(inference, started.json()["id"])
    assert (state["state"], state["done"], state["failures"], state["seconds_left"]) == ("finished", 3, {}, None)
    with result(inference, state["id"]) as answers:
        assert sorted(answers.namelist()) == [*pictures, "segments.json"]
        segments = json.loads(answers.read("segments.json"))
        for name, content in pictures.items():
            asked = {"files": {"picture": (name, content)}}
            assert answers.read(name) == inference.post("/v1/models/brightness/predict", **asked).content
            assert segments[name] == inference.post("/v1/models/brightness/predict?answer=segments", **asked).json()


def test_many_files_with_a_bad_one_and_two_of_one_name_are_answered_but_for_the_bad_one(inference: TestClient):
    content = picture(1, 30, 40)
    sent = [("picture", (name, content if name[0] == "p" else b"no")) for name in ("p.png", "p.jpg", "p.png", "notes.txt")]
    state = ended(inference, inference.post(BATCHES, files=sent).json()["id"])
    assert (state["state"], state["done"], state["total"]) == ("finished", 4, 4)
    assert "cannot be read" in state["failures"]["notes.txt"]["cause"]
    with result(inference, state["id"]) as answers:
        masks = [name for name in answers.namelist() if name.endswith(".png")]
        assert len(set(masks)) == 3
        assert len({answers.read(name) for name in masks}) == 1
        assert json.loads(answers.read("problems.json")) == state["failures"]


@pytest.mark.parametrize("second", ["day1.zip", "day1/p.png"])
def test_nothing_that_came_takes_the_place_of_what_came_before_it_under_the_same_name(inference: TestClient, second: str):
    first, other = picture(1, 30, 40), picture(2, 30, 40)
    sent = [("day1/p.png", first), ("day1.zip", packed({"p.png": other})), ("day1/p-2.png", first)]
    sent += [(second, packed({"p.png": first}) if second.endswith(".zip") else other), ("day1/p-2.png", other)]
    state = ended(inference, inference.post(BATCHES, files=[("picture", file) for file in sent]).json()["id"])
    assert (state["state"], state["done"], state["failures"]) == ("finished", 5, {})
    with result(inference, state["id"]) as answers:
        names = answers.namelist()
        assert len(set(names)) == len(names) == 6
        assert len(json.loads(answers.read("segments.json"))) == 5


def test_a_wish_holds_for_the_whole_batch(inference: TestClient):
    content = picture(1, 30, 40)
    state = ended(inference, inference.post(f"{BATCHES}?answer=overlay&classes=dark", files={"picture": ("p.png", content)}).json()["id"])
    with result(inference, state["id"]) as answers:
        assert np.asarray(Image.open(io.BytesIO(answers.read("p.png")))).shape == (30, 40, 3)
        assert {row["class_name"] for row in json.loads(answers.read("segments.json"))["p.png"]["segments"]} == {"dark"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("evil.zip", packed({"../../outside.png": b"x"}), "leads out"),
        ("cut.zip", packed({"p.png": b"x" * 1000})[:-40], "damaged"),
        ("empty.zip", packed({}), "holds no file"),
        ("inner.zip", packed({"a.zip": packed({"p.png": b"x"})}), "another archive"),
        ("old.rar", b"Rar!\x1a\x07\x00", "RAR"),
        ("../p.png", b"x", "leads out"),
    ],
)
def test_an_unsafe_upload_is_refused_at_once_and_leaves_nothing(
    inference: TestClient, checkpoints: Path, name: str, content: bytes, said: str
):
    answer = inference.post(BATCHES, files={"picture": (name, content)})
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid")
    assert said in answer.json()["cause"]
    assert inference.get("/v1/batches").json() == []
    assert list((checkpoints / ".batches").iterdir()) == []
    assert not list(checkpoints.rglob("outside.png"))


def test_an_unknown_model_and_an_unknown_batch_get_a_sentence(inference: TestClient):
    assert inference.post("/v1/models/nobody/batches", files={"picture": ("p.png", b"x")}).status_code == 404
    for method, path in (("GET", "/v1/batches/x"), ("GET", "/v1/batches/x/result.zip"), ("DELETE", "/v1/batches/..%2F..")):
        assert inference.request(method, path).status_code == 404


def test_a_running_batch_says_how_far_it_is_and_can_be_cancelled(checkpoints: Path):
    serve_texture(checkpoints, "tiles", tile=(64, 64))
    long = [("picture", (f"p{number}.png", picture(0, 3000, 3000, flat=True))) for number in range(2)]
    with served(checkpoints) as client:
        first = client.post("/v1/models/tiles/batches?short_side=4096", files=long).json()
        second = client.post(BATCHES, files={"picture": ("p.png", picture(1, 30, 40))}).json()
        wait_for(lambda: client.get(f"/v1/batches/{first['id']}").json()["state"] == "running")
        early = client.get(f"/v1/batches/{first['id']}/result.zip")
        assert (early.status_code, "0 of 2" in early.json()["cause"]) == (503, True)
        assert client.get(f"/v1/batches/{second['id']}").json()["state"] == "waiting"
        assert client.delete(f"/v1/batches/{first['id']}").status_code == 204
        assert client.get(f"/v1/batches/{first['id']}").status_code == 404
        assert ended(client, second["id"])["state"] == "finished"
        assert [path.name for path in (checkpoints / ".batches").iterdir()] == [second["id"]]


def test_a_batch_that_was_under_way_when_the_service_ended_goes_on_where_it_was(checkpoints: Path):
    serve_texture(checkpoints, "tiles", tile=(64, 64))
    sent = [("picture", ("a.png", picture(1, 30, 40))), ("picture", ("b.png", picture(0, 2000, 2000, flat=True)))]
    with served(checkpoints) as client:
        identifier = client.post("/v1/models/tiles/batches?short_side=4096", files=sent).json()["id"]
        wait_for(lambda: client.get(f"/v1/batches/{identifier}").json()["done"] == 1)
    with served(checkpoints) as client:
        state = ended(client, identifier)
        assert (state["state"], state["done"], state["failures"]) == ("finished", 2, {})
        with result(client, identifier) as answers:
            assert answers.namelist() == ["a.png", "b.png", "segments.json"]


def test_a_batch_whose_model_goes_away_fails_with_the_reason_and_the_next_one_runs(checkpoints: Path):
    gone = serve_texture(checkpoints, "gone") or checkpoints / "gone" / "model" / "model.onnx"
    with served(checkpoints) as client:
        gone.unlink()
        failed = ended(client, client.post("/v1/models/gone/batches", files={"picture": ("p.png", picture(1, 30, 40))}).json()["id"])
        assert (failed["state"], "model.onnx" in failed["cause"], bool(failed["cure"])) == ("failed", True, True)
        assert client.get(f"/v1/batches/{failed['id']}/result.zip").status_code == 503
        state = ended(client, client.post(BATCHES, files={"picture": ("p.png", picture(1, 30, 40))}).json()["id"])
        assert state["state"] == "finished"


def test_old_batches_go_and_room_that_is_used_up_is_said(checkpoints: Path):
    content = {"picture": ("p.png", picture(1, 30, 40))}
    with served(checkpoints) as client:
        kept = ended(client, client.post(BATCHES, files=content).json()["id"])
        old = ended(client, client.post(BATCHES, files=content).json()["id"])
    note = checkpoints / ".batches" / old["id"] / "batch.json"
    old["ended"] = (datetime.now(timezone.utc) - timedelta(hours=73)).isoformat()
    note.write_text(json.dumps(old))
    with served(checkpoints, largest_batches=1) as client:
        answer = client.post(BATCHES, files=content)
        assert (answer.status_code, "LARGEST_BATCHES" in answer.json()["cure"]) == (503, True)
        assert [row["id"] for row in client.get("/v1/batches").json()] == [kept["id"]]
        assert not note.parent.exists()
        client.delete(f"/v1/batches/{kept['id']}")
        assert list((checkpoints / ".batches").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(checkpoints: Path):
    (checkpoints / "file").write_text("no folder")
    with served(checkpoints, batches=checkpoints / "file") as client:
        answer = client.post(BATCHES, files={"picture": ("p.png", picture(1, 30, 40))})
        assert (answer.status_code, "cannot be read or written" in answer.json()["cause"]) == (503, True)


def test_an_old_batch_goes_although_nobody_asks_for_another(checkpoints: Path):
    with served(checkpoints) as client:
        state = ended(client, client.post(BATCHES, files={"picture": ("p.png", picture(1, 30, 40))}).json()["id"])
    note = checkpoints / ".batches" / state["id"] / "batch.json"
    note.write_text(json.dumps({**state, "ended": (datetime.now(timezone.utc) - timedelta(hours=73)).isoformat()}))
    with served(checkpoints):
        wait_for(lambda: not note.parent.exists(), 30)


def test_a_batch_that_another_service_removed_is_forgotten(checkpoints: Path):
    with served(checkpoints) as one, served(checkpoints) as other:
        state = ended(one, one.post(BATCHES, files={"picture": ("p.png", picture(1, 30, 40))}).json()["id"])
        assert len(other.get("/v1/batches").json()) == 1
        one.delete(f"/v1/batches/{state['id']}")
        assert other.get("/v1/batches").json() == []
        assert other.app.state.batches._ended == {}


def test_what_a_batch_has_answered_is_on_the_disk_before_it_says_so(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    forced: list[str] = []
    noted: list[int] = []

    def force_and_tell(path: Path) -> None:
        force(path)
        forced.append(path.name)
        there = [(folder / "pictures").is_dir() for folder in (checkpoints / ".batches").glob("[0-9a-f]*")]
        assert there == [True], "what it was made from goes later"

    def note(path: Path, content: str) -> None:
        state = json.loads(content)
        assert {f"{number}.{kind}" for number in range(state["done"]) for kind in ("png", "json")} <= {*forced} or state["ended"]
        noted.append(state["done"])
        write_aside(path, content)

    monkeypatch.setattr(batch_files, "force", force_and_tell)
    monkeypatch.setattr(batches, "write_aside", note)
    monkeypatch.setattr(batches, "WRITTEN_EVERY", 0.001)
    sent = [("picture", (f"p{number}.png", picture(number, 30, 40))) for number in range(5)]
    with served(checkpoints) as client:
        state = ended(client, client.post(BATCHES, files=sent).json()["id"])
        assert state["state"] == "finished"
    assert forced[-2:] == [".result.zip", state["id"]]
    assert noted[-1] == 5
    assert max(noted[:-1]) > 1, "it noted how far it was on the way"
