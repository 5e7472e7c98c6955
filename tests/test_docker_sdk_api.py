"""docker_sdk_api through its front door: jobs run, and bad input gets a clear error and loses nothing."""

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.job_folder import JobFolder
from docker_sdk_api.app import create_app
from docker_sdk_api.logs import LineReader, tail
from docker_sdk_api.settings import Settings
from tests.conftest import draw_dataset, ended, run_job, wait_for

MAJORITY = {"engine": "majority", "network": "majority", "backbone": "none"}


def refused(api: TestClient, status: int, word: str, **wish: object) -> None:
    before = sorted(path.name for path in Path(api.app.state.settings.checkpoints).iterdir())
    answer = api.post("/v1/jobs", json={**MAJORITY, "name": "job", "dataset": "plates", **wish})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert word in body["cause"] + body["cure"], body
    assert body["cure"]
    assert sorted(path.name for path in Path(api.app.state.settings.checkpoints).iterdir()) == before


def test_a_job_runs_to_a_model_that_can_be_downloaded(api: TestClient, dataset: Path):
    view = run_job(api, name="first", dataset="plates")
    assert view["status"]["state"] == "finished", view
    assert [model["name"] for model in api.get("/v1/models").json()] == ["first"]
    archive = zipfile.ZipFile(io.BytesIO(api.get("/v1/models/first/download").content))
    assert archive.testzip() is None
    assert json.loads(archive.read("model.json"))["classes"] == ["background", "pad", "circle"]
    assert len(archive.read("palette.txt").split()) == 768
    assert json.loads(archive.read("configuration.json"))["num_classes"] == 3


def test_a_dataset_without_labels_is_refused(api: TestClient, dataset: Path):
    (dataset / "labels").rename(dataset / "masks")
    refused(api, 400, "no folder labels/")


def test_a_mask_of_another_size_is_refused(api: TestClient, dataset: Path):
    Image.new("L", (9, 9)).save(dataset / "labels" / "p0.png")
    refused(api, 400, "labels/p0.png")


def test_a_mask_value_beyond_the_classes_is_refused(api: TestClient, dataset: Path):
    Image.new("L", (64, 48), 77).save(dataset / "labels" / "p0.png")
    refused(api, 400, "the value 77")


def test_a_truncated_png_is_refused(api: TestClient, dataset: Path):
    file = dataset / "images" / "p5.png"
    file.write_bytes(file.read_bytes()[:100])
    refused(api, 400, "images/p5.png")


def test_two_pictures_of_one_stem_are_refused(api: TestClient, dataset: Path):
    Image.new("RGB", (64, 48)).save(dataset / "images" / "p0.jpg")
    refused(api, 400, "Shares its name")


def test_a_job_name_that_is_taken_is_refused_and_the_first_job_stays(api: TestClient, dataset: Path):
    run_job(api, name="twice", dataset="plates")
    refused(api, 409, "already a job named “twice”", name="twice")
    assert api.get("/v1/models/twice").status_code == 200


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "ä", "x" * 65, "a b"])
def test_a_job_name_that_is_no_name_is_refused(api: TestClient, dataset: Path, name: str):
    refused(api, 400, "name", name=name)


def test_an_unknown_network_is_refused_with_the_known_ones(api: TestClient, dataset: Path):
    refused(api, 400, "unet", engine="pytorch", network="alexnet", backbone="resnet18")


def test_an_unknown_dataset_is_refused_with_the_known_ones(api: TestClient, dataset: Path):
    refused(api, 404, "plates", dataset="plate")


def test_a_setting_out_of_range_is_refused(api: TestClient, dataset: Path):
    refused(api, 400, "epochs", hyperparameters={"epochs": 0})


def test_a_gpu_that_is_not_there_is_refused(api: TestClient, dataset: Path):
    refused(api, 400, "GPU 99", gpus=[99])


def test_an_engine_that_is_not_installed_is_refused_with_the_cure(tmp_path: Path, dataset: Path, settings: Settings):
    bare = settings.model_copy(update={"gluon_task_python": tmp_path / "nothing" / "bin" / "python"})
    with TestClient(create_app(bare)) as api:
        row = next(row for row in api.get("/v1/networks").json() if row["engine"] == "gluon")
        assert not row["available"]
        assert "3.10 or 3.11" in row["cure"]
        refused(api, 400, "is not installed", engine="gluon", network="fastscnn", backbone="fastscnn")


def test_events_and_status_stream_to_the_end_and_resume_without_gap(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={**MAJORITY, "name": "live", "dataset": "plates", "hyperparameters": {"epochs": 3}})
    frames = read_frames(api, "/v1/jobs/live/events")
    events = [frame for frame in frames if frame["event"] == "event"]
    assert [frame["id"] for frame in events] == [str(number + 1) for number in range(len(events))]
    assert json.loads(events[-1]["data"])["event"] == "finished"
    assert frames[-1]["event"] == "end"
    assert json.loads([frame for frame in frames if frame["event"] in ("status", "news")][-1]["data"])["state"] == "finished"
    rest = read_frames(api, "/v1/jobs/live/events", {"Last-Event-ID": "3"})
    assert [frame["id"] for frame in rest if frame["event"] == "event"] == [frame["id"] for frame in events[3:]]


def test_the_log_streams_and_its_tail_is_there(api: TestClient, dataset: Path):
    run_job(api, name="talk", dataset="plates")
    lines = [frame["data"] for frame in read_frames(api, "/v1/jobs/talk/log/stream") if frame["event"] == "message"]
    assert lines[-1] == "finished: the model is published"
    assert api.get("/v1/jobs/talk/log?tail=1").text.strip() == lines[-1]


def test_a_job_stops_when_asked_and_can_then_be_deleted(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={**MAJORITY, "name": "long", "dataset": "plates", "hyperparameters": {"epochs": 10_000}})
    wait_for(lambda: api.get("/v1/jobs/long").json()["status"]["epoch"] > 1)
    assert api.delete("/v1/jobs/long").status_code == 409
    api.post("/v1/jobs/long/stop", json={"keep_best": False})
    assert wait_for(lambda: ended(api, "long"))["status"]["state"] == "stopped"
    wait_for(lambda: api.delete("/v1/jobs/long").status_code == 200, 10)
    assert api.get("/v1/jobs/long").status_code == 404


def test_a_job_stopped_with_its_best_model_publishes_it(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={**MAJORITY, "name": "enough", "dataset": "plates", "hyperparameters": {"epochs": 10_000}})
    wait_for(lambda: api.get("/v1/jobs/enough").json()["status"]["best"])
    api.post("/v1/jobs/enough/stop", json={"keep_best": True})
    assert wait_for(lambda: ended(api, "enough"))["status"]["state"] == "finished"
    assert api.get("/v1/models/enough").status_code == 200


def test_a_training_that_dies_without_a_word_is_failed_not_finished(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={**MAJORITY, "name": "dies", "dataset": "plates", "hyperparameters": {"epochs": 10_000}})
    wait_for(lambda: api.get("/v1/jobs/dies").json()["status"]["epoch"] > 1)
    api.app.state.jobs.launcher.stop("dies", grace=0)
    status = wait_for(lambda: ended(api, "dies"))["status"]
    assert status["state"] == "failed"
    assert status["cause"]
    assert status["cure"]


def test_a_job_that_was_killed_or_stopped_goes_on_after_its_last_whole_epoch(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={**MAJORITY, "name": "again", "dataset": "plates", "hyperparameters": {"epochs": 10_000}})
    wait_for(lambda: api.get("/v1/jobs/again").json()["status"]["epoch"] > 1)
    assert api.post("/v1/jobs/again/resume").status_code == 409  # it runs
    api.app.state.jobs.launcher.stop("again", grace=0)
    killed = wait_for(lambda: ended(api, "again"))["status"]["history"]
    with open(api.app.state.jobs.folder("again").events_file, "a") as file:
        file.write('{"event": "progr')  # a kill may leave a part of a line

    resumed = api.post("/v1/jobs/again/resume").json()["status"]
    assert resumed["state"] in ("starting", "training")
    assert resumed["cause"] == ""
    more = wait_for(lambda: further(api, "again", len(killed)))
    api.post("/v1/jobs/again/stop", json={"keep_best": False})
    assert wait_for(lambda: ended(api, "again"))["status"]["state"] == "stopped"

    api.post("/v1/jobs/again/resume")
    wait_for(lambda: further(api, "again", len(more)))
    api.post("/v1/jobs/again/stop", json={"keep_best": True})
    status = wait_for(lambda: ended(api, "again"))["status"]
    assert status["state"] == "finished"
    assert [scores["epoch"] for scores in status["history"]] == list(range(1, len(status["history"]) + 1))
    assert status["history"][: len(killed)] == killed
    assert api.post("/v1/jobs/again/resume").status_code == 400  # there is nothing left to do


def further(api: TestClient, name: str, epochs: int) -> list[dict]:
    """The history of a job once it has gone further than so many epochs."""
    history = api.get(f"/v1/jobs/{name}").json()["status"]["history"]
    return history if len(history) > epochs + 1 else []


def test_a_job_that_cannot_go_on_says_why(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={**MAJORITY, "name": "stuck", "dataset": "plates", "hyperparameters": {"epochs": 10_000}})
    wait_for(lambda: api.get("/v1/jobs/stuck").json()["status"]["epoch"] > 1)
    api.post("/v1/jobs/stuck/stop", json={"keep_best": False})
    wait_for(lambda: ended(api, "stuck"))
    (dataset / "labels" / "p0.png").unlink()
    answer = api.post("/v1/jobs/stuck/resume")
    assert answer.status_code == 400
    status = api.get("/v1/jobs/stuck").json()["status"]
    assert status["state"] == "failed"
    assert status["cause"] == answer.json()["cause"]


def test_jobs_are_found_again_by_a_service_that_starts_anew(api: TestClient, dataset: Path, settings: Settings):
    api.post("/v1/jobs", json={**MAJORITY, "name": "goeson", "dataset": "plates", "hyperparameters": {"epochs": 10_000}})
    wait_for(lambda: api.get("/v1/jobs/goeson").json()["status"]["epoch"] > 0)
    with TestClient(create_app(settings)) as anew:
        assert anew.get("/v1/jobs/goeson").json()["status"]["state"] == "training"
        anew.post("/v1/jobs/goeson/stop", json={"keep_best": False})
        assert wait_for(lambda: ended(anew, "goeson"))["status"]["state"] == "stopped"


def test_datasets_are_listed_sound_or_not(api: TestClient, dataset: Path):
    draw_dataset(dataset.parent / "broken")
    (dataset.parent / "broken" / "objectclasses.json").unlink()
    rows = {row["name"]: row for row in api.get("/v1/datasets").json()}
    assert rows["plates"]["pictures"] == 6
    assert "objectclasses.json" in rows["broken"]["error"]
    assert api.get("/v1/datasets/broken").json()["findings"][0]["code"] == "structure"
    split = api.get("/v1/datasets/plates/split?validation_share=0.5").json()
    assert len(split["validation"]) == 3


def test_a_picture_is_shown_with_its_mask(api: TestClient, dataset: Path):
    answer = api.get("/v1/datasets/plates/overlays/p0?width=128")
    assert Image.open(io.BytesIO(answer.content)).size == (128, 96)
    assert api.get("/v1/datasets/plates/overlays/p99").status_code == 400


def test_a_picture_with_more_pixels_than_are_read_is_answered_with_a_sentence(
    api: TestClient, dataset: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for path in ("overlays/p0?width=128", "augmented?count=1&crop=32"):
        answer = api.get(f"/v1/datasets/plates/{path}")
        assert (answer.status_code, answer.json()["cure"]) == (400, "See the dataset's findings.")


def test_a_thumbnail_is_kept_until_its_mask_changes(api: TestClient, dataset: Path):
    address = "/v1/datasets/plates/overlays/p0?width=128"
    first = api.get(address).content
    (kept,) = (dataset / ".maskwright" / "thumbnails").iterdir()
    kept.write_bytes(b"kept")
    assert api.get(address).content == b"kept"
    Image.new("L", (64, 48), 1).save(dataset / "labels" / "p0.png")
    assert api.get(address).content not in (b"kept", first)


def test_a_job_says_when_its_dataset_has_changed_since(api: TestClient, dataset: Path):
    assert not run_job(api, name="then", dataset="plates")["dataset_changed"]
    Image.new("L", (64, 48), 1).save(dataset / "labels" / "p0.png")
    wait_for(lambda: api.get("/v1/datasets/plates").status_code == 200)
    assert wait_for(lambda: api.get("/v1/jobs/then").json()["dataset_changed"], 20)


def test_the_augmentation_of_given_settings_is_shown_before_training(api: TestClient, dataset: Path):
    sheet = api.get("/v1/datasets/plates/augmented?count=8&crop=32")
    assert Image.open(io.BytesIO(sheet.content)).size == (6 * 166 - 6, 2 * 166 - 6)
    assert sheet.content == api.get("/v1/datasets/plates/augmented?count=8&crop=32").content
    assert sheet.content != api.get("/v1/datasets/plates/augmented?count=8&crop=32&augment=false").content
    assert api.get("/v1/datasets/plates/augmented?crop=33").status_code == 400


@pytest.mark.parametrize("path", ["/v1/datasets/..%2F..", "/v1/jobs/..%2Fdatasets", "/v1/models/.."])
def test_no_name_leads_out_of_its_folder(api: TestClient, dataset: Path, path: str):
    assert api.get(path).status_code == 404


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documents_of_both_apis_need_no_internet(api: TestClient, inference_api: TestClient, page: str):
    for client in (api, inference_api):
        text = client.get(page).text
        assert not re.search(r'(src|href)="(https?:)?//', text), text
        for address in re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css))"', text):
            assert client.get(address).status_code == 200, address


def test_the_machine_says_what_it_has(api: TestClient):
    machine = api.get("/v1/machine").json()
    assert machine["cores"] >= 1
    assert machine["memory_total"] > machine["memory_free"] > 0
    assert {engine["engine"] for engine in machine["engines"]} == {"pytorch", "gluon", "majority"}


def test_a_line_is_read_once_it_is_whole(tmp_path: Path):
    file = tmp_path / "log"
    reader = LineReader(file)
    assert reader.read() == []
    file.write_bytes(b"one\ntwo\nth")
    assert [line for line, _ in reader.read()] == ["one", "two"]
    with file.open("a") as more:
        more.write("ree\n")
    assert reader.read() == [("three", 14)]
    assert tail(file, 2) == "two\nthree\n"


def test_a_new_service_shows_jobs_of_before(settings: Settings, tmp_path: Path, dataset: Path):
    with TestClient(create_app(settings)) as api:
        run_job(api, name="old", dataset="plates")
        assert JobFolder(settings.checkpoints / "old").job().dataset == "plates"
    with TestClient(create_app(settings)) as api:
        assert [view["job"]["name"] for view in api.get("/v1/jobs").json()] == ["old"]


def read_frames(api: TestClient, path: str, headers: dict[str, str] | None = None) -> list[dict[str, str]]:
    frames = []
    for block in api.get(path, headers=headers).text.split("\n\n"):
        if block and not block.startswith(":"):
            frames.append(dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in block.split("\n")))
    return frames
