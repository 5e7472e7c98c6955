"""The whole product in one test: through the pages, from a dataset to a mask. No process but the training's own."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from gui.app import create_app
from gui.backend import Backend
from gui.settings import Settings
from tests.conftest import wait_for


@pytest.fixture
def pages(sdk_app: FastAPI, inference_app: FastAPI, api: TestClient) -> Iterator[TestClient]:
    """The pages over the two real APIs, all in this process. (`api` ends what trainings a test leaves.)"""
    clients = (httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") for app in (sdk_app, inference_app))
    with TestClient(create_app(Settings(), Backend(*clients))) as client:
        yield client


class Form(HTMLParser):
    """The first form of a page's main part, as a browser without JavaScript would send it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.method, self.action = "", ""
        self.values: list[tuple[str, str]] = []
        self._select = ""
        self.feed(page[page.index("<main") :])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        have = {name: value or "" for name, value in attributes}
        if tag == "form" and not self.action:
            self.method, self.action = have.get("method", "get"), have["action"]
        elif tag == "input" and "name" in have and "disabled" not in have:
            kind = have.get("type", "text")
            if kind not in ("radio", "checkbox") or "checked" in have:
                self.values.append((have["name"], have.get("value", "on")))
        elif tag == "select":
            self._select = have["name"]
        elif tag == "option" and "selected" in have:
            self.values.append((self._select, have["value"]))

    def send(self, pages: TestClient, **chosen: str) -> str:
        """Fill in and press the button: the next page."""
        values = [pair for pair in self.values if pair[0] not in chosen] + list(chosen.items())
        if self.method == "post":
            body = urlencode(values)
            answer = pages.post(self.action, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        else:
            answer = pages.get(self.action, params=values)
        assert answer.status_code == 200, answer.text
        return answer.text


def test_from_click_to_mask(pages: TestClient, dataset: Path):
    page = pages.get("/train").text
    assert "plates" in page
    page = Form(page).send(pages, dataset="plates")
    page = Form(page).send(pages, network="majority/majority/none", validation="50")
    page = Form(page).send(pages, **{"set.epochs": "2"})
    assert "maskwright train plates" in page
    page = Form(page).send(pages, name="whole")
    assert "whole" in page

    wait_for(lambda: "finished" in pages.get("/jobs/whole/events").text)
    job = pages.get("/jobs/whole").text
    assert "epoch-0002.jpg" in job
    assert pages.get("/jobs/whole/previews/epoch-0002.jpg").headers["content-type"] == "image/jpeg"
    assert "finished: the model is published" in pages.get("/jobs/whole/log").text

    assert "whole" in pages.get("/models").text
    archive = zipfile.ZipFile(io.BytesIO(pages.get("/models/whole/download").content))
    assert json.loads(archive.read("model.json"))["train_pictures"] == 3

    picture = (dataset / "images" / "p0.png").read_bytes()
    tried = pages.post("/models/whole/try", files={"picture": ("p0.png", picture)})
    assert tried.status_code == 200, tried.text
    assert len(re.findall(r'src="data:image/', tried.text)) >= 2  # the picture and what is laid over it
    answer = pages.post("/models/whole/predict?answer=mask", files={"picture": ("p0.png", picture)})
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert mask.shape == (48, 64)
    assert set(np.unique(mask)) == {0}  # what the majority says


def test_a_name_that_is_taken_is_said_at_its_field_and_nothing_typed_is_lost(pages: TestClient, dataset: Path):
    for _ in range(2):
        page = Form(pages.get("/train").text).send(pages, dataset="plates")
        page = Form(page).send(pages, network="majority/majority/none")
        form = Form(Form(page).send(pages, **{"set.epochs": "3"}))
        values = [pair for pair in form.values if pair[0] != "name"] + [("name", "mine")]
        answer = pages.post(form.action, data=dict(values))
    assert answer.status_code in (409, 422)
    assert "mine" in answer.text
    again = Form(answer.text)
    assert ("set.epochs", "3") in again.values


def test_a_dataset_that_is_broken_says_which_file_and_cannot_be_chosen(pages: TestClient, dataset: Path):
    (dataset / "labels" / "p1.png").unlink()
    assert "images/p1.png" in pages.get("/datasets/plates").text
    answer = pages.get("/train/settings", params={"dataset": "plates"})
    assert answer.status_code == 422
    assert "images/p1.png" in answer.text


def test_a_setting_out_of_range_is_answered_at_its_field(pages: TestClient, dataset: Path):
    page = Form(pages.get("/train").text).send(pages, dataset="plates")
    form = Form(Form(page).send(pages, network="majority/majority/none"))
    values = [pair for pair in form.values if pair[0] != "set.epochs"] + [("set.epochs", "0")]
    answer = pages.get(form.action, params=values)
    assert answer.status_code == 422
    assert re.search(r'name="set.epochs"[^>]*aria-invalid', answer.text)


def test_no_page_asks_for_anything_from_elsewhere(pages: TestClient, dataset: Path):
    for path in ("/", "/datasets", "/datasets/plates", "/train", "/jobs", "/models", "/machine"):
        answer = pages.get(path)
        assert answer.status_code == 200, path
        links = re.findall(r'(?:src|href|action)="(https?:)?//([^"/]+)', answer.text)
        assert {host for _, host in links} <= {"testserver"}, (path, links)
