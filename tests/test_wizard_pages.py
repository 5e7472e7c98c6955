"""The wizard's steps for network, weights and settings: what they offer, what they recommend and why, and that nothing is lost."""

import html
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from contracts.answers import Gpu, Machine
from contracts.events import now
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job, JobStatus, JobView
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE, ENGINES
from docker_sdk_api.settings import Settings as SdkSettings
from gui.answers import NetworkChoice
from gui.app import create_app
from gui.backend import Backend
from gui.choice import chosen_gpus, users_of
from gui.forms import Draft, draft_of, read_draft
from gui.settings import Settings
from tests.conftest import ROOT, client_of, draw_dataset, text_of, wait_for

UNET, MAJORITY = "pytorch/unet/resnet18", "majority/majority/none"
TINY = {"dataset": "plates", "network": UNET}
"""The pictures of the dataset have 64 × 48 pixels."""


@pytest.fixture
def pages(api: TestClient, sdk_app: FastAPI, inference_app: FastAPI, dataset: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), Backend(client_of(sdk_app), client_of(inference_app)))) as client:
        yield client


def field_of(page: str, name: str) -> str:
    return page.split(f'id="set-{name}"')[1].split("</div>")[0]


def hidden_fields(page: str) -> list[tuple[str, str]]:
    """What the step's form carries on besides what it asks."""
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    return [(html.unescape(name), html.unescape(value)) for name, value in fields]


def machine(*free: int) -> Machine:
    gpus = [Gpu(id=number, name="GPU", memory_total=80, memory_free=memory) for number, memory in enumerate(free)]
    facts = {"processor": "", "memory_total": 1, "memory_free": 1, "disk_free": 1, "engines": [], "launcher": "process", "version": ""}
    return Machine(cores=2, gpus=gpus, **facts)


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


def test_the_table_of_networks_can_be_sorted_by_what_they_cost(pages: TestClient):
    size = {row.key: row.parameters or math.inf for row in CATALOGUE}
    page = pages.get("/train/settings", params={"dataset": "plates", "order": "size"}).text
    offered = re.findall(r'name="network" value="([^"]+)"', page)
    assert sorted(offered) == sorted(size), "each once, as before"
    for engine in ("pytorch", "gluon"):
        sizes = [size[key] for key in offered[1:] if key.startswith(engine)]
        assert len(sizes) > 5
        assert sizes == sorted(sizes)
    assert '<option value="size" selected>' in page


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
    before = pages.get("/train/hyperparameters", params=hidden_fields(page))
    assert 'value="128"' in field_of(before.text, "crop")
    assert "Back to the recommended values" in text_of(before)
    settings = hidden_fields(pages.get("/train/settings", params=hidden_fields(page)).text)
    changed = {name: value for name, value in settings if name.startswith("set.")}
    assert changed == {"set.crop": "128", "set.epochs": "3"}, "what was not changed follows the recommendation"


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


def test_the_first_step_says_how_many_pictures_of_each_class_teach_and_score(pages: TestClient, dataset: Path):
    page = text_of(pages.get("/train", params={"dataset": "plates", "validation": "34"}))
    assert "4 teach 2 score" in page
    assert re.search(r"pad 2 1 .*circle 2 1 ", page), "each class in like parts"
    odd = pages.get("/train", params={"dataset": "plates", "validation": "all", "network": UNET})
    assert "between 1 and 99 %" in odd.text
    assert 'value="all"' in odd.text


def test_a_split_that_lies_with_the_dataset_is_kept_and_said(pages: TestClient, api: TestClient, dataset: Path):
    api.put("/v1/datasets/plates/split", params={"validation_share": "0.5", "seed": "1"})
    page = pages.get("/train", params={"dataset": "plates", "validation": "20"})
    assert "A split lies with this dataset" in page.text
    assert "3 teach 3 score" in text_of(page)
    assert 'id="validation"' not in page.text


def test_a_problem_of_a_dataset_is_shown_with_the_button_that_cures_it(pages: TestClient, dataset: Path):
    (dataset / "labels" / "p1.png").rename(dataset / "labels" / "p9.png")
    page = pages.get("/train", params={"dataset": "plates"})
    assert "Pictures without a mask" in page.text
    assert '<button class="button primary" disabled>Next: Settings' in page.text


def test_a_proposed_name_follows_the_dataset_and_a_typed_one_stays(pages: TestClient, tmp_path: Path, dataset: Path):
    draw_dataset(tmp_path / "datasets" / "others")
    proposed = pages.get("/train/settings", params=TINY).text
    assert 'name="name" value="plates-1"' in proposed
    for name, kept in (("plates-1", "others-1"), ("mine", "mine")):
        step = pages.get("/train", params={**TINY, "name": name}).text
        fields = [pair for pair in hidden_fields(step) if pair[0] not in ("validation", "seed")]
        assert f'name="name" value="{kept}"' in pages.get("/train/settings", params=[*fields, ("dataset", "others")]).text


def test_a_name_is_checked_where_it_is_typed(pages: TestClient, dataset: Path):
    for name, cause in (("a b", "Use 1 to 64 letters"), ("-", "starting with a letter")):
        step = pages.get("/train/settings", params={**TINY, "name": name})
        assert step.status_code == 200, "it is still being typed"
        assert cause in step.text
        further = pages.get("/train/hyperparameters", params={**TINY, "name": name})
        assert (further.status_code, cause in further.text) == (422, True)


def test_a_training_that_must_fail_says_why_at_its_field_and_cannot_be_started(pages: TestClient, api: TestClient, dataset: Path):
    huge = {**TINY, "set.crop": "2048", "set.batch_size": "512", "set.fit_memory": "false"}
    assert "are free on this machine" in field_of(pages.get("/train/hyperparameters", params=huge).text, "batch_size")
    small = {**TINY, "network": "pytorch/unet/resnet34", "set.crop": "32"}
    assert "deepest feature map" in field_of(pages.get("/train/hyperparameters", params=small).text, "crop")
    parts = {**TINY, "set.batch_size": "4", "set.accumulate": "5"}
    assert "Give 4 at most" in field_of(pages.get("/train/hyperparameters", params=parts).text, "accumulate")
    crowd = {**TINY, "processes": "9", "set.batch_size": "8"}
    assert "9 processes cannot share a batch of 8" in pages.get("/train/settings", params=crowd).text
    for wish in (huge, small, crowd):
        review = pages.get("/train/review", params=wish)
        assert review.status_code == 422
        assert "It cannot be started like this" in review.text
        assert '<button class="button primary" disabled>Start training' in review.text
        assert pages.post("/train", data=wish).status_code == 422
    assert pages.post("/train", data=parts).status_code == 422
    assert api.get("/v1/jobs").json() == []


def test_a_class_that_no_picture_would_teach_keeps_a_training_from_starting(pages: TestClient, tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "two", pictures=2)
    page = text_of(pages.get("/train", params={"dataset": "two"}))
    assert "No picture that teaches shows" in page
    assert "label more pictures that show it" in page
    assert pages.post("/train", data={"dataset": "two", "network": MAJORITY}).status_code == 422


def test_a_job_is_cloned_into_a_filled_wizard(pages: TestClient, api: TestClient, dataset: Path):
    chosen = {"dataset": "plates", "network": MAJORITY, "validation": "34", "seed": "3", "set.epochs": "2", "name": "first"}
    assert pages.post("/train", data=chosen, follow_redirects=False).status_code == 303
    clone = pages.get("/wizard", params={"clone": "first"})
    assert clone.url.path == "/train/review"
    sent = dict(re.findall(r'<input (?:type="hidden"|id="name") name="([^"]+)" value="([^"]*)"', clone.text))
    assert sent["name"] == "plates-1"
    pages.post("/train", data=sent)
    jobs = {name: api.get(f"/v1/jobs/{name}").json()["job"] for name in ("first", "plates-1")}
    assert asked_of(jobs["first"]) == asked_of(jobs["plates-1"])
    assert pages.get("/wizard", params={"clone": "nobody"}).status_code == 404
    assert pages.get("/wizard").url.path == "/train"


def asked_of(job: dict) -> dict:
    """What makes a job what it is: all but its name and when it was started."""
    return {key: value for key, value in job.items() if key not in ("name", "created")}


@pytest.mark.parametrize(
    "chosen",
    [
        {"network": MAJORITY, "validation": "34", "seed": "3", "set.epochs": "2"},
        {"network": UNET, "processes": "2", "set.epochs": "500", "set.augment": "false", "set.optimizer": "sgd", "preset": "own"},
    ],
    ids=["majority", "pytorch"],
)
def test_the_command_and_the_call_to_copy_start_the_very_job_of_the_button(
    pages: TestClient, api: TestClient, settings: SdkSettings, tmp_path: Path, chosen: dict[str, str]
):
    draw_dataset(tmp_path / "datasets" / "it's one")
    wish = {"dataset": "it's one", **chosen}
    assert pages.post("/train", data={**wish, "name": "by-page"}, follow_redirects=False).status_code == 303
    asked = [asked_of(api.get("/v1/jobs/by-page").json()["job"])]

    def to_copy(name: str) -> list[list[str]]:
        page = pages.get("/train/review", params={**wish, "name": name}).text
        return [shlex.split(html.unescape(text).replace("\\\n", "")) for text in re.findall(r"data-copy>(.*?)</pre>", page, re.DOTALL)]

    curl = to_copy("by-call")[1]
    assert curl[:3] == ["curl", "-X", "POST"]
    assert api.post("/v1/jobs", json=json.loads(curl[curl.index("-d") + 1])).status_code == 201
    asked.append(asked_of(api.get("/v1/jobs/by-call").json()["job"]))

    words = to_copy("by-command")[0]
    assert words[0] == "maskwright"
    folders = {"DATASETS": str(settings.datasets), "CHECKPOINTS": str(settings.checkpoints), "TASK_PYTHON": sys.executable}
    command = subprocess.Popen([sys.executable, "-m", "cli", *words[1:]], cwd=ROOT, env={**os.environ, **folders})
    try:
        view = wait_for(lambda: command.poll() or api.get("/v1/jobs/by-command").json().get("job"), 60)
        wait_for((settings.checkpoints / "by-command" / "events.jsonl").exists, 60)
        assert api.post("/v1/jobs/by-command/stop", json={"keep_best": False}).status_code == 200
        command.wait(timeout=120)
    finally:
        command.kill()
        command.wait(timeout=60)
    asked.append(asked_of(view))
    assert asked[0] == asked[1] == asked[2]
    assert asked[0]["hyperparameters"]["epochs"] == int(chosen["set.epochs"])
    assert asked[0]["processes"] == int(chosen.get("processes", 1))


def test_processes_are_asked_for_only_where_they_can_be_had(pages: TestClient):
    assert 'id="processes"' in pages.get("/train/settings", params={**TINY, "processes": "2"}).text
    assert 'id="processes"' not in pages.get("/train/settings", params={**TINY, "network": MAJORITY, "processes": "2"}).text
    assert "processes" not in pages.get("/train/review", params={**TINY, "network": MAJORITY, "processes": "2"}).text.split("data-copy")[1]
    odd = pages.get("/train/hyperparameters", params={**TINY, "processes": "many"})
    assert (odd.status_code, "from 1 to 256" in odd.text) == (422, True)


def test_nodes_are_asked_for_only_where_there_are_several_and_a_wish_for_them_is_not_dropped_unseen(pages: TestClient):
    assert 'id="nodes"' not in pages.get("/train/settings", params=TINY).text
    brought = {**TINY, "nodes": "2"}
    step = html.unescape(pages.get("/train/settings", params=brought).text)
    assert "Several machines learn one job only in a Ray cluster." in step.split('id="nodes-help"')[1].split("</p>")[0]
    review = pages.get("/train/review", params=brought)
    assert (review.status_code, "on 2 nodes together" in review.text) == (422, True)
    assert "--nodes 2" in review.text
    other = {**brought, "network": MAJORITY}
    assert ("nodes", "2") in hidden_fields(pages.get("/train/settings", params=other).text), "another network may want it again"
    assert "nodes" not in pages.get("/train/review", params=other).text.split("data-copy")[1]
    odd = pages.get("/train/hyperparameters", params={**TINY, "nodes": "0"})
    assert (odd.status_code, "from 1 to 256" in odd.text) == (422, True)


def test_the_jobs_that_learn_on_a_gpu_are_named_beside_it():
    job = Job(name="pads-3", dataset="plates", gpus=[1], dataset_folder=Path("plates"), created=now(), hyperparameters=Hyperparameters())
    assert users_of([JobView(job=job, status=JobStatus())]) == {1: ["pads-3"]}


def test_every_engine_says_what_it_is_and_every_field_what_it_allows(pages: TestClient):
    settings = text_of(pages.get("/train/settings", params=TINY))
    for about in ENGINES.values():
        assert about in settings
    assert "scaled by a short probe of this processor" in settings, "nothing has been trained here yet"
    assert "From 32 to 4096, a multiple of 32." in field_of(pages.get("/train/hyperparameters", params=TINY).text, "crop")
