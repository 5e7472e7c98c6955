"""The wizard's steps for network, weights and settings: what they offer, what they recommend and why, and that nothing is lost."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from contracts.events import now
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE
from docker_sdk_api.settings import Settings as SdkSettings
from gui.answers import Gpu, Machine, NetworkChoice
from gui.app import create_app
from gui.backend import Backend
from gui.choice import chosen_gpus
from gui.estimate import step_seconds
from gui.forms import Draft, draft_of, read_draft
from gui.settings import Settings
from tests.test_gui_pages import client_of, text_of

UNET, MAJORITY = "pytorch/unet/resnet18", "majority/majority/none"
TINY = {"dataset": "plates", "network": UNET}
"""The pictures of the dataset have 64 × 48 pixels."""


@pytest.fixture
def pages(api: TestClient, sdk_app: FastAPI, inference_app: FastAPI, dataset: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), Backend(client_of(sdk_app), client_of(inference_app)))) as client:
        yield client


def field_of(page: str, name: str) -> str:
    return page.split(f'id="set-{name}"')[1].split("</div>")[0]


def machine(*free: int, cores: int = 2, bfloat16: bool = False) -> Machine:
    gpus = [Gpu(id=number, name="GPU", memory_total=80, memory_free=memory) for number, memory in enumerate(free)]
    facts = {"processor": "", "memory_total": 1, "memory_free": 1, "disk_free": 1, "engines": [], "launcher": "process", "version": ""}
    return Machine(cores=cores, bfloat16=bfloat16, gpus=gpus, **facts)


def test_every_network_is_offered_once_the_recommended_one_first_with_its_reason(pages: TestClient):
    page = pages.get("/train/settings", params={"dataset": "plates"}).text
    offered = re.findall(r'name="network" value="([^"]+)"', page)
    assert sorted(offered) == sorted(row.key for row in CATALOGUE)
    assert offered[0] == UNET
    assert re.search(rf'value="{UNET}" checked', page), "nobody has chosen: the recommended one is"
    assert "There is no GPU to train on" in html.unescape(page) or "pictures teach" in page
    assert page.index("<summary>Light") < page.index("<summary>Medium") < page.index("<summary>Heavy")


def test_the_group_that_holds_the_chosen_network_is_open(pages: TestClient):
    page = pages.get("/train/settings", params={"dataset": "plates", "network": MAJORITY}).text
    assert re.findall(r"<details[^>]* open><summary>([^<]+) <", page) == ["To compare with"]


def test_a_network_whose_engine_is_missing_is_greyed_with_the_reason(settings: SdkSettings, pages: TestClient, sdk_app: FastAPI):
    sdk_app.state.settings = settings.model_copy(update={"gluon_task_python": Path("/nowhere/bin/python")})
    page = pages.get("/train/settings", params={"dataset": "plates"}).text
    row = page.split('value="gluon/fastscnn/fastscnn"')[1].split("</label>")[0]
    assert row.startswith(" disabled")
    assert "is not installed." in row


def test_recommended_values_fill_the_fields_with_their_reason_and_the_networks_own_beside_them(pages: TestClient):
    page = pages.get("/train/hyperparameters", params=TINY).text
    crop = field_of(page, "crop")
    assert 'value="32"' in crop
    assert "the network's own is 128. A crop cannot show more than the picture" in html.unescape(crop.replace("</b>", ""))
    review = text_of(pages.get("/train/review", params=TINY))
    assert "--set crop=32" in review, "what is recommended is what is trained with"
    assert '"crop": 32' in review


def test_the_networks_own_values_can_be_taken_instead_and_the_recommended_ones_again(pages: TestClient):
    page = pages.get("/train/hyperparameters", params=TINY).text
    own = re.search(r'href="([^"]+)">Take the network&#39;s own|href="([^"]+)">Take the network\'s own', page)
    assert own
    address = html.unescape(own[1] or own[2])
    after = pages.get(address).text
    assert 'value="128"' in field_of(after, "crop")
    back = re.search(r'href="([^"]+)">Take the recommended', after)
    assert back
    assert 'value="32"' in field_of(pages.get(html.unescape(back[1])).text, "crop")


def test_a_value_that_was_typed_stays_even_where_it_equals_the_networks_own(pages: TestClient):
    chosen = {**TINY, "set.crop": "128", "set.epochs": "3"}
    page = pages.get("/train/review", params=chosen).text
    sent = dict(re.findall(r'name="(set\.\w+)" value="([^"]*)"', page))
    assert (sent["set.crop"], sent["set.epochs"]) == ("128", "3")
    assert "crop=" not in page.split("maskwright train")[1].split("</pre>")[0], "the command line's own default is the same"
    back = re.search(r'class="button" href="([^"]+)" data-back', page)
    assert back
    address = html.unescape(back[1])
    assert "set.crop=128" in address
    assert "short_side" not in address, "what was not changed follows the recommendation"
    assert "Back to the recommended values" in text_of(pages.get(address))


def test_another_network_brings_its_own_values_but_for_those_that_were_changed(pages: TestClient):
    fields = re.findall(r'name="(set\.\w+)" type="number"[^>]*value="([^"]*)"', pages.get("/train/hyperparameters", params=TINY).text)
    everything = {**TINY, **dict(fields), "set.epochs": "77"}
    kept = re.findall(r'name="(set\.\w+)" value="([^"]*)"', pages.get("/train/settings", params=everything).text)
    assert kept == [("set.epochs", "77")]


def test_only_settings_that_the_engine_heeds_are_shown(pages: TestClient):
    shown = {key: pages.get("/train/hyperparameters", params={**TINY, "network": key}).text for key in (UNET, MAJORITY)}
    assert 'id="set-precision"' in shown[UNET]
    assert 'id="set-precision"' not in shown[MAJORITY]
    assert 'id="set-learning_rate"' not in shown[MAJORITY]
    assert 'id="set-epochs"' in shown[MAJORITY]


def test_weights_that_cannot_be_had_are_said_with_the_reason_and_refused_at_their_place(pages: TestClient):
    page = text_of(pages.get("/train/settings", params=TINY))
    assert f"No earlier training of {UNET} has weights." in page
    refused = pages.get("/train/review", params={**TINY, "weights": "from_checkpoint"})
    assert refused.status_code == 422
    weights = refused.text.split('id="weights"')[1].split("</fieldset>")[0]
    assert 'class="fault"' in weights
    for odd in ({"weights": "magic"}, {"weights_from": "magic"}):
        assert pages.get("/train/review", params={**TINY, "weights": "from_scratch", **odd}).status_code == 422


def test_an_earlier_model_can_be_chosen_to_start_from(pages: TestClient, settings: SdkSettings):
    folder = JobFolder(settings.checkpoints / "before")
    (folder.path / "best").mkdir(parents=True)
    (folder.path / "best" / "state.pt").write_bytes(b"weights")
    folder.write_job(Job(name="before", dataset="plates", dataset_folder=Path("plates"), created=now(), hyperparameters=Hyperparameters()))
    page = pages.get("/train/settings", params=TINY).text
    assert re.search(r'name="from\.from_checkpoint"[^>]*>\s*<option value="before"', page)
    review = pages.get("/train/review", params={**TINY, "weights": "from_checkpoint", "from.from_checkpoint": "before"})
    assert review.status_code == 200
    words = text_of(review)
    assert "--weights from_checkpoint --weights-from before" in words
    assert '"weights_from": "before"' in words
    other = pages.get("/train/review", params={**TINY, "weights": "from_scratch", "from.from_checkpoint": "before"})
    assert "weights-from" not in other.text, "the list of another kind of weights does not count"


def test_without_a_choice_the_gpu_with_most_memory_free_is_taken_and_none_is_a_choice_too():
    choices = {row.key: NetworkChoice(**row.model_dump(), available=True) for row in CATALOGUE}
    unet = choices[UNET]
    assert chosen_gpus(Draft(), machine(10, 70, 30), unet) == ("1",)
    assert chosen_gpus(Draft(), machine(), unet) is None
    assert chosen_gpus(Draft(), machine(70), choices[MAJORITY]) is None
    nobody_asked, none, two = read_draft([]), read_draft([("gpus", "")]), read_draft([("gpus", ""), ("gpus", "0"), ("gpus", "2")])
    assert (nobody_asked.gpus, none.gpus, two.gpus) == (None, (), ("0", "2"))
    for draft in (nobody_asked, none, two):
        assert read_draft(draft.pairs()) == draft, "an address carries it"
    assert chosen_gpus(none, machine(70), unet) == ()


def test_a_former_training_starts_the_next_one_just_as_it_was():
    settings = Hyperparameters(epochs=5, crop=64)
    job = Job(
        name="before", dataset="plates", weights="from_checkpoint", weights_from="a", gpus=[1], validation_share=0.3,
        seed=4, dataset_folder=Path("plates"), created=now(), hyperparameters=settings,
    )  # fmt: skip
    draft = draft_of(job, Hyperparameters().model_dump())
    assert draft.settings == {"epochs": "5", "crop": "64"}
    assert (draft.weights, draft.weights_from, draft.gpus, draft.validation, draft.seed) == ("from_checkpoint", "a", ("1",), "30", "4")
    assert draft.preset == "own", "recommendations do not change what was asked for once"


def test_more_cores_and_bfloat16_make_the_estimate_shorter():
    row = CATALOGUE[0]
    assert step_seconds(row, machine()) == row.seconds
    assert step_seconds(row, machine(cores=16)) < row.seconds / 3
    assert step_seconds(row, machine(bfloat16=True)) < row.seconds


def test_a_config_list_of_the_waggle_plugin_can_fill_the_wizard(pages: TestClient, dataset: Path):
    assert "config.list" not in pages.get("/train/settings", params=TINY).text
    asked = {"max_iteration": 100, "lr": 1e-6, "momentum": 0.99, "weight_decay": 0.0005, "interval_validate": 10, "fcn": "50"}
    (dataset / "config.list").write_text(json.dumps({**asked, "output_dir": "a"}))
    offer = re.search(r'href="([^"]+)">Start with config.list', pages.get("/train/settings", params=TINY).text)
    assert offer
    page = pages.get(html.unescape(offer[1])).text
    assert "FCN on ResNet-50" in page
    assert 'value="20"' in field_of(page, "epochs"), "100 pictures, five of which teach"
    assert re.search(r'value="sgd" selected', page)
    assert 'value="0.003072"' in field_of(page, "learning_rate"), "per pixel of 64 × 48"
