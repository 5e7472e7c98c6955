"""A job's page and the list of jobs, over the real APIs in process: what they show, what they keep, and that they stay quick."""

import io
import json
import re
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from annotations.colours import class_colours
from contracts.answers import Gpu
from contracts.events import EpochDone, Event, Failed, Finished, Progress, Resumed, Stage, Started, fold
from contracts.hyperparameters import Hyperparameters
from contracts.job import Confusion, Counts, EpochScores, Job, JobStatus
from contracts.job_folder import JobFolder
from docker_sdk_api.app import create_app as create_sdk_app
from docker_sdk_api.ends import Ends
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.logs import find_lines, part_after, part_before
from docker_sdk_api.rounds import Rounds
from docker_sdk_api.settings import Settings as SdkSettings
from docker_sdk_api.standing import Standing
from gui.verdict import matrix_of, one_class_only
from tests.conftest import run_job, text_of, wait_for
from tests.served import serve_brightness
from tests.test_docker_sdk_api import read_frames

CLASSES = ["background", "pad", "circle"]


@pytest.fixture
def job(api: TestClient, dataset: Path) -> str:
    assert run_job(api, name="common", dataset="plates", hyperparameters={"epochs": 3})["status"]["state"] == "finished"
    return "common"


def written_job(checkpoints: Path, name: str, events: list[Event], created: datetime | None = None, **settings: object) -> JobFolder:
    """A job's folder as a training leaves it, of the events given."""
    folder = JobFolder(checkpoints / name)
    folder.path.mkdir(parents=True)
    at = created or datetime(2026, 1, 1, tzinfo=timezone.utc)
    asked = {"name": name, "dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}
    folder.write_job(Job(**asked, dataset_folder=Path("/nowhere"), created=at, hyperparameters=Hyperparameters(**settings)))
    folder.events_file.write_text("".join(event.model_dump_json() + "\n" for event in events))
    return folder


def epoch(number: int) -> EpochDone:
    scores = {"mean_iou": 0.5, "pixel_accuracy": 0.9, "iou_per_class": dict.fromkeys(CLASSES, 0.5)}
    return EpochDone(scores=EpochScores(epoch=number, loss=1 / number, learning_rate=0.1, seconds=1, best=number == 1, **scores))


def test_the_confusion_matrix_says_what_the_scores_say(api: TestClient, job: str):
    confusion = Confusion.model_validate(api.get(f"/v1/jobs/{job}/confusion").json())
    assert confusion.best is not None
    counts = np.array(confusion.best.counts)
    scores = api.get(f"/v1/jobs/{job}").json()["status"]["best"]
    assert confusion.best.epoch == scores["epoch"]
    assert np.trace(counts) / counts.sum() == pytest.approx(scores["pixel_accuracy"])
    assert counts.sum() % (64 * 48) == 0, "every pixel of every validation picture counts once"


def test_a_model_that_answers_one_class_only_is_told_so_with_the_likely_causes(gui: TestClient, job: str):
    page = text_of(gui.get(f"/jobs/{job}"))
    assert "The model answers “background” everywhere" in page
    assert "no better than nothing" in page
    asked = Job(
        **{"name": "x", "dataset": "d", "dataset_folder": Path("/"), "created": datetime.now(timezone.utc)},
        hyperparameters=Hyperparameters(epochs=4, learning_rate=0.00001),
    )
    only = Confusion(classes=CLASSES, latest=Counts(epoch=4, counts=[[980, 0, 0], [10, 0, 0], [10, 0, 0]]))
    verdict = one_class_only(only, asked, ended=True)
    assert verdict is not None
    assert [words in " ".join(verdict.likely) for words in ("98 % of all pixels", "is low", "4 epochs are few")] == [True] * 3
    two = Confusion(classes=CLASSES, latest=Counts(epoch=4, counts=[[979, 1, 0], [10, 0, 0], [10, 0, 0]]))
    assert one_class_only(two, asked, ended=True) is None


def test_of_an_ended_job_the_model_is_judged_and_not_the_last_epoch():
    asked = Job(
        **{"name": "x", "dataset": "d", "dataset_folder": Path("/"), "created": datetime.now(timezone.utc)},
        hyperparameters=Hyperparameters(),
    )
    knows = Counts(epoch=3, counts=[[90, 5, 0], [3, 7, 0], [1, 0, 9]])
    gave_up = Counts(epoch=8, counts=[[95, 0, 0], [10, 0, 0], [10, 0, 0]])

    def said(ended: bool, **counts: Counts) -> str | None:
        verdict = one_class_only(Confusion(classes=CLASSES, **counts), asked, ended)
        return verdict.cause if verdict else None

    assert said(True, best=knows, latest=gave_up) == "Its last epochs answered “background” only; the model is that of epoch 3."
    assert said(False, best=knows, latest=gave_up) == "Epoch 8 answered “background” only; the model is that of epoch 3."
    assert said(True, best=gave_up, latest=knows) == "The model answers “background” everywhere: it has learnt no other class."
    assert said(False, best=gave_up, latest=knows) is None
    assert said(True, best=knows, latest=knows) is None


def test_the_table_of_confusion_gives_shares_and_the_worst_mistakes_first():
    matrix = matrix_of(Confusion(classes=CLASSES, best=Counts(epoch=2, counts=[[90, 10, 0], [3, 1, 0], [0, 0, 0]])))
    assert matrix is not None
    assert matrix.rows == [[0.9, 0.1, 0.0], [0.75, 0.25, 0.0], None]
    assert [(pair.true, pair.taken, pair.pixels) for pair in matrix.worst] == [("background", "pad", 10), ("pad", "background", 3)]


def test_the_layers_of_previews_are_pictures_and_masks_in_the_classes_colours(gui: TestClient, api: TestClient, job: str, dataset: Path):
    status = api.get(f"/v1/jobs/{job}").json()["status"]
    assert status["pictures"]
    assert set(status["pictures"]) <= {f"p{index}" for index in range(6)}
    truth = np.asarray(Image.open(io.BytesIO(gui.get(f"/jobs/{job}/previews/truth-0.png").content)).convert("RGBA"))
    mask = np.asarray(Image.open(dataset / "labels" / f"{status['pictures'][0]}.png"))
    class_ = int(mask.max())
    assert (truth[mask == class_] == [*class_colours(3)[class_], 255]).all()
    assert (truth[mask == 0][:, 3] == 0).all(), "the background is clear"
    for file in ("picture-0.jpg", "epoch-0001-0.png", "epoch-0003.jpg"):
        assert gui.get(f"/jobs/{job}/previews/{file}").status_code == 200


def test_settings_that_differ_from_what_is_usual_are_marked(gui: TestClient, job: str):
    page = text_of(gui.get(f"/jobs/{job}"))
    assert re.search(r"Hyper-parameters that differ from what is usual for this network .*epochs 3 usually \d+", page)


def test_a_failed_job_opens_on_its_cause_its_cure_and_its_last_lines(gui: TestClient, api: TestClient, settings: SdkSettings):
    folder = written_job(
        settings.checkpoints, "broke", [Stage(state="training", stage="training"), Failed(cause="It broke.", cure="Mend it.")]
    )
    folder.log_file.write_text("".join(f"line {number}\n" for number in range(100)))
    page = text_of(gui.get("/jobs/broke"))
    places = [page.index(words) for words in ("failed", "It broke.", "Mend it.", "line 80 line 81", "Settings")]
    assert places == sorted(places)
    assert "Resume" in page
    assert "line 79" not in page[: places[-1]], "twenty lines are enough to begin with"
    assert "What it sees" not in page, "nothing was learnt: there is no picture, no curve and no score to make room for"
    folder.log_file.write_text("failed: It broke. Mend it.\n")
    assert gui.get("/jobs/broke").text.count("It broke. Mend it.") == 1, "what the log says too is said once above it"


def test_a_deleted_job_can_be_brought_back_with_its_model(gui: TestClient, api: TestClient, job: str):
    wait_for(lambda: gui.post(f"/jobs/{job}/delete", follow_redirects=False).status_code == 303)
    page = gui.get("/jobs")
    assert f"{job} is deleted. It can be brought back until" in text_of(page)
    assert gui.get("/models").text.count(job) == 0
    undo = re.search(r'action="(/jobs/deleted/[^"]+/undo)"', page.text)
    assert undo
    assert gui.post(undo[1], follow_redirects=False).headers["location"] == f"/jobs/{job}"
    assert "finished" in text_of(gui.get(f"/jobs/{job}"))
    assert gui.get(f"/models/{job}").status_code == 200
    again = gui.post(undo[1])
    assert again.status_code == 404
    assert "gone for good" in text_of(again)


def test_a_deleted_job_is_not_brought_back_over_another_of_its_name(api: TestClient, job: str):
    id = wait_for(lambda: api.delete(f"/v1/jobs/{job}").json().get("id"))
    run_job(api, name=job, dataset="plates")
    refused = api.post(f"/v1/deleted/{id}/undo")
    assert (refused.status_code, refused.json()["error"]) == (409, "Taken")
    assert api.delete(f"/v1/deleted/{id}").status_code == 204
    assert api.get("/v1/deleted").json() == []


def test_a_deleted_job_goes_for_good_after_its_time(settings: SdkSettings, dataset: Path):
    with TestClient(create_sdk_app(settings.model_copy(update={"deleted_kept_minutes": 0.0}))) as api:
        written_job(settings.checkpoints, "old", [Finished()])
        api.delete("/v1/jobs/old").raise_for_status()
        assert api.get("/v1/deleted").json() == []
    assert list((settings.checkpoints / ".deleted").iterdir()) == []


def test_a_list_of_many_jobs_comes_in_pages_and_is_searched(gui: TestClient, settings: SdkSettings):
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for number in range(120):
        written_job(settings.checkpoints, f"j{number:03}", [epoch(1), Finished()], begin + timedelta(minutes=number))
    first = gui.get("/jobs").text
    assert first.index(">j119<") < first.index(">j070<"), "newest first"
    assert ">j069<" not in first
    assert "1 to 50 of 120" in text_of(gui.get("/jobs"))
    assert ">j019<" in gui.get("/jobs", params={"place": "3"}).text
    assert re.findall(r">(j\d+)<", gui.get("/jobs", params={"search": "J11 plates"}).text) == [
        f"j11{number}" for number in range(9, -1, -1)
    ]
    assert "No job that runs" in text_of(gui.get("/jobs", params={"show": "running"}))


def test_a_status_is_kept_up_by_what_is_new_and_equals_the_fold_of_everything(tmp_path: Path):
    events: list[Event] = [Started(epochs=9, device="CPU"), epoch(1), epoch(2)]
    resumed: list[Event] = [Failed(cause="It broke.", cure="Mend it."), Resumed()]
    broken_off: list[Event] = [Started(epochs=9, device="CPU", from_epoch=1), epoch(2), epoch(3), Finished()]
    folder = written_job(tmp_path, "grows", [])
    standing = Standing()
    said: list[Event] = []
    for event in events + resumed + broken_off:
        said.append(event)
        line = event.model_dump_json().encode() + b"\n"
        with open(folder.events_file, "ab") as file:
            file.write(line[:20])
            file.flush()
            assert standing.status(folder) == fold(said[:-1]), "a line that is still being written does not count"
            file.write(line[20:])
        assert standing.status(folder) == fold(said)
    mine = standing.status(folder)
    mine.history.clear()
    assert len(standing.status(folder).history) == 3, "what was given away is the reader's own"


def test_a_job_made_anew_under_a_name_is_not_taken_for_the_former_one(tmp_path: Path):
    standing = Standing()
    former = written_job(tmp_path, "same", [epoch(1), epoch(2), Finished()])
    assert standing.status(former).state == "finished"
    shutil.rmtree(former.path)
    later = written_job(
        tmp_path,
        "same",
        [
            epoch(1),
            epoch(2),
            Failed(cause="It broke.", cure="Mend it."),
            Progress(epoch=1, step=1, steps=1, loss=1, pictures_per_second=1, seconds_left=1),
        ],
        epochs=3,
    )
    assert standing.status(later).state == "failed"
    assert standing.job(later).hyperparameters.epochs == 3


def test_news_of_a_job_make_the_status_whole_again(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={"name": "live", "dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"})
    frames = read_frames(api, "/v1/jobs/live/events?from_now=true")
    status: dict = {}
    for frame in frames:
        data = json.loads(frame["data"]) if frame["event"] in ("status", "news") else {}
        if frame["event"] == "news":
            for name in ("history", "previews"):
                data[name] = status[name][: data.pop(f"{name}_from")] + data[name]
        status = data or status
    assert [frame["event"] for frame in frames].count("status") == 1
    assert JobStatus.model_validate(status) == JobStatus.model_validate(api.get("/v1/jobs/live").json()["status"])
    late = read_frames(api, "/v1/jobs/live/events?from_now=true")
    assert [frame["event"] for frame in late] == ["status", "end"], "who comes late is not told all that was"


def test_a_million_lines_are_read_from_their_end_by_pages_and_searched(gui: TestClient, settings: SdkSettings):
    folder = written_job(settings.checkpoints, "long", [Finished()])
    with open(folder.log_file, "w") as log:
        log.writelines(f"step {number}\n" for number in range(1_000_000))
    page = gui.get("/jobs/long").text
    assert "step 999999</code>" in page
    assert len(page) < 60_000
    part = gui.get("/jobs/long/log/part", params={"lines": "3"}).json()
    assert part["lines"] == ["step 999997", "step 999998", "step 999999"]
    assert part["end"] == part["size"] == folder.log_file.stat().st_size
    before = gui.get("/jobs/long/log/part", params={"lines": "2", "before": str(part["start"])}).json()
    assert before["lines"] == ["step 999995", "step 999996"]
    found = gui.get("/jobs/long/log/search", params={"word": "STEP 12345"}).json()
    assert [hit["line"] for hit in found["hits"]] == ["step 12345", *(f"step 12345{digit}" for digit in range(10))]
    there = gui.get("/jobs/long/log/part", params={"after": str(found["hits"][0]["at"]), "lines": "1"}).json()
    assert there["lines"] == ["step 12345"]
    assert gui.get("/jobs/long/log").content == folder.log_file.read_bytes(), "the download is the whole log"


def test_going_back_through_a_log_shows_every_line_once(tmp_path: Path):
    file = tmp_path / "log"
    lines = [f"{number} " + "x" * (number * 37 % 900) for number in range(900)] + ["y" * 600_000, "ü – ö", "last"]
    file.write_text("\n".join(lines) + "\nstill being wri")
    seen: list[str] = []
    before: int | None = None
    while before != 0:
        part = part_before(file, before, 50)
        assert before is None or part.end == before
        seen, before = part.lines + seen, part.start
    assert "".join(seen) == "".join(lines)
    assert seen[:3] == lines[:3]
    assert seen[-2:] == lines[-2:]
    assert part_after(file, 0, 2).lines == lines[:2]
    assert [hit.line for hit in find_lines(file, "Ü –").hits] == [], "letters beyond ASCII are looked for as they are"
    assert [hit.line for hit in find_lines(file, "ü –").hits] == ["ü – ö"]
    some = find_lines(file, " x", most=5)
    assert (len(some.hits), some.more) == (5, True)
    assert all(" x" in hit.line for hit in some.hits)


def test_what_a_running_job_takes_of_the_machine_is_told_and_of_an_ended_one_nothing(api: TestClient, gui: TestClient, job: str):
    wait_for(lambda: gui.get(f"/jobs/{job}/usage").json() is None, 20)
    asked = {"engine": "majority", "network": "majority", "backbone": "none", "hyperparameters": {"epochs": 10_000}}
    api.post("/v1/jobs", json={**asked, "name": "busy", "dataset": "plates"})
    first = wait_for(lambda: (found := gui.get("/jobs/busy/usage").json()) and found["cpu_seconds"] > 0.05 and found)
    assert 10_000_000 < first["memory_bytes"] < first["memory_total"]
    assert first["cores"] >= 1
    later = wait_for(lambda: (found := gui.get("/jobs/busy/usage").json())["cpu_seconds"] > first["cpu_seconds"] and found)
    assert later["cpu_seconds"] - first["cpu_seconds"] <= (later["at"] - first["at"] + 1) * later["cores"]
    api.post("/v1/jobs/busy/stop", json={"keep_best": False})


def test_the_gpus_that_a_job_learns_on_are_told_with_how_busy_they_are(
    api: TestClient, gui: TestClient, sdk_app: FastAPI, settings: SdkSettings, dataset: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = {"engine": "majority", "network": "majority", "backbone": "none", "hyperparameters": {"epochs": 10_000}}
    api.post("/v1/jobs", json={**asked, "name": "busy", "dataset": "plates"})
    assert wait_for(lambda: gui.get("/jobs/busy/usage").json())["gpus"] == []
    folder = JobFolder(settings.checkpoints / "busy")
    folder.write_job(folder.job().model_copy(update={"gpus": [1]}))
    two = [Gpu(id=number, name="GPU", memory_total=80, memory_free=30, load=load) for number, load in enumerate((5, 75))]
    monkeypatch.setattr(sdk_app.state.jobs.launcher, "gpus", lambda: Gpus(two))
    (mine,) = gui.get("/jobs/busy/usage").json()["gpus"]
    assert (mine["id"], mine["load"], mine["memory_total"] - mine["memory_free"]) == (1, 75, 50)
    api.post("/v1/jobs/busy/stop", json={"keep_best": False})


def test_a_finished_job_links_to_its_model_as_long_as_there_is_one(gui: TestClient, job: str):
    assert 'href="/models/common/try"' in gui.get("/jobs/common").text
    gui.post("/models/common/retire")
    retired = gui.get("/jobs/common").text
    assert "The retired model" in retired
    assert 'href="/models/common/try"' not in retired
    gui.post("/models/common/delete")
    gone = gui.get("/jobs/common")
    assert "Its model was deleted." in text_of(gone)
    assert 'href="/models/common' not in gone.text


def test_many_jobs_are_folded_once_and_not_at_each_look(api: TestClient, settings: SdkSettings, monkeypatch: pytest.MonkeyPatch):
    for number in range(30):
        written_job(settings.checkpoints, f"j{number}", [epoch(number + 1) for number in range(20)] + [Finished()])
    api.get("/v1/jobs?brief=true").raise_for_status()
    read: list[str] = []
    monkeypatch.setattr("docker_sdk_api.standing.read_events", lambda lines: read.extend(lines) or iter(()))
    views = api.get("/v1/jobs?brief=true").json()
    assert len(views) == 30
    assert read == []
    assert len(views[0]["status"]["history"]) == 20
    assert set(views[0]["status"]["history"][0]) == {"epoch", "loss", "learning_rate", "seconds", "mean_iou"}


def test_of_jobs_whose_folders_were_removed_by_hand_nothing_is_kept(api: TestClient, sdk_app: FastAPI, settings: SdkSettings):
    names = [f"j{number:02}" for number in range(50)]
    for name in names:
        written_job(settings.checkpoints, name, [epoch(1), epoch(2), Finished()])
        serve_brightness(settings.checkpoints, name)
    ends, state = Ends(sdk_app.state.jobs), sdk_app.state

    def look() -> list[int]:
        ends.look()
        listed = len(api.get("/v1/jobs?brief=true").json()), len(api.get("/v1/models").json())
        state.speeds._looked = (0.0, [])
        state.speeds.ran()
        return [*listed, *map(len, (state.jobs.standing._kept, state.models._known, state.speeds._read, ends._rounds._said))]

    assert look() == [50, 50, 50, 50, 40, 0], "and of a look that went well nothing is kept at all"
    for name in names:
        shutil.rmtree(settings.checkpoints / name)
    assert look() == [0, 0, 0, 0, 0, 0]


def test_what_goes_wrong_is_said_again_after_it_went_well(caplog: pytest.LogCaptureFixture):
    rounds = Rounds("test")

    def breaks() -> None:
        raise OSError("no disk")

    for look in (breaks, breaks, lambda: None, breaks):
        rounds.attempt(look, None, "It could not be looked at")
    assert caplog.messages == ["It could not be looked at: no disk"] * 2
