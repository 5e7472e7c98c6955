"""The pages through their front door, over the real two APIs in process; no browser and no JavaScript here."""

import html
import io
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from gui import figures, forms
from gui.app import create_app
from gui.backend import Backend
from gui.settings import Settings
from tests.conftest import client_of, run_job, text_of, wait_for

MAJORITY = "majority/majority/none"


@pytest.fixture
def job(api: TestClient, dataset: Path) -> str:
    """A job that has finished and published its model."""
    assert run_job(api, name="common", dataset="plates")["status"]["state"] == "finished"
    return "common"


def picture(size: tuple[int, int] = (30, 20), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (90, 120, 90)).save(file, kind)
    return file.getvalue()


def test_every_page_answers_over_the_real_services(gui: TestClient, job: str):
    for path in (
        *("/", "/datasets", "/datasets/plates", "/datasets/plates/pictures/p0", "/train", "/train/settings?dataset=plates", "/jobs"),
        *(f"/train/hyperparameters?dataset=plates&network={MAJORITY}", f"/train/review?dataset=plates&network={MAJORITY}"),
        *("/jobs/common", "/models", "/models/common", "/models/common/try", "/machine"),
    ):
        answer = gui.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert "<main" in answer.text
        assert "<h1>" in answer.text
        assert not re.findall(r"<script(?![^>]*(?:src=|application/json))|\son\w+=", answer.text), f"{path} has a script of its own"


def test_an_empty_workplace_says_how_to_fill_it(gui: TestClient):
    assert 'class="button primary" href="/datasets/new">Bring a dataset' in gui.get("/").text
    assert "objectclasses.json" in gui.get("/datasets").text
    assert "No model yet" in gui.get("/models").text
    assert "There is no dataset yet" in gui.get("/train").text


def test_the_wizard_goes_from_dataset_to_a_running_job_without_scripts(gui: TestClient, dataset: Path, api: TestClient):
    settings = gui.get("/train/settings", params={"dataset": "plates"})
    assert f'value="{MAJORITY}"' in settings.text
    chosen = {"dataset": "plates", "network": MAJORITY, "validation": "34", "seed": "3"}
    assert gui.get("/train/hyperparameters", params=chosen).status_code == 200
    review = gui.get("/train/review", params={**chosen, "set.epochs": "2", "set.learning_rate": "0.002"})
    assert 'value="plates-1"' in review.text, "the name is proposed"
    command = "maskwright train plates --name plates-1 --engine majority --network majority --backbone none"
    shown = text_of(review).replace(" \\ ", " ")
    assert f"{command} --validation-share 0.34 --seed 3 --set epochs=2" in shown, "and what equals the default is left out"
    started = gui.post("/train", data={**chosen, "set.epochs": "2", "name": "plates-1"}, follow_redirects=False)
    assert (started.status_code, started.headers["location"]) == (303, "/jobs/plates-1")
    asked = api.get("/v1/jobs/plates-1").json()["job"]
    assert (asked["validation_share"], asked["seed"], asked["hyperparameters"]["epochs"]) == (0.34, 3, 2)


def test_back_keeps_everything_that_was_chosen(gui: TestClient, dataset: Path):
    chosen = {"dataset": "plates", "network": MAJORITY, "validation": "50", "seed": "9", "name": "mine", "set.epochs": "7"}
    review = gui.get("/train/review", params=chosen).text
    back = re.search(r'form="wizard" formmethod="get" formaction="([^"]+)">Back', review)
    assert back
    assert back[1] == "/train/hyperparameters", "Back sends the form to the step before: what was typed goes with it"
    sent = dict(re.findall(r'<input (?:type="hidden"|id="name") name="([^"]+)" value="([^"]*)"', review))
    assert {name: sent[name] for name in chosen} == chosen
    assert re.search(r'name="set\.epochs"[^>]*value="7"', gui.get(back[1], params=sent).text)


@pytest.mark.parametrize(
    ("setting", "value", "range_"),
    [("epochs", "0", "from 1 to 10000"), ("learning_rate", "fast", "above 0 and up to 10"), ("crop", "100", "a multiple of 32")],
)
def test_a_setting_out_of_range_is_answered_at_its_field(gui: TestClient, dataset: Path, setting: str, value: str, range_: str):
    chosen = {"dataset": "plates", "network": "pytorch/unet/resnet18"}
    answer = gui.get("/train/review", params={**chosen, f"set.{setting}": value})
    assert answer.status_code == 422
    field = answer.text.split(f'id="set-{setting}"')[1].split("</div>")[0]
    assert f'value="{value}"' in field, "what was typed is kept"
    assert range_ in field


def test_steps_that_lack_something_show_the_earlier_step(gui: TestClient, dataset: Path):
    assert "Choose a dataset." in gui.get("/train/review").text
    assert "Choose a network" in gui.get("/train/review", params={"dataset": "plates"}).text
    odd_share = gui.get("/train/hyperparameters", params={"dataset": "plates", "network": MAJORITY, "validation": "nan", "seed": "-1"})
    assert "between 1 and 99 %" in odd_share.text
    assert "Give a whole number from 0" in odd_share.text


def test_a_name_that_is_taken_or_odd_is_refused_at_its_field(gui: TestClient, job: str):
    for name, cause in (("common", "There is a job named common already"), ("a b", "Use 1 to 64 letters")):
        answer = gui.post("/train", data={"dataset": "plates", "network": MAJORITY, "name": name})
        assert answer.status_code == 422
        assert cause in answer.text
        assert f'value="{name}"' in answer.text


def test_a_broken_dataset_shows_each_file_with_its_cure_and_cannot_be_trained_on(gui: TestClient, dataset: Path):
    (dataset / "labels" / "p0.png").unlink()
    page = text_of(gui.get("/datasets/plates"))
    assert "images/p0.png" in page
    assert "Add labels/p0.png, or remove the picture." in page
    refused = gui.get("/train/settings", params={"dataset": "plates"})
    assert refused.status_code == 422


def test_names_are_shown_as_text_whatever_they_hold(gui: TestClient, dataset: Path):
    classes = '{"classesname": ["background", "<b>pad</b>", "\\"onload=x"]}'
    (dataset / "objectclasses.json").write_text(classes)
    odd = dataset.rename(dataset.with_name("a #%?&'b"))
    for path in ("/", "/datasets", "/train"):
        answer = gui.get(path)
        assert "<b>pad</b>" not in answer.text
        assert "&lt;b&gt;pad&lt;/b&gt;" in answer.text
    assert odd.name in text_of(gui.get("/datasets/a%20%23%25%3F%26'b"))
    link = re.search(r'href="(/datasets/a[^"]+)"', gui.get("/datasets").text)
    assert link
    assert gui.get(html.unescape(link[1])).status_code == 200


def test_a_finished_job_shows_scores_settings_log_and_offers_its_model(gui: TestClient, job: str):
    page = text_of(gui.get("/jobs/common"))
    for words in ("finished", "mIoU", "background", "Try the model", "Hyper-parameters", "Log"):
        assert words in page
    assert "common" in gui.get("/jobs").text


def test_live_events_pictures_and_downloads_come_from_the_pages_own_address(gui: TestClient, job: str):
    events = gui.get("/jobs/common/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert "event: status" in events.text
    assert "event: end" in events.text
    later = gui.get("/jobs/common/events", headers={"Last-Event-ID": "2"})
    assert "id: 3\n" in later.text
    assert "id: 2\n" not in later.text
    assert "event: end" in gui.get("/jobs/common/log/stream").text
    assert gui.get("/models/common/download").content[:2] == b"PK"
    overlay = Image.open(io.BytesIO(gui.get("/datasets/plates/overlays/p0?width=32").content))
    assert overlay.width == 32


def test_trying_a_model_answers_with_picture_overlay_and_shares(gui: TestClient, job: str):
    answer = gui.post("/models/common/try", files={"picture": ("mine.png", picture())})
    assert answer.status_code == 200
    page = text_of(answer)
    assert "30 × 20" in page
    assert "100.0\u00a0%" in html.unescape(answer.text)
    assert answer.text.count('src="data:image/jpeg;base64,') == 2
    assert answer.text.count('class="over seen"') == 1


def test_what_is_no_picture_is_answered_beside_the_form(gui: TestClient, job: str):
    for upload in ({"picture": ("words.txt", b"not a picture")}, {"picture": ("", b"")}):
        answer = gui.post("/models/common/try", files=upload)
        assert answer.status_code == 400
        assert 'class="note failed"' in answer.text
        assert 'type="file"' in answer.text


def test_programs_can_ask_a_model_at_the_pages_address(gui: TestClient, job: str):
    answer = gui.post("/models/common/predict?answer=segments", files={"picture": ("mine.png", picture())})
    assert answer.json()["width"] == 30
    refused = gui.post("/models/common/predict", files={"picture": ("mine.png", b"no")})
    assert (refused.status_code, refused.json()["error"]) == (400, "Invalid")


def test_a_job_is_deleted_by_a_form(gui: TestClient, job: str):
    # its process may live a moment longer than its last event
    wait_for(lambda: gui.post("/jobs/common/delete", follow_redirects=False).headers.get("location") == "/jobs")
    assert gui.get("/jobs/common").status_code == 404


def test_another_site_cannot_make_a_visitors_browser_change_anything(gui: TestClient, job: str):
    assert gui.post("/jobs/common/delete", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert gui.get("/jobs/common").status_code == 200


def test_problems_are_pages_with_cause_and_cure(gui: TestClient):
    for path in ("/jobs/none", "/models/none", "/datasets/none/pictures/p0", "/nothing"):
        answer = gui.get(path)
        assert answer.status_code == 404, path
        assert 'class="cause"' in answer.text
        assert 'class="cure"' in answer.text


def test_an_address_that_asks_for_something_odd_is_answered_with_a_page(gui: TestClient, job: str):
    answer = gui.get("/jobs?place=x")
    assert answer.status_code == 400
    assert "“place” cannot be read" in text_of(answer)
    assert 'class="cure"' in answer.text
    last = gui.get("/jobs?place=9&search=plates")
    assert str(last.url).endswith("/jobs?search=plates&place=1"), "there is no ninth page: the last one is shown"
    assert "common" in last.text


def test_services_that_are_not_started_are_named_with_what_to_do():
    nowhere = Settings(docker_sdk_api_url="http://127.0.0.1:9", inference_api_url="http://127.0.0.1:9")
    with TestClient(create_app(nowhere)) as client:
        answer = client.get("/")
    assert answer.status_code == 503
    assert "Nothing answers at http://127.0.0.1:9" in text_of(answer)


def test_every_link_and_asset_is_under_the_proxys_path(api: TestClient, sdk_app: FastAPI, inference_app: FastAPI, dataset: Path):
    backend = Backend(client_of(sdk_app), client_of(inference_app))
    with TestClient(create_app(Settings(root_path="/maskwright"), backend)) as client:
        page = client.get("/maskwright/datasets/plates").text
        addresses = re.findall(r'(?:href|src|action)="([^"]+)"', page)
        assert addresses
        assert all(address.startswith(("/maskwright/", "#")) for address in addresses), addresses
        style = next(address for address in addresses if address.endswith("app.css"))
        assert client.get(style).status_code == 200


def test_nothing_is_loaded_from_anywhere_else(gui: TestClient, job: str):
    answer = gui.get("/jobs/common")
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_figures_have_no_more_digits_than_mean_something():
    assert figures.score(0.89312) == "0.893"
    assert figures.share(0.0283) == "2.8\u00a0%"
    assert figures.share(0.0001) == "<\u202f0.1\u00a0%"
    assert figures.duration(190) == "3\u00a0min"
    assert figures.duration(3_456_000) == "40\u00a0d"
    assert figures.duration(8000) == "2\u00a0h 13\u00a0min"
    assert figures.size(128_000_000) == "128\u00a0MB"
    assert figures.size(1_400_000_000) == "1.4\u00a0GB"
    assert [figures.score(None), figures.share(None), figures.size(None), figures.ago(None)] == ["–"] * 4


def test_every_setting_can_say_what_it_allows():
    for name in forms.KNOWN:
        assert forms.allowed(name).startswith(("Give a", "Choose"))


def test_proposed_names_are_free_and_allowed():
    assert forms.propose_name("plates", {"plates-1", "plates-2"}) == "plates-3"
    assert forms.name_fault(forms.propose_name("Größe & Form!", set()), set()) == ""
