"""A training that prints without end: its log stays within the room that is set, and is read as if nothing had happened to it."""

import errno
import os
import re
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contracts.events import Finished, Stage
from contracts.job_folder import JobFolder
from docker_sdk_api import ends, log_limit
from docker_sdk_api.app import create_app
from docker_sdk_api.launchers.alike import log_lines
from docker_sdk_api.log_limit import LogLimit
from docker_sdk_api.logs import LineReader
from docker_sdk_api.settings import Settings
from tests.conftest import ended, text_of, wait_for
from tests.test_docker_sdk_api import read_frames
from tests.test_job_page import written_job

MOST = 400_000
PRINTED = 60_000
PRINTS = f"""#!/bin/sh
case "$*" in *training_api*) "{sys.executable}" -c '
import time
for number in range({PRINTED}):
    print(f"line {{number:06}} of a talkative training" + "." * 60, flush=number % 500 == 0)
    time.sleep(0.02 * (number % 500 == 0))
'
esac
exec "{sys.executable}" "$@"
"""
"""An interpreter whose trainings print 6 MB before they begin."""
LINE = re.compile(r"line (\d{6}) of a talkative training\.{60}")
TOLD = re.compile(r"… (\d+\.\d) MB of this log were left out here, more than TRAIN_LOG_MEGABYTES allows …")


def room(log: Path) -> int:
    return log.stat().st_blocks * 512


def filled(log: Path, lines: int = 20_000) -> Path:
    """A log of 2 MB."""
    log.write_text("".join(f"line {number:06} of a talkative training{'.' * 60}\n" for number in range(lines)))
    return log


@pytest.fixture
def talkative(settings: Settings, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine whose trainings print far more than their logs may take."""
    python = tmp_path / "python"
    python.write_text(PRINTS)
    python.chmod(0o755)
    monkeypatch.setattr(ends, "BETWEEN", 0.2)
    return settings.model_copy(update={"task_python": python, "train_log_megabytes": MOST / 1e6})


def backwards(api: TestClient) -> list[str]:
    """Every line, by parts from the end."""
    seen: list[str] = []
    place: dict[str, int] = {}
    while place.get("before") != 0:
        part = api.get("/v1/jobs/m/log/part", params={**place, "lines": 700}).json()
        seen, place = part["lines"] + seen, {"before": part["start"]}
    return seen


def forwards(api: TestClient) -> list[str]:
    """Every line, by parts from the beginning."""
    seen: list[str] = []
    part = {"end": 0, "size": 1}
    while part["end"] < part["size"]:
        part = api.get("/v1/jobs/m/log/part", params={"after": part["end"], "lines": 700}).json()
        seen += part["lines"]
    return seen


def test_a_training_that_prints_without_end_keeps_its_first_and_its_last_lines_and_no_more(talkative: Settings):
    log = JobFolder(talkative.checkpoints / "m").log_file
    largest = 0
    with TestClient(create_app(talkative)) as api:
        wish = {"name": "m", "dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}
        assert api.post("/v1/jobs", json={**wish, "hyperparameters": {"epochs": 1}}).status_code == 201

        def over() -> bool:
            nonlocal largest
            largest = max(largest, room(log) if log.exists() else 0)
            return bool(ended(api, "m"))

        wait_for(over, 120)
        assert api.get("/v1/jobs/m").json()["status"]["state"] == "finished"
        wait_for(lambda: room(log) <= MOST * 1.25, 30)
        assert largest < log.stat().st_size / 2, "it was kept short while it was written"
        lines = backwards(api)
        assert forwards(api) == lines
        assert [frame["data"] for frame in read_frames(api, "/v1/jobs/m/log/stream") if frame["event"] == "message"] == lines
        assert list(log_lines(JobFolder(log.parent))) == lines
        numbers = [int(found[1]) for line in lines if (found := LINE.fullmatch(line))]
        (place,) = [place for place, line in enumerate(lines) if TOLD.fullmatch(line)]
        assert numbers[:place] == list(range(place)), "the beginning is whole"
        assert numbers[place:] == list(range(numbers[place], PRINTED)), "and so is the end"
        assert lines[-1] == "finished: the model is published"
        file = api.get("/v1/jobs/m/log/file")
        assert file.text == "\n".join(lines) + "\n"
        assert file.headers["content-length"] == str(len(file.content))
        assert 'filename="m.log"' in file.headers["content-disposition"]
        found = api.get("/v1/jobs/m/log/search", params={"word": "left out"}).json()
        assert [hit["line"] for hit in found["hits"]] == [lines[place]]
        there = api.get("/v1/jobs/m/log/part", params={"after": found["hits"][0]["at"], "lines": 2}).json()
        assert there["lines"] == lines[place : place + 2]
        for number in (0, place - 1, PRINTED - 1):
            assert len(api.get("/v1/jobs/m/log/search", params={"word": f"LINE {number:06}"}).json()["hits"]) == 1
        assert api.get("/v1/jobs/m/log", params={"tail": 1}).text == lines[-1] + "\n"


def test_who_was_at_a_place_that_was_left_out_goes_on_behind_it(gui: TestClient, api: TestClient, settings: Settings):
    folder = written_job(settings.checkpoints, "m", [Finished()])
    LogLimit(MOST / 1e6).hold(filled(folder.log_file))
    lines = backwards(api)
    behind = next(line for line in lines if TOLD.fullmatch(line))
    for at in (MOST // 4, MOST, 1_500_000):
        assert read_frames(api, f"/v1/jobs/m/log/stream?after={at}")[0]["data"] == behind
        part = api.get("/v1/jobs/m/log/part", params={"after": at, "lines": 1}).json()
        assert (part["start"], part["lines"]) == (at, [behind])
        before = api.get("/v1/jobs/m/log/part", params={"before": at, "lines": 1}).json()
        assert LINE.fullmatch(before["lines"][0])
        assert before["start"] < MOST // 4
    assert gui.get("/jobs/m/log").text.splitlines() == lines
    assert behind in text_of(gui.get("/jobs/m/log/search", params={"word": "left out"}))


def test_who_follows_a_log_that_is_kept_short_meanwhile_gets_whole_lines_only(tmp_path: Path):
    log, limit = tmp_path / "log", LogLimit(MOST / 1e6)
    reader, seen = LineReader(log), list[str]()
    for first in range(0, 60_000, 5000):
        with log.open("a") as more:
            more.writelines(f"line {number:06} of a talkative training{'.' * 60}\n" for number in range(first, first + 5000))
        seen += [line for line, _ in reader.read()]  # at most 256 KiB, of more than have come
        limit.hold(log)
    before = -1
    while reader.offset > before:
        before, lines = reader.offset, reader.read()
        seen += [line for line, _ in lines]
    numbers = [int(found[1]) for line in seen if (found := LINE.fullmatch(line))]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59_999
    others = [line for line in seen if not LINE.fullmatch(line)]
    assert others
    assert all(TOLD.fullmatch(line) for line in others)


def test_the_log_of_a_job_that_ended_before_anybody_looked_is_kept_short_too(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ends, "BETWEEN", 0.1)
    log = filled(written_job(settings.checkpoints, "m", [Finished()]).log_file)
    with TestClient(create_app(settings.model_copy(update={"train_log_megabytes": MOST / 1e6}))):
        wait_for(lambda: room(log) <= MOST * 1.25, 30)
    unlimited = filled(log.with_name("other.log"))
    LogLimit(0).hold(unlimited)
    assert room(unlimited) >= 1_900_000


def test_what_is_left_out_later_takes_the_former_note_with_it(tmp_path: Path):
    log, limit = filled(tmp_path / "log"), LogLimit(MOST / 1e6)
    for _ in range(5):
        limit.hold(log)
        with log.open("a") as more:
            more.writelines(f"line {number:06} of a talkative training{'.' * 60}\n" for number in range(10_000))
    limit.hold(log)
    assert [float(megabytes) for megabytes in TOLD.findall(log.read_text())] == [pytest.approx((log.stat().st_size - MOST) / 1e6, abs=0.1)]


@pytest.mark.parametrize("text", ["x" * 2_000_000, "\r".join(["50 %"] * 400_000)], ids=["one line", "a progress bar"])
def test_a_log_without_a_line_end_is_kept_short_all_the_same(tmp_path: Path, text: str):
    log = tmp_path / "log"
    log.write_text(text)
    LogLimit(MOST / 1e6).hold(log)
    assert room(log) <= MOST * 1.25
    assert TOLD.search(log.read_text())


def test_a_link_or_a_file_with_a_second_name_in_the_place_of_a_log_is_left_alone(tmp_path: Path):
    other = filled(tmp_path / "somebody's")
    content, log = other.read_bytes(), tmp_path / "train.log"
    for make in (log.symlink_to, log.hardlink_to):
        make(other)
        LogLimit(MOST / 1e6).hold(log)
        assert other.read_bytes() == content
        log.unlink()
    LogLimit(MOST / 1e6).hold(log)
    log.mkdir()
    LogLimit(1e-6).hold(log)
    os.mkfifo(tmp_path / "pipe")
    LogLimit(1e-6).hold(tmp_path / "pipe")


def test_a_disk_that_knows_no_holes_is_said_once_and_its_logs_stay_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def cannot(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    logs = [filled(written_job(settings.checkpoints, name, [Finished()]).log_file) for name in ("a", "b")]
    before = [log.read_bytes() for log in logs]
    monkeypatch.setattr(log_limit, "_punch", cannot)
    looks = ends.Ends(create_app(settings.model_copy(update={"train_log_megabytes": MOST / 1e6})).state.jobs)
    for _ in range(3):
        looks.look()
    assert caplog.text.count("cannot take the middle out of a file") == 1
    assert [log.read_bytes() for log in logs] == before


def test_a_place_that_no_file_has_is_refused_and_the_last_one_is_empty(settings: Settings):
    written_job(settings.checkpoints, "m", [Stage(state="training", stage="training"), Finished()]).log_file.write_text("one\n")
    with TestClient(create_app(settings)) as api:
        for asked in ("stream?after=", "part?after=", "part?before=", "search?word=one&before="):
            assert api.get(f"/v1/jobs/m/log/{asked}{10**30}").status_code == 400, asked
            assert api.get(f"/v1/jobs/m/log/{asked}{2**62}").status_code == 200, asked
        assert api.get("/v1/jobs/m/log/stream", headers={"Last-Event-ID": str(10**30)}).status_code == 400
