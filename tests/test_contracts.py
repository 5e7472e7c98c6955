"""Settings, events and the job folder: what is written is what is read, whenever it is read."""

import threading
from pathlib import Path

import pytest

from contracts.errors import Invalid
from contracts.events import EpochDone, Failed, Finished, Progress, Stage, Started, fold
from contracts.hyperparameters import Hyperparameters, describe_hyperparameters, read_hyperparameters
from contracts.job import EpochScores
from contracts.job_folder import JobFolder, folder_aside, write_aside
from contracts.networks import CATALOGUE, find_network


def scores(epoch: int, mean_iou: float, best: bool = False) -> EpochScores:
    return EpochScores(epoch=epoch, loss=1 / epoch, learning_rate=0.1, seconds=1, mean_iou=mean_iou, best=best)


def test_a_setting_out_of_range_is_refused_with_the_range():
    with pytest.raises(Invalid, match=r"learning_rate cannot be -1.*greater than 0"):
        read_hyperparameters({"learning_rate": -1}, {})


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(Invalid, match=r"no setting “learnrate”.*learning_rate"):
        read_hyperparameters({"learnrate": 1}, {})


def test_what_is_given_goes_before_the_networks_defaults_and_those_before_the_common_ones():
    settings = read_hyperparameters({"epochs": 3}, {"epochs": 1, "crop": 64})
    assert (settings.epochs, settings.crop, settings.batch_size) == (3, 64, Hyperparameters().batch_size)


def test_every_setting_is_described():
    for row in describe_hyperparameters():
        assert row["help"].endswith("."), row
        assert row["level"] in ("basic", "advanced"), row
        if row["kind"] in ("integer", "number"):
            assert row["minimum"] is not None, row


def test_the_defaults_of_every_network_are_settings_in_range():
    for row in CATALOGUE:
        read_hyperparameters({}, row.defaults)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(Invalid, match="pytorch/unet/resnet18"):
        find_network("pytorch", "unet", "resnet19")


def test_the_status_of_a_job_is_the_fold_of_its_events():
    status = fold(
        [
            Stage(state="starting", stage="checking the dataset"),
            Started(epochs=2, device="CPU"),
            Stage(state="training", stage="training"),
            Progress(epoch=1, step=3, steps=5, loss=0.7, pictures_per_second=4, seconds_left=9),
            EpochDone(scores=scores(1, 0.6, best=True)),
            EpochDone(scores=scores(2, 0.5)),
            Finished(),
        ]
    )
    assert (status.state, status.epoch, status.epochs) == ("finished", 2, 2)
    assert status.best is not None
    assert status.best.mean_iou == 0.6
    assert [row.epoch for row in status.history] == [1, 2]
    assert status.ended is not None


def test_a_job_that_goes_on_has_each_epoch_once():
    events = [Started(epochs=3, device="CPU"), EpochDone(scores=scores(1, 0.5)), EpochDone(scores=scores(2, 0.6))]
    again = [Started(epochs=3, device="CPU", from_epoch=1), EpochDone(scores=scores(2, 0.7)), EpochDone(scores=scores(3, 0.8))]
    assert [row.mean_iou for row in fold(events + again).history] == [0.5, 0.7, 0.8]


def test_a_failed_job_says_cause_and_cure():
    status = fold([Failed(cause="It broke.", cure="Mend it.")])
    assert (status.state, status.cause, status.cure) == ("failed", "It broke.", "Mend it.")


def test_an_event_that_is_being_written_is_left_for_the_next_time(tmp_path: Path):
    folder = JobFolder(tmp_path)
    whole = Finished().model_dump_json()
    folder.events_file.write_text(Stage(state="starting", stage="x").model_dump_json() + "\n" + whole[:20])
    assert len(folder.events()) == 1
    folder.events_file.write_text(Stage(state="starting", stage="x").model_dump_json() + "\n" + whole + "\n")
    assert fold(folder.events()).state == "finished"


def test_a_folder_takes_its_place_only_when_it_is_whole(tmp_path: Path):
    place = tmp_path / "best"
    with folder_aside(place) as aside:
        (aside / "weights").write_text("first")

    def break_off() -> None:
        with folder_aside(place) as aside:
            (aside / "weights").write_text("second")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert (place / "weights").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_file_is_never_seen_in_part(tmp_path: Path):
    file = tmp_path / "f"
    write_aside(file, "a" * 100_000)
    done = threading.Event()

    def write() -> None:
        for letter in "bcdefgh" * 10:
            write_aside(file, letter * 100_000)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        content = file.read_text()
        assert content == content[0] * 100_000
    writer.join(timeout=10)


def test_a_wish_to_stop_is_read_as_it_was_written(tmp_path: Path):
    folder = JobFolder(tmp_path)
    assert folder.asked_to_stop() is None
    folder.ask_to_stop(keep_best=True)
    assert folder.asked_to_stop() == {"keep_best": True}
