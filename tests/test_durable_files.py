"""What was written is there and whole: files, lines, checkpoints, and a training that goes on from the newest sound one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.durable import append_line, damage, folder_aside, seal, write_aside
from contracts.events import EpochDone, Failed, Progress, Warned
from contracts.job import EpochScores
from contracts.job_folder import BALLAST, JobFolder
from contracts.model import read_model
from tests.conftest import ROOT
from tests.test_training import run, states, write_job
from training_api.checkpoints import PROGRESS, Checkpoints, Reached, best_scores


def scores(epoch: int) -> EpochScores:
    return EpochScores(epoch=epoch, loss=1.0, learning_rate=0.1, seconds=1.0, mean_iou=epoch / 10, best=True)


def saved(folder: JobFolder, *epochs: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, lambda _: None)
    for epoch in epochs:
        fill = lambda aside, epoch=epoch: (aside / "weights").write_bytes(b"%d" % epoch * 1000)  # noqa: E731
        checkpoints.save(fill, Reached(epoch=epoch, best=scores(epoch), scores=scores(epoch)))
    return checkpoints


def spoil(file: Path) -> None:
    """As a disk does: a byte is another one, and the size is the same. Under this name only: files may have two."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)


def found(folder: JobFolder) -> tuple[int | None, list[str]]:
    """The epoch after which a training would go on, and what it is warned of."""
    warnings: list[str] = []
    checkpoints = Checkpoints(folder, warnings.append)
    checkpoints.settle()
    place = checkpoints.newest()
    return (checkpoints.reached(place).epoch if place else None), warnings


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path):
    file = tmp_path / "a"
    write_aside(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_aside(file, "\ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_line_that_was_broken_off_goes_before_the_next_one(tmp_path: Path):
    file = tmp_path / "lines"
    append_line(file, b"one", durable=True)
    for left in (b"tw", b"x" * 200_000, b"\0" * 100):
        with open(file, "ab") as opened:
            opened.write(left)
        append_line(file, b"next", durable=False)
    assert file.read_bytes() == b"one\nnext\nnext\nnext\n"


def test_a_sealed_folder_knows_every_kind_of_damage(tmp_path: Path):
    def sealed() -> Path:
        with folder_aside(tmp_path / "f") as aside:
            (aside / "a").write_bytes(b"content")
            seal(aside)
        return tmp_path / "f"

    assert damage(sealed()) == ""
    spoil(sealed() / "a")
    assert "another checksum" in damage(tmp_path / "f")
    (sealed() / "a").write_bytes(b"cont")
    assert "4 bytes instead of 7" in damage(tmp_path / "f")
    (sealed() / "a").unlink()
    assert "a is missing" in damage(tmp_path / "f")
    for nonsense in ("", "[]", '{"a": 1}', "\0\0"):
        (sealed() / "manifest.json").write_text(nonsense)
        assert damage(tmp_path / "f"), nonsense


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path):
    folder = JobFolder(tmp_path)
    saved(folder, 1, 2, 3)
    assert found(folder) == (3, [])
    spoil(folder.last / "weights")
    epoch, warnings = found(folder)
    assert epoch == 2
    assert "last/ is damaged" in warnings[0]
    spoil(folder.before / "weights")
    epoch, warnings = found(folder)
    assert epoch is None
    assert "begins anew" in warnings[-1]


def test_a_damaged_checkpoint_never_takes_the_place_of_a_sound_one(tmp_path: Path):
    folder = JobFolder(tmp_path)
    saved(folder, 1, 2)
    spoil(folder.last / "weights")
    checkpoints = Checkpoints(folder, lambda _: None)
    assert checkpoints.newest() == folder.before
    checkpoints.save(lambda aside: (aside / "weights").write_bytes(b"2"), Reached(epoch=2, best=None, scores=scores(2)))
    assert found(folder) == (2, [])
    spoil(folder.last / "weights")
    assert found(folder)[0] == 1


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_that_was_about_to_take_its_place_takes_it(tmp_path: Path, name: str):
    folder = JobFolder(tmp_path)
    saved(folder, 1, 2)
    (folder.path / name).rename(folder.path / f".{name}.new")  # where a kill between two renames leaves it
    assert found(folder) == (2, [])
    assert Checkpoints(folder, lambda _: None).has_best()


def test_a_checkpoint_that_could_not_be_written_leaves_all_others(tmp_path: Path):
    folder = JobFolder(tmp_path)
    checkpoints = saved(folder, 1, 2)

    def breaks(aside: Path) -> None:
        (aside / "weights").write_bytes(b"half")
        raise ValueError("the framework broke")

    with pytest.raises(ValueError, match="framework"):
        checkpoints.save(breaks, Reached(epoch=3, best=scores(3), scores=scores(3)))
    assert found(folder) == (2, [])
    assert best_scores(folder) == scores(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "best", "last"]


def test_checkpoints_of_an_older_version_have_no_checksums_and_are_read(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.last.mkdir()
    (folder.last / PROGRESS).write_text('{"epoch": 4, "best": null}')
    assert found(folder) == (4, [])


def test_a_training_whose_checkpoints_are_damaged_says_so_and_loses_one_epoch(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=3)
    assert run(folder).returncode == 0
    for file in (folder.last / "majority.json", folder.best / "majority.json"):
        spoil(file)
    job = folder.job()
    folder.write_job(job.model_copy(update={"hyperparameters": job.hyperparameters.model_copy(update={"epochs": 4})}))
    first = len(folder.events())
    result = run(folder)
    assert result.returncode == 0, result.stderr
    events = folder.events()[first:]
    assert [event.from_epoch for event in events if event.event == "started"] == [2]
    warnings = " ".join(event.message for event in events if isinstance(event, Warned))
    assert "last/ is damaged" in warnings
    assert "best/ is damaged" in warnings
    assert states(folder)[-1] == "finished"
    assert read_model(folder.model).scores == best_scores(folder)
    assert damage(folder.best) == damage(folder.last) == ""


def test_an_epoch_that_was_saved_but_not_told_of_is_told_when_the_training_goes_on(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=2)
    run(folder)
    rows = folder.figures_file.read_text().splitlines()
    lines = folder.events_file.read_text().splitlines(keepends=True)
    told = next(place for place, line in enumerate(lines) if '"epoch":2' in line and '"event":"epoch"' in line)
    folder.events_file.write_text("".join(lines[:told]))  # as if it had been killed right after the second checkpoint
    folder.figures_file.write_text("\n".join(rows[:-1]) + "\n")
    assert run(folder).returncode == 0
    assert [event.scores.epoch for event in folder.events() if event.event == "epoch"] == [1, 2]
    assert [row.split(",")[0] for row in folder.figures_file.read_text().splitlines() if row.split(",")[4]] == ["epoch", "1", "2"]


def test_a_jobs_end_has_room_that_was_kept_back_for_it(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.keep_ballast()
    assert folder.ballast.stat().st_size == BALLAST
    folder.add_event(Failed(cause="a", cure="b"))
    assert not folder.ballast.exists()
    assert json.loads(folder.events_file.read_text())["event"] == "failed"


WEEK = 150_000
"""Lines of progress, and steps: a night's rather, but as lists of objects they would take ten times the memory that is allowed."""
READS = """
import resource, sys
from pathlib import Path
from contracts.job_folder import JobFolder
from training_api.figures import FiguresFile
folder = JobFolder(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
told = folder.status()
after = sum(1 for _ in folder.events_after(1))
FiguresFile(folder, ["a"]).go_on_after(1, told.best)
print(told.best.epoch, after, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_training_of_a_week_goes_on_without_holding_what_it_told_in_memory(tmp_path: Path):
    folder = JobFolder(tmp_path)
    progress = Progress(epoch=2, step=3, steps=9, loss=0.1234567890123, pictures_per_second=33.123456789, seconds_left=123456.789)
    with open(folder.events_file, "w") as events:
        events.write(f"{EpochDone(scores=scores(1)).model_dump_json()}\n")
        events.writelines(f"{progress.model_dump_json()}\n" for _ in range(WEEK))
        events.write("x" * 5_000_000 + "\n" + '{"event": "still being wri')
    with open(folder.figures_file, "w") as figures:
        figures.write("epoch,step,loss,learning_rate,mean_iou,pixel_accuracy,iou/a,seconds\r\n")
        figures.writelines(f"{epoch},{step},0.5,0.1,,,,\r\n" for epoch in (1, 2) for step in range(WEEK))
    said = subprocess.run([sys.executable, "-c", READS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    best, after, kilobytes = map(int, said.stdout.split())
    assert (best, after) == (1, WEEK)
    assert kilobytes < 25_000
    lines = folder.figures_file.read_text().splitlines()
    assert (len(lines), lines[-2], lines[-1][:4]) == (WEEK + 2, f"1,{WEEK - 1},0.5,0.1,,,,", "1,,1")
