"""What old jobs keep that may go: shown first, let go of on the page, by the command line or by itself; and the zip for a report."""

import io
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from contracts.job_folder import JobFolder
from contracts.model import read_model
from docker_sdk_api.app import create_app
from docker_sdk_api.deleted import Deleted
from docker_sdk_api.settings import Settings
from tests.conftest import ROOT, text_of, wait_for

AT_ONCE = 1e-9
"""Days: whatever has ended is older."""
MONTH = 30


@pytest.fixture
def jobs(api: TestClient, sdk_app: FastAPI, dataset: Path, settings: Settings) -> dict[str, JobFolder]:
    """One that finished and one that was stopped, without a model."""
    names = {"dataset": dataset.name, "engine": "majority", "network": "majority", "backbone": "none"}
    for name, epochs in (("good", 1), ("broken", 10_000)):
        answer = api.post("/v1/jobs", json={**names, "name": name, "hyperparameters": {"epochs": epochs}})
        assert answer.status_code == 201, answer.text
    wait_for(lambda: state(api, "broken") == "training", 60)
    api.post("/v1/jobs/broken/stop", json={"keep_best": False})
    wait_for(lambda: (state(api, "good"), state(api, "broken")) == ("finished", "stopped"), 60)
    wait_for(lambda: not sdk_app.state.jobs.launcher.running(), 30)  # their last words are written a moment before they are gone
    return {name: JobFolder(settings.checkpoints / name) for name in ("good", "broken")}


def on_disk(*folders: JobFolder) -> dict[int, int]:
    """Bytes of each file by its number on the disk, by which a file of two names is one."""
    stats = [path.stat() for folder in folders for path in folder.path.rglob("*") if path.is_file()]
    return {stat.st_ino: stat.st_blocks * 512 for stat in stats}


def state(api: TestClient, name: str) -> str:
    return str(api.get(f"/v1/jobs/{name}").json()["status"]["state"])


def test_nothing_goes_that_is_too_young_or_that_no_rule_names(api: TestClient, jobs: dict[str, JobFolder]):
    for days in ({}, {"failed_days": 0, "checkpoints_days": 0}, {"failed_days": MONTH, "checkpoints_days": MONTH}):
        assert api.get("/v1/retention", params=days).json() == {"rows": [], "bytes": 0}
        assert api.post("/v1/retention", json=days).json() == {"rows": [], "bytes": 0}
    assert jobs["good"].last.is_dir()
    assert api.get("/v1/retention", params={"failed_days": -1}).status_code == 400
    assert "extra" in json.dumps(api.post("/v1/retention", json={"everything": True}).json()).casefold()


def test_a_preview_tells_every_byte_that_goes_and_touches_nothing(api: TestClient, jobs: dict[str, JobFolder]):
    rules = {"failed_days": AT_ONCE, "checkpoints_days": AT_ONCE}
    before = on_disk(*jobs.values())
    told = api.get("/v1/retention", params=rules).json()
    assert {(row["job"], row["what"]) for row in told["rows"]} == {("good", "checkpoint"), ("broken", "job")}
    assert on_disk(*jobs.values()) == before
    assert api.post("/v1/retention", json=rules).json() == told
    gone = sum(before.values()) - sum(on_disk(*jobs.values()).values())
    assert told["bytes"] == gone == sum(row["bytes"] for row in told["rows"])


def test_what_goes_leaves_the_model_its_best_weights_and_its_curves(api: TestClient, jobs: dict[str, JobFolder]):
    good = jobs["good"]
    history = api.get("/v1/jobs/good").json()["status"]["history"]
    told = api.post("/v1/retention", json={"checkpoints_days": AT_ONCE}).json()
    assert [row["job"] for row in told["rows"]] == ["good"]
    assert not good.last.exists()
    assert read_model(good.model).name == "good"
    assert any(good.best.iterdir())
    assert api.get("/v1/jobs/good").json()["status"]["history"] == history
    assert jobs["broken"].exists(), "no rule named it"


def test_a_job_that_went_can_be_brought_back(gui: TestClient, api: TestClient, jobs: dict[str, JobFolder]):
    page = text_of(gui.get("/machine/disk"))
    assert "Nothing goes by itself" in page
    shown = gui.get("/machine/disk", params={"failed_days": AT_ONCE, "checkpoints_days": 0})
    assert "broken the whole job" in text_of(shown)
    assert 'href="/jobs/broken"' in shown.text
    assert gui.post("/machine/disk", data={"failed_days": AT_ONCE, "checkpoints_days": 0}, follow_redirects=False).status_code == 303
    assert not jobs["broken"].exists()
    after = gui.get("/machine/disk")
    assert "The job broken is deleted" in text_of(after)
    (row,) = api.get("/v1/deleted").json()
    assert gui.post(f"/jobs/deleted/{row['id']}/undo").status_code == 200
    assert jobs["broken"].exists()


def test_a_job_that_was_brought_back_stays(api: TestClient, jobs: dict[str, JobFolder]):
    events = jobs["broken"].events_file
    *others, last = events.read_text().splitlines()
    events.write_text("\n".join([*others, json.dumps({**json.loads(last), "at": "2024-01-01T00:00:00Z"}), ""]))
    assert [row["job"] for row in api.post("/v1/retention", json={"failed_days": 7}).json()["rows"]] == ["broken"]
    (row,) = api.get("/v1/deleted").json()
    assert api.post(f"/v1/deleted/{row['id']}/undo").status_code == 200
    assert api.post("/v1/retention", json={"failed_days": 7}).json()["rows"] == []
    assert jobs["broken"].exists()


def test_what_was_deleted_long_ago_goes_when_the_service_starts(settings: Settings):
    old = settings.checkpoints / ".deleted" / "1000.forgotten"
    old.mkdir(parents=True)
    with TestClient(create_app(settings)):
        wait_for(lambda: not old.exists(), 30)


def test_a_number_of_days_that_is_none_is_answered_with_a_sentence(gui: TestClient):
    answer = gui.get("/machine/disk", params={"failed_days": "soon"})
    assert answer.status_code == 400
    assert "failed_days" in text_of(answer)
    assert gui.post("/machine/disk", data={"failed_days": "soon"}).status_code == 400


def test_rules_that_are_set_are_applied_by_themselves(jobs: dict[str, JobFolder], settings: Settings):
    rules = settings.model_copy(update={"keep_failed_days": AT_ONCE, "keep_checkpoints_days": AT_ONCE})
    with TestClient(create_app(rules)) as api:
        wait_for(lambda: not jobs["broken"].exists() and not jobs["good"].last.exists(), 30)
        assert state(api, "good") == "finished"
        assert api.get("/v1/retention/rules").json() == {"failed_days": AT_ONCE, "checkpoints_days": AT_ONCE}


def test_the_command_line_shows_before_it_does(jobs: dict[str, JobFolder], settings: Settings):
    folders = {"CHECKPOINTS": str(settings.checkpoints), "DATASETS": str(settings.datasets)}
    for more, words, there in (([], "would go: add --yes", True), (["--yes"], "are gone", False)):
        command = [sys.executable, "-m", "cli", "tidy", "--failed-days", str(AT_ONCE), *more]
        said = subprocess.run(command, cwd=ROOT, env=folders, capture_output=True, text=True, timeout=120, check=True).stdout
        assert words in said
        assert jobs["broken"].exists() == there


ADDRESSES = {
    "postgresql://ada:se/sa@me@db.lab:5432/queue": "postgresql://***@db.lab:5432/queue",
    "https://opensaysme@git.example/x": "https://***@git.example/x",
    "http://a.example/?access_token=opensaysme&n=1": "http://a.example/?access_token=***&n=1",
    "https://b.example/k?X-Amz-Signature=sesame&X-Amz-Credential=hunter2": "https://b.example/k?X-Amz-Signature=***&X-Amz-Credential=***",
    "http://127.0.0.1:4222/v1/jobs of me@lab.example": "http://127.0.0.1:4222/v1/jobs of me@lab.example",
}


def test_a_zip_for_a_report_holds_what_explains_a_fault_and_no_secret(
    gui: TestClient, sdk_app: FastAPI, jobs: dict[str, JobFolder], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://ann:hunter2@proxy.example:3128")
    shown = sdk_app.state.jobs
    shown.settings = shown.settings.model_copy(update={"database_url": "postgresql://eve:open/says'am@e sesame\"@db.lab/queue"})
    with jobs["broken"].log_file.open("a") as log:
        log.writelines(f"{address}\n" for address in ADDRESSES)
        log.write("fetching http://bob:sesame@weights.example/a.pth?token=opensaysme&size=3\n")
    answer = gui.get("/machine/diagnostics")
    assert answer.headers["content-type"] == "application/zip"
    assert "maskwright-diagnostics-" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as bundle:
        texts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert {"README.txt", "machine.json", "python.txt", "settings.json", "jobs/good/job.json", "jobs/broken/train.log"} <= texts.keys()
    assert '"finished"' in texts["jobs/good/events.jsonl"]
    assert "fastapi" in texts["python.txt"].casefold()
    assert "http://***@proxy.example:3128" in texts["settings.json"]
    assert "http://***@weights.example/a.pth?token=***&size=3" in texts["jobs/broken/train.log"]
    assert set(ADDRESSES.values()) <= set(texts["jobs/broken/train.log"].splitlines())
    assert '"DATABASE_URL": "postgresql://***@db.lab/queue"' in texts["settings.json"]
    for name, text in texts.items():
        for secret in ("hunter2", "sesame", "opensaysme", "se/sa@me", "says'am"):
            assert secret not in text, name


def test_a_thousand_deleted_jobs_hold_no_more_threads_than_one_and_each_goes_in_its_time(tmp_path: Path):
    deleted = Deleted(tmp_path, minutes=0.02)
    threads = threading.active_count()
    for number in range(1000):
        (tmp_path / f"j{number}").mkdir()
        deleted.take(tmp_path / f"j{number}")
    assert threading.active_count() <= threads + 1
    wait_for(lambda: list(deleted.folder.iterdir()) == [], 60)
    deleted.folder.rmdir()
    (tmp_path / "later").mkdir()
    deleted.minutes = 0
    deleted.take(tmp_path / "later")
    wait_for(lambda: list(deleted.folder.iterdir()) == [], 60)
