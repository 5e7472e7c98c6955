"""The recommended preset: what it moves away from a network's defaults, for which dataset and which machine, and that it says why."""

from itertools import product
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from annotations.doctor.findings import Report
from annotations.split import Split
from cli.__main__ import app as cli
from contracts.hyperparameters import read_hyperparameters
from contracts.networks import CATALOGUE, find_network
from docker_sdk_api.recommend import Place, Recommended, recommend, recommend_network

UNET = find_network("pytorch", "unet", "resnet18")
GB = 10**9
CPU = Place(cores=2, memory=16 * GB)
GPU = Place(cores=16, memory=24 * GB, gpu="GPU of 24 GB")


def report(pictures: int, size: str = "1024 × 768", shares: tuple[float, ...] = (0.965, 0.007, 0.028)) -> Report:
    """A dataset of so many pictures of one size whose classes have these shares of the pixels."""
    return Report(
        dataset="some",
        classes=["background", "pad", "circle"],
        pictures=pictures,
        sizes={size: pictures},
        class_pixels=[round(share * 1_000_000) for share in shares],
        class_pictures=[pictures, pictures, pictures],
    )


def values(rows: list[Recommended]) -> dict[str, object]:
    return {row.setting: row.value for row in rows}


def moved(rows: list[Recommended]) -> dict[str, object]:
    return {row.setting: row.value for row in rows if row.value != row.usual}


def crops(rows: list[Recommended], training: int) -> int:
    """How many crops are learnt from in all."""
    found = values(rows)
    return training * int(str(found["epochs"])) * int(str(found["crops_per_picture"]))


def why(rows: list[Recommended], setting: str) -> str:
    return next(row.reason for row in rows if row.setting == setting)


def test_photographs_like_those_the_defaults_were_tuned_on_get_the_defaults():
    assert moved(recommend(report(51), CPU, UNET)) == {}


def test_twenty_tiny_pictures_are_visited_more_often_in_crops_that_fit_into_them():
    rows = recommend(report(20, "100 × 90"), CPU, UNET)
    assert values(rows)["crop"] == 64
    assert values(rows)["short_side"] == 90
    assert "90 pixels" in why(rows, "crop")
    assert crops(rows, 16) == pytest.approx(crops(recommend(report(51), CPU, UNET), 41), rel=0.05), "as many steps as the recipe has"


def test_epochs_fall_as_pictures_rise_and_the_work_grows_more_slowly_than_the_dataset():
    sizes = (10, 50, 500, 5_000, 50_000)
    found = [recommend(report(pictures), CPU, UNET) for pictures in sizes]
    epochs = [int(str(values(rows)["epochs"])) for rows in found]
    work = [crops(rows, round(pictures * 0.8)) for rows, pictures in zip(found, sizes, strict=True)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 2
    assert work[-1] / work[1] < 1000 / 5


def test_twenty_thousand_pictures_on_a_gpu_are_learnt_in_large_batches_of_large_crops():
    rows = recommend(report(20_000, "1920 × 1080"), GPU, UNET)
    found = values(rows)
    assert found["crop"] == 256
    assert found["batch_size"] == 32
    assert found["short_side"] == 768
    assert found["crops_per_picture"] == 2
    assert found["workers"] == 8
    assert found["fit_memory"] is True, "how much fits is a guess"
    assert found["learning_rate"] == pytest.approx(0.004), "goes with the square root of the batch"
    assert "GPU of 24 GB" in why(rows, "batch_size")


def test_a_crop_is_never_larger_than_the_picture_nor_smaller_than_the_network_can_learn_from():
    for network in CATALOGUE:
        for side in (20, 40, 100, 200, 300, 1000):
            for place in (CPU, GPU):
                found = values(recommend(report(40, f"{side * 2} × {side}"), place, network))
                if found:
                    crop = int(str(found["crop"]))
                    assert network.smallest_crop <= crop <= max(side, network.smallest_crop)
                    assert int(str(found["short_side"])) <= max(32, side)


def test_pictures_of_a_large_camera_keep_more_of_their_detail():
    rows = recommend(report(51, "4000 × 3000"), CPU, UNET)
    assert moved(rows) == {"short_side": 768}
    assert "small things" in why(rows, "short_side")


def test_a_class_with_next_to_no_pixels_gets_more_crops_and_more_weight_and_says_when_few_pictures_show_it():
    rare = report(51, shares=(0.9695, 0.0005, 0.03)).model_copy(update={"class_pictures": [51, 3, 40]})
    rows = recommend(rare, CPU, UNET)
    assert moved(rows) == {"rare_class_share": 0.8, "balance": 0.3}
    assert "pad has only 0.05 %" in why(rows, "balance")
    assert "Only 3 pictures show it" in why(rows, "rare_class_share")


def test_a_class_that_is_in_no_mask_does_not_count_as_rare():
    assert moved(recommend(report(51, shares=(0.9, 0.0, 0.1)), CPU, UNET)) == {}


def test_in_little_memory_a_batch_is_taken_in_parts_and_much_memory_changes_nothing_on_a_processor():
    heavy = find_network("pytorch", "deeplabv3plus", "resnet50")
    small = recommend(report(51), Place(2, int(2.4 * GB)), heavy)
    assert moved(small) == {"accumulate": 3, "fit_memory": True}, "eight crops, three at once: it learns as it always does"
    assert "2.4 GB" in why(small, "accumulate")
    assert moved(recommend(report(51), Place(64, 512 * GB), heavy)) == {}


def test_an_engine_that_cannot_take_a_batch_in_parts_gets_a_smaller_one_and_smaller_steps():
    network = find_network("gluon", "fastscnn", "fastscnn")
    found = moved(recommend(report(51), Place(2, 2 * GB), network))
    assert found == {"batch_size": 3, "learning_rate": pytest.approx(0.004 * (3 / 8) ** 0.5, rel=0.03)}


def test_a_split_that_lies_with_the_dataset_says_how_many_pictures_teach():
    given = report(100).model_copy(update={"split": Split(training=[f"p{i}" for i in range(12)], validation=["v"])})
    assert "12 pictures teach" in why(recommend(given, CPU, UNET), "epochs")


@pytest.mark.parametrize("place", [CPU, GPU, Place(1, GB // 2)], ids=["processor", "gpu", "half-a-gigabyte"])
def test_every_value_is_allowed_and_comes_with_a_sentence(place: Place):
    for network, (pictures, size) in product(CATALOGUE, ((2, "8 × 8"), (51, "1024 × 768"), (10**6, "9000 × 9000"))):
        rows = recommend(report(pictures, size), place, network)
        assert bool(rows) == (network.engine != "majority")
        read_hyperparameters(values(rows), network.defaults, network.engine)
        for row in rows:
            assert row.reason.endswith("."), row
            assert len(row.reason) > 20, row


def test_the_light_network_is_recommended_for_few_pictures_or_no_gpu_and_a_larger_one_for_many_on_a_gpu():
    assert recommend_network(report(20_000), CPU, CATALOGUE)[0] is UNET
    assert recommend_network(report(51), GPU, CATALOGUE)[0] is UNET
    assert recommend_network(report(20_000), Place(16, GB, "small GPU"), CATALOGUE)[0] is UNET
    larger, reason = recommend_network(report(20_000), GPU, CATALOGUE)
    assert larger.parameters > 5 * UNET.parameters
    assert "16\u202f000 pictures" in reason


def test_the_api_recommends_for_a_dataset_and_the_machine_it_runs_on(api: TestClient, dataset: Path):
    answer = api.get("/v1/recommendation", params={"dataset": "plates", "network": "pytorch/unet/resnet18"}).json()
    rows = {row["setting"]: row for row in answer["settings"]}
    assert rows["crop"]["value"] == 32
    assert rows["crop"]["usual"] == 128
    assert "48 pixels" in rows["crop"]["reason"]
    own = api.get("/v1/recommendation", params={"dataset": "plates"}).json()
    assert own["network"] == answer["network"]
    assert own["reason"].endswith(".")


def test_the_api_refuses_what_it_does_not_know(api: TestClient, dataset: Path):
    for words, status in (({"dataset": "none"}, 404), ({"dataset": "plates", "network": "unet"}, 400), ({}, 400)):
        answer = api.get("/v1/recommendation", params=words)
        assert answer.status_code == status
        assert answer.json()["cure"]


def test_the_command_line_takes_the_recommended_values_only_when_asked_and_what_is_set_goes_over_them(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path / "checkpoints"))
    words = ["train", str(dataset), "--engine", "pytorch", "--set", "crop=33"]  # out of range: nothing is started
    plain = CliRunner().invoke(cli, words)
    suited = CliRunner().invoke(cli, [*words, "--recommended"])
    for result in (plain, suited):
        assert "crop cannot be 33" in str(result.exception)
    assert "batch_size" not in plain.output
    assert "batch_size 8" in suited.output
