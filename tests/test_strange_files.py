"""A training owns its folder: what it puts there in the place of a file is not read through, not waited for and not written to."""

import asyncio
import io
import json
import os
import re
import resource
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from contracts.errors import Invalid
from contracts.events import EpochDone, Finished, Preview, Queued, Started, Warned, now
from contracts.hyperparameters import Hyperparameters
from contracts.job import EpochScores, Job
from contracts.job_folder import JobFolder
from contracts.plain import is_plain, open_plain, read_plain, size_of
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.container import container_request
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.logs import LONGEST, LineReader, _lines_with
from docker_sdk_api.routes import PlainFile
from docker_sdk_api.settings import Settings
from tests.served import serve_brightness
from tests.test_training import write_job

FILES = ("train.log", "log.csv", "confusion.json", "split.json", "weights.json")
SHEET = "epoch-0001.jpg"
HUGE = 2**37
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


@contextmanager
def little_memory() -> Iterator[None]:
    """No more than 2 GiB beyond what there is by now."""
    present = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (present + 2**31, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_file_without_an_end_costs_no_service_its_memory(api: TestClient, inference_api: TestClient, folder: JobFolder) -> None:
    """What is not written takes no room: a training can make a file of any size at once."""
    behind = f"{Warned(message='behind it').model_dump_json()}\n"
    told = (folder.events_file, folder.log_file, folder.split_file, folder.confusion_file, folder.stop_file)
    for path in (*told, folder.model / "palette.txt"):
        path.touch()
        os.truncate(path, HUGE)
        with open(path, "a") as file:
            file.write(f"\n{behind}")
    with little_memory():
        found = api.get("/v1/jobs/m")
        answers = [api.get(f"/v1/jobs/m/{part}".rstrip("/")) for part in ASKED if part not in ("log/file", "log.csv")]
        answers += [api.get(path) for path in ("/v1/jobs", "/v1/models/m/pictures", "/v1/diagnostics")]
        answers += [api.post("/jobs/container/logs", json={"name": "m"}), inference_api.get("/models/m/palette")]
        os.truncate(folder.model / "model.json", HUGE)
        answers += [service.get("/v1/models") for service in (api, inference_api)]
    assert [answer.url for answer in answers if answer.status_code >= 500] == []
    assert "behind it" in found.json()["status"]["warnings"]
    assert "behind it" in api.get("/v1/jobs/m/log/stream").text
    assert "behind it" in api.get("/v1/jobs/m/events").text
    assert api.get("/v1/jobs/m/confusion").status_code == 404
    assert inference_api.get("/v1/models/m").status_code == 500


def test_a_line_that_is_too_long_is_passed_over_and_what_stands_around_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"one\rfirst\n" + b"x" * (LONGEST - 9) + b"\n" + b"y" * LONGEST + b"\nlast\n" + b"z" * 2 * LONGEST)
    reader, seen, before = LineReader(file), list[str](), -1
    while reader.offset > before:
        before = reader.offset
        seen += [line for line, _ in reader.read()]
        assert reader.offset - before <= LONGEST
    assert [line[:9] for line in seen] == ["one\rfirst", "xxxxxxxxx", "last"]
    with file.open("ab") as more:
        more.write(b"\nmore\n")
    assert reader.read()[0][0] == "more"


def test_a_log_that_grows_while_it_is_downloaded_is_sent_as_long_as_it_was_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    file.write_bytes(b"x" * 200_000)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        with open(file, "ab") as log:  # faster than it is read
            log.write(b"y" * 70_000 if len(sent) < 50 else b"")

    scope = {"type": "http", "method": "GET", "headers": []}
    asyncio.run(PlainFile(open_plain(file), "text/plain")(scope, nothing, send))
    assert dict(sent[0]["headers"])[b"content-length"] == b"200000"
    assert b"".join(message["body"] for message in sent[1:]) == b"x" * 200_000
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]


async def nothing() -> Message:
    return {"type": "http.disconnect"}


def test_a_log_that_is_cut_short_while_it_is_searched_ends_the_search_and_not_the_service(tmp_path: Path) -> None:
    """Read in place (mmap), the second block would be a signal that ends the process."""
    file = tmp_path / "train.log"
    file.write_bytes(b"a word\n" * 1_000_000)
    with open_plain(file) as opened:
        found = _lines_with(opened.fileno(), re.compile(b"word"), 7_000_000)
        assert next(found) == (6_999_993, b"a word")
        os.truncate(file, 70)
        assert [at for at, _ in found][-10:] == [63, 56, 49, 42, 35, 28, 21, 14, 7, 0]
