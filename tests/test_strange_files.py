"""A training owns its folder: what it puts there in the place of a file is not read through, not waited for and not written to."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contracts.errors import Invalid
from contracts.events import EpochDone, Finished, Preview, Queued, Started, now
from contracts.hyperparameters import Hyperparameters
from contracts.job import EpochScores, Job
from contracts.job_folder import JobFolder
from contracts.plain import is_plain, open_plain, read_plain, size_of
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.container import container_request
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.settings import Settings
from tests.served import serve_brightness
from tests.test_training import write_job

FILES = ("train.log", "log.csv", "confusion.json", "split.json", "weights.json")
SHEET = "epoch-0001.jpg"
SECRET = '["sesame", "0 0 0"]'
ASKED = (
    *("log", "log/file", "log/part", "log/part?after=0", "log/search?word=e", "log/stream", "events", "log.csv", "confusion", "usage"),
    *(f"previews/{SHEET}", "previews/picture-0.jpg", ""),
)
MODEL = ("", "/example", "/model.onnx", "/download", "/pictures")

pytestmark = pytest.mark.timeout(120)  # who waits for a pipe waits for ever


@pytest.fixture
def folder(dataset: Path, settings: Settings) -> JobFolder:
    """Of a job that has finished with a model; its files are there from the first request on."""
    folder = write_job(settings.checkpoints / "m", dataset, "majority", epochs=1)
    serve_brightness(settings.checkpoints, "m")
    scores = EpochScores(epoch=1, loss=0.5, learning_rate=0.1, seconds=1.0, mean_iou=0.5, best=True)
    for event in (Queued(), Started(epochs=1, device="cpu"), EpochDone(scores=scores), Preview(epoch=1, file=SHEET), Finished()):
        folder.add_event(event)
    for name in ("previews", "last", "best"):
        (folder.path / name).mkdir()
    for file in (*(folder.path / name for name in FILES), folder.previews / SHEET, folder.last / "weights", folder.model / "example.jpg"):
        file.write_text("written by the training\n")
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return file


def swap(path: Path, kind: str, secret: Path) -> None:
    """Something else in a file's place."""
    path.unlink(missing_ok=True)
    if kind == "a link":
        path.symlink_to(secret)
    else:
        os.mkfifo(path)


def said(answer: object) -> str:
    """All that an answer says, of a zip what is in it."""
    content: bytes = answer.content  # type: ignore[attr-defined]
    if content[:2] != b"PK":
        return content.decode(errors="replace")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return " ".join(archive.read(name).decode(errors="replace") for name in archive.namelist())


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
def test_no_service_reads_through_what_a_training_put_in_the_place_of_its_files(
    kind: str, api: TestClient, inference_api: TestClient, folder: JobFolder, secret: Path
) -> None:
    assert api.get("/v1/jobs/m/log").text == "written by the training\n"
    for path in [file for file in folder.path.rglob("*") if file.is_file() and file.name not in ("job.json", "task.json", "model.json")]:
        swap(path, kind, secret)
    picture = {"picture": ("a.png", b"", "image/png")}
    answers = [api.get(f"/v1/jobs/m/{part}".rstrip("/")) for part in ASKED]
    answers += [api.get(f"/v1/models/m{part}") for part in MODEL]
    answers += [api.get(path) for path in ("/v1/jobs", "/v1/models", "/v1/diagnostics", "/v1/weights", "/v1/queue", "/v1/retention")]
    answers += [api.post("/jobs/container/logs", json={"name": "m"}), api.get("/models/downloadable")]
    answers += [api.get("/models_services/test_none/m.zip")]
    answers += [inference_api.get(path) for path in ("/v1/models", "/v1/models/m", "/models/m/config", "/models/m/palette")]
    for answer in answers:
        assert answer.status_code < 500, (answer.url, answer.text)
        assert "sesame" not in said(answer), answer.url
    broken = inference_api.post("/v1/models/m/predict", files=picture)
    assert broken.status_code == 500
    assert "is no plain file" in broken.json()["cause"]
    assert api.get("/v1/jobs/m/log").text == ""
    assert api.get("/v1/jobs/m/log/file").status_code == 404


@pytest.mark.parametrize("part", ["model", "previews"])
def test_no_folder_of_a_job_may_be_a_link_to_another(
    part: str, api: TestClient, inference_api: TestClient, folder: JobFolder, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder.path / part).rename(elsewhere)
    (folder.path / part).symlink_to(elsewhere)
    for path in ("/v1/jobs/m/previews/epoch-0001.jpg",) if part == "previews" else ("/v1/models/m", "/v1/models/m/download"):
        assert api.get(path).status_code == 404, path
    if part == "model":
        assert api.get("/v1/models").json() == []
        assert inference_api.get("/v1/models/m").status_code == 404
        assert api.get("/v1/jobs/m").json()["model"] == "none"
    assert any(elsewhere.iterdir())


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
def test_nothing_is_written_through_it_either_and_the_job_can_be_deleted(
    kind: str, api: TestClient, folder: JobFolder, secret: Path
) -> None:
    swap(folder.events_file, kind, secret)
    shutil.rmtree(folder.model)
    assert api.get("/v1/jobs/m").json()["status"]["state"] == "failed", "nothing can be read of how it ended"
    refused = api.post("/v1/jobs/m/resume")
    assert (refused.status_code, "no plain file" in refused.json()["cause"]) == (500, True), refused.text
    assert secret.read_text() == SECRET
    assert api.delete("/v1/jobs/m").status_code == 200
    assert api.get("/v1/jobs/m").status_code == 404


def test_what_would_be_tidied_up_is_not_looked_for_behind_a_link(api: TestClient, folder: JobFolder, tmp_path: Path) -> None:
    shutil.rmtree(folder.last)
    folder.last.symlink_to(tmp_path)
    old = {"checkpoints_days": 1e-9}
    assert api.get("/v1/retention", params=old).json()["rows"] == []
    assert api.post("/v1/retention", json=old).status_code == 200
    assert folder.last.is_symlink()
    assert folder.job_file.exists()


def test_a_file_is_plain_or_it_is_none(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "folder").mkdir()
    swap(tmp_path / "link", "a link", secret)
    swap(tmp_path / "pipe", "a pipe", secret)
    (tmp_path / "way").symlink_to(tmp_path / "folder")
    (tmp_path / "folder" / "file").write_text("x")
    assert read_plain(tmp_path / "way" / "file") == b"x"  # who asks for no folder above trusts the way
    strange = [tmp_path / name for name in ("link", "pipe", "folder", "none", "secret/file")]
    for path in strange:
        assert not is_plain(path)
        assert size_of(path) == 0
        with pytest.raises(FileNotFoundError):
            open_plain(path)
    for path in ("way/file", "folder/../secret"):
        with pytest.raises(FileNotFoundError):
            open_plain(tmp_path / path, tmp_path)


def test_a_container_may_replace_none_of_the_files_that_others_go_by(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "m")
    folder.path.mkdir()
    for file in (folder.job_file, folder.asked_file, folder.task_file):
        file.write_text("{}")
    swap(folder.pulse_file, "a link", folder.job_file)
    for port, fixed in ((None, {"job.json", "asked.json", "task.json"}), (5300, {"asked.json", "task.json"})):
        request = container_request(Task("m", "gluon", [], folder.path, port=port), "image", lambda path: path, "1:1")
        assert {Path(mount["Target"]).name for mount in request["mounts"] if mount["ReadOnly"]} == fixed


@pytest.mark.parametrize(
    ("changed", "accepted"),
    [
        ({"network": "psp", "waiting": False, "gpus": [1], "validation_share": 0.4}, True),
        ({"weights": "from_checkpoint", "weights_folder": "checkpoints/earlier"}, True),
        ({"dataset_folder": "/"}, False),
        ({"weights_folder": "checkpoints/.maskwright"}, False),
        ({"weights_folder": "checkpoints/../.."}, False),
        ({"weights_folder": "/etc"}, False),
        ({"gpus": [1, 3]}, False),
        ({"memory_limit": 10**6}, False),
        ({"name": "other"}, False),
        ({"api_port": None}, False),
    ],
)
def test_an_old_client_s_job_that_made_more_of_itself_is_not_started_again(
    changed: dict[str, object], accepted: bool, settings: Settings, dataset: Path
) -> None:
    jobs = Jobs(settings, ProcessLauncher(settings.checkpoints, {}))
    folder = JobFolder(settings.checkpoints / "old")
    folder.path.mkdir(parents=True)
    names = {"name": "old", "dataset": "plates", "engine": "gluon", "network": "fcn", "backbone": "resnet50", "gpus": [1, 2]}
    port = {"api_port": 5300, "waiting": True}
    job = Job.model_validate({**names, **port, "dataset_folder": dataset, "created": now(), "hyperparameters": Hyperparameters()})
    folder.write_asked(job)
    if "weights_folder" in changed and str(changed["weights_folder"]).startswith("checkpoints/"):
        changed = {**changed, "weights_folder": settings.checkpoints.resolve() / str(changed["weights_folder"]).partition("/")[2]}
    altered = Job.model_validate({**json.loads(job.model_dump_json()), **changed})
    if accepted:
        assert jobs.launching.task(altered, folder).job_id == "old"
    else:
        with pytest.raises(Invalid, match="what its client cannot"):
            jobs.launching.task(altered, folder)
