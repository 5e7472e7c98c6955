"""The catalogue of networks: each of the pytorch engine learns, is kept, is exported and is served as it was trained."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from annotations.dataset import open_dataset
from contracts.errors import Invalid
from contracts.hyperparameters import Hyperparameters
from contracts.networks import CATALOGUE, ENGINES, Network, find_network
from runtimes import open_graph
from tests.conftest import draw_dataset
from training_api.data import Crops
from training_api.engines import Engine, Plan, create_engine
from training_api.engines.pytorch_networks import ENCODERS, backbone_of, build_network, head_names

PYTORCH = [row for row in CATALOGUE if row.engine == "pytorch"]
CLASSES = 3
SIZES = ((1, 96, 160), (2, 64, 32))
"""Pictures, height and width: one whose feature maps are no multiple of any pyramid's bins, two with a side of one pixel."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads wait for each other longer than layers this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def learnt_from(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("datasets") / "plates")


def engine(row: Network, dataset: Path, batch_size: int, seed: int) -> Engine:
    settings = Hyperparameters(batch_size=batch_size, crop=64, short_side=64, crops_per_picture=1, workers=0, epochs=4)
    crops = Crops(open_dataset(dataset).pairs[: 2 * batch_size], settings, seed)
    return create_engine(Plan(row, settings, CLASSES, [0.8, 0.1, 0.1], crops, [], seed))


@pytest.mark.parametrize("row", PYTORCH, ids=lambda row: row.key)
def test_a_network_learns_is_kept_and_is_served_as_it_was_trained(row: Network, learnt_from: Path, tmp_path: Path):
    trained = engine(row, learnt_from, batch_size=2, seed=1)
    losses = [float(step.loss) for step in trained.train_epoch(1)]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    trained.save(tmp_path)
    trained.export(tmp_path)

    other = engine(row, learnt_from, batch_size=1, seed=2)
    assert all(math.isfinite(float(step.loss)) for step in other.train_epoch(1)), "a batch of one teaches too"
    pictures = [np.random.default_rng(0).normal(size=(count, 3, *size)).astype(np.float32) for count, *size in SIZES]
    scores = [trained.predict(picture) for picture in pictures]
    assert not np.array_equal(other.predict(pictures[0]), scores[0])
    other.load(tmp_path)
    assert np.array_equal(other.predict(pictures[0]), scores[0])

    served = open_graph(tmp_path, "onnxruntime", "float32")
    for picture, ours in zip(pictures, scores, strict=True):
        theirs = served.predict(picture)
        assert theirs.shape == ours.shape == (len(picture), CLASSES, *picture.shape[2:])
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3 * np.abs(ours).max())
        assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.999


@pytest.mark.parametrize("row", PYTORCH, ids=lambda row: row.key)
def test_the_figures_of_a_network_are_those_of_its_module(row: Network):
    network = build_network(row.network, row.backbone, classes=2).to("meta").eval()
    assert row.parameters == pytest.approx(sum(value.numel() for value in network.parameters()) / 1e6, rel=0.02)
    with FlopCounterMode(display=False) as count:
        network(torch.zeros(1, 3, 256, 256, device="meta"))
    assert row.gflops == pytest.approx(count.get_total_flops() / 1e9, rel=0.02)


@pytest.mark.parametrize("row", {row.network: row for row in PYTORCH}.values(), ids=lambda row: row.network)
def test_only_the_head_depends_on_the_number_of_classes(row: Network):
    few, many = (build_network(row.network, row.backbone, classes) for classes in (2, 5))
    shapes = {name: value.shape for name, value in few.state_dict().items()}
    differ = {name for name, value in many.state_dict().items() if shapes[name] != value.shape}
    assert differ == set(head_names(few)) == set(head_names(many))
    assert not any(name.startswith(("encoder.", "backbone.")) for name in differ)
    assert len(backbone_of(few).state_dict()) > len(differ)


def test_the_licence_of_the_weights_is_what_their_package_says():
    import timm

    for row in PYTORCH:
        encoder = ENCODERS.get(row.backbone, "")
        assert row.weights_licence.startswith(("BSD-3-Clause", "Apache-2.0")), row.key
        if encoder.startswith("tu-") and row.network not in ("deeplabv3", "lraspp"):
            published = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
            assert row.weights_licence.lower().startswith(f"{published.license} (timm"), row.key
            assert ("12k" in row.weights_licence) == ("in12k" in encoder), row.key


def test_recommended_networks_come_first_and_the_others_follow_by_weight():
    order = [(not row.recommended, ["light", "medium", "heavy"].index(row.group) if not row.recommended else 0) for row in PYTORCH]
    assert order == sorted(order)
    assert [row.engine for row in CATALOGUE] == sorted((row.engine for row in CATALOGUE), key=list(ENGINES).index)
    assert len({row.key for row in CATALOGUE}) == len(CATALOGUE)


def test_the_usual_crop_of_every_network_is_large_enough_for_it():
    for row in CATALOGUE:
        row.refuse_small_crop(Hyperparameters(**row.defaults).crop)
    with pytest.raises(Invalid, match=r"A crop of 32 pixels is too small for U-Net on ResNet-34.*Set crop to 64 or more"):
        find_network("pytorch", "unet", "resnet34").refuse_small_crop(32)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (("pytorch", "unet", "resnet43"), "Did you mean pytorch/unet/resnet34.*pytorch/unet is there on: resnet18, "),
        (("pytorch", "deeplab", "resnet50"), "Did you mean pytorch/deeplabv3/resnet50.*The networks of pytorch are: unet, "),
        (("tensorflow", "x", "y"), "The engines are: pytorch, gluon, majority"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_what_was_meant_and_what_there_is(asked: tuple[str, str, str], answer: str):
    with pytest.raises(Invalid, match=answer) as refusal:
        find_network(*asked)
    assert len(str(refusal.value)) < 400
