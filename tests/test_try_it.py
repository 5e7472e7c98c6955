"""Trying models: many pictures, two models, the pictures that scored, what can be saved, and the calls to copy run as they stand."""

import base64
import html
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Page, expect

from contracts.errors import TooLarge
from gui.app import create_app
from gui.backend import Backend
from gui.settings import Settings
from gui.trying import AT_ONCE, in_common, shown_doubt, shown_picture
from tests.clicks import leaves_things_open, needs_chromium, services
from tests.conftest import client_of, draw_dataset, run_job, text_of
from tests.test_model_pages import bring, packed


def grey(value: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(file, "PNG")
    return file.getvalue()


def black_and_white() -> bytes:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, 30:] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def bright(api: TestClient, tmp_path: Path) -> str:
    """A model that calls black dark and white bright."""
    return bring(api, tmp_path, "bright")


def test_every_picture_of_a_form_has_its_answer_and_a_bad_one_keeps_back_none(gui: TestClient, bright: str):
    pictures = [("picture", ("a.png", black_and_white())), ("picture", ("b.png", b"no picture")), ("picture", ("c.png", grey(255)))]
    answer = gui.post(f"/models/{bright}/try", files=pictures)
    assert answer.status_code == 200
    articles = answer.text.split("<article")[1:]
    assert [re.search(r'data-seen="([^"]+)"', article)[1] for article in articles] == ["a.png", "b.png", "c.png"]
    rows = [re.findall(r"</span>(\w+)</th>\s*<td[^>]*>([^<]+)", article) for article in articles]
    assert rows[0] == [("background", "0.0\u00a0%"), ("dark", "75.0\u00a0%"), ("bright", "25.0\u00a0%")]
    assert 'class="note failed"' in articles[1]
    assert rows[2][2] == ("bright", "100.0\u00a0%")


def test_mask_and_json_are_saved_as_the_model_answered_them(gui: TestClient, inference_api: TestClient, bright: str):
    page = gui.post(f"/models/{bright}/try", files={"picture": ("a.png", black_and_white())}).text
    saved = {kind: base64.b64decode(data) for kind, data in re.findall(r'href="data:([^;]+);base64,([^"]+)" download', page)}
    for kind, answer in (("image/png", "mask"), ("application/json", "segments")):
        asked = inference_api.post(f"/v1/models/{bright}/predict?answer={answer}", files={"picture": black_and_white()})
        assert saved[kind] == asked.content


def test_two_models_are_shown_beside_each_other_with_how_far_they_agree(gui: TestClient, api: TestClient, dataset: Path, bright: str):
    run_job(api, name="common", dataset="plates")
    answer = gui.post(f"/models/{bright}/try?against=common", files={"picture": ("a.png", black_and_white())})
    assert "the two agree on 0.0 % of the pixels" in text_of(answer)
    assert answer.text.count('class="over seen"') == 2
    listed = re.findall(r"</span>(\w+)</th>", answer.text)
    assert listed == ["background", "dark", "bright", "pad", "circle"], "classes of both, each name once"
    same = gui.post(f"/models/{bright}/try?against={bright}", files={"picture": ("a.png", grey(0))})
    assert same.text.count('class="over seen"') == 1, "a model beside itself says nothing"


def test_a_class_has_one_colour_whatever_place_it_has_in_its_model():
    ids = np.array([[0, 1, 2]], np.uint8)
    assert in_common(ids, ["background", "circle", "pad"], ["background", "pad", "circle"]).tolist() == [[0, 2, 1]]


def test_doubt_is_dense_where_the_model_is_unsure_and_clear_where_it_is_certain():
    file = io.BytesIO()
    Image.fromarray(np.array([[255, 200, 100]], np.uint8)).save(file, "PNG")
    shown = base64.b64decode(shown_doubt(file.getvalue()).partition(",")[2])
    assert np.asarray(Image.open(io.BytesIO(shown)))[0, :, 3].tolist() == [0, 110, 255]


def test_pictures_that_scored_a_model_are_offered_and_shown_with_their_truth(gui: TestClient, api: TestClient, dataset: Path):
    run_job(api, name="common", dataset="plates", validation_share=0.34)
    page = gui.get("/models/common/try")
    stems = re.findall(r"try\?stem=(\w+)#answer", page.text)
    assert set(stems) == set(api.get("/v1/models/common/pictures").json())
    assert len(stems) == 2
    answer = gui.get(f"/models/common/try?stem={stems[0]}")
    assert "as the dataset has it" in text_of(answer)
    truth = re.search(r'src="([^"]+opacity=1[^"]*)"', answer.text)
    assert gui.get(html.unescape(truth[1])).headers["content-type"] == "image/jpeg"
    (dataset / "images" / f"{stems[0]}.png").unlink()
    assert gui.get(f"/models/common/try?stem={stems[0]}").status_code == 400, "it went meanwhile"
    assert f"stem={stems[0]}#" not in gui.get("/models/common/try").text


def test_all_masks_are_saved_as_a_zip_and_all_segments_as_json(gui: TestClient, bright: str):
    pictures = [("picture", ("a.png", black_and_white())), ("picture", ("c.png", grey(255)))]
    masks = gui.post(f"/models/{bright}/predict/batch?answer=mask", files=pictures)
    assert masks.headers["content-disposition"] == 'attachment; filename="bright-masks.zip"'
    assert zipfile.ZipFile(io.BytesIO(masks.content)).namelist() == ["a.png", "c.png"]
    listed = gui.post(f"/models/{bright}/predict/batch?answer=segments", files=pictures)
    assert [row["file"] for row in listed.json()] == ["a.png", "c.png"]
    assert 'filename="bright-segments.json"' in listed.headers["content-disposition"]


def test_of_two_models_beside_each_other_both_answers_are_saved(gui: TestClient, api: TestClient, bright: str, tmp_path: Path):
    second = bring(api, tmp_path, "second")
    page = gui.get(f"/models/{bright}/try?against={second}").text
    masks_at, listed_at = (html.unescape(at) for at in re.findall(r'formaction="([^"]+)"', page))
    pictures = [("picture", ("a.png", black_and_white())), ("picture", ("c.png", grey(255)))]
    masks = gui.post(masks_at, files=pictures)
    assert masks.headers["content-disposition"] == 'attachment; filename="bright-second-masks.zip"'
    archive = zipfile.ZipFile(io.BytesIO(masks.content))
    assert archive.namelist() == ["bright/a.png", "bright/c.png", "second/a.png", "second/c.png"]
    assert archive.read("bright/a.png") == archive.read("second/a.png")
    listed = gui.post(listed_at, files=pictures).json()
    assert [[row["file"] for row in listed[name]] for name in (bright, second)] == [["a.png", "c.png"]] * 2
    assert gui.post(masks_at, files=[("picture", ("b.png", b"no picture"))]).status_code == 200, "the zip says why"
    assert gui.post(masks_at).status_code == 400


def test_a_picture_beyond_pillows_own_limit_is_shown_and_one_beyond_the_settings_says_so(
    api: TestClient, sdk_app: FastAPI, inference_app: FastAPI, bright: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    backend = Backend(client_of(sdk_app), client_of(inference_app))
    with TestClient(create_app(Settings(), backend)) as gui:
        assert gui.post(f"/models/{bright}/try", files={"picture": ("a.png", grey(255))}).status_code == 200
    for limit in (500, 1000):  # Pillow refuses the one, and warns of the other
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(TooLarge, match="LARGEST_PICTURE"):
            shown_picture(grey(255))


def test_more_pictures_than_a_form_may_have_are_refused_with_the_reason(gui: TestClient, bright: str):
    pictures = [("picture", (f"{number}.png", grey(255))) for number in range(AT_ONCE + 1)]
    refused = gui.post(f"/models/{bright}/try", files=pictures)
    assert refused.status_code == 400
    assert "Not found" not in text_of(refused)
    assert f"Too many files. Maximum number of files is {AT_ONCE}" in text_of(refused)


def test_one_reading_gives_mask_confidence_and_segments(inference_api: TestClient, bright: str):
    def ask(answer: str, path: str = "predict") -> httpx.Response:
        return inference_api.post(f"/v1/models/{bright}/{path}?answer={answer}", files={"picture": ("a.png", black_and_white())})

    packed = zipfile.ZipFile(io.BytesIO(ask("all").content))
    for name, answer in (("mask.png", "mask"), ("confidence.png", "confidence"), ("segments.json", "segments")):
        assert packed.read(name) == ask(answer).content, name
    assert ask("all", "predict/batch").status_code == 400


def test_try_it_leads_to_the_newest_model_or_says_how_to_get_one(gui: TestClient, api: TestClient, tmp_path: Path):
    assert "There is no model to try yet." in text_of(gui.get("/try"))
    bright = bring(api, tmp_path, "bright")
    assert gui.get("/try").url.path == f"/models/{bright}/try"
    gui.post(f"/models/{bright}/retire")
    assert "There is no model to try yet." in text_of(gui.get("/try"))
    assert "This model is retired" in text_of(gui.get(f"/models/{bright}/try"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    draw_dataset(home / "datasets" / "plates")
    with services(home) as address:
        for name in ("bright", "second"):
            content = packed(home / "aside", name)
            httpx.post(f"{address}/models/import", files={"file": (f"{name}.zip", content)}, trust_env=False, timeout=60)
        yield address


@needs_chromium
@leaves_things_open
def test_pictures_are_looked_at_one_by_one_and_chosen_from_a_strip(page: Page):
    page.goto("/models/bright/try")
    pictures = {"a.png": black_and_white(), "b.png": grey(255)}
    files = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in pictures.items()]
    page.locator("input[type=file]").set_input_files(files)
    expect(page.locator(".strip.chosen li")).to_have_count(2)
    expect(page.get_by_role("heading", name="a.png")).to_be_visible()
    expect(page.get_by_role("heading", name="b.png")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", name="b.png")).to_be_visible()
    page.locator(".strip.chosen button").first.click()
    expect(page.get_by_role("heading", name="a.png")).to_be_visible()

    over = page.locator("article:not([hidden]) img.seen")
    whole = over.get_attribute("src")
    page.locator("article:not([hidden]) [data-class='1']").hover()
    expect(over).not_to_have_attribute("src", whole)
    page.mouse.move(0, 0)
    expect(over).to_have_attribute("src", whole)
    page.locator("article:not([hidden]) .opacity input").fill("20")
    expect(over).to_have_css("opacity", "0.2")
    page.keyboard.down("o")
    expect(over).to_have_css("opacity", "0")
    page.keyboard.up("o")
    expect(over).to_have_css("opacity", "0.2")
    page.locator("article:not([hidden])").get_by_label("Doubt").check()
    expect(over).to_be_hidden()
    expect(page.locator("article:not([hidden]) img.doubt")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save masks").click()
    assert zipfile.ZipFile(download.value.path()).namelist() == ["a.png", "b.png"]


@needs_chromium
@leaves_things_open
def test_a_second_model_is_put_beside_the_first_by_choosing_it(page: Page):
    page.goto("/models/bright/try")
    page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": black_and_white()})
    expect(page.locator("article img.seen")).to_have_count(1)
    page.get_by_label("Beside it").select_option("second")
    page.wait_for_url("**/models/bright/try?against=second")
    expect(page.get_by_text("the two agree on 100")).to_be_visible()  # the picture stayed
    expect(page.locator("article img.seen")).to_have_count(2)
    expect(page.get_by_label("Beside it")).to_be_focused()
    page.get_by_label("Model").select_option("second")
    page.wait_for_url("**/models/second/try*")
    expect(page.get_by_role("heading", name="Try second")).to_be_visible()
    expect(page.get_by_role("heading", name="a.png")).to_be_visible()


def test_the_calls_to_copy_run_as_they_stand(address: str, tmp_path: Path):
    page = httpx.get(f"{address}/models/bright/try", trust_env=False, timeout=60).text
    curl, python = (html.unescape(block) for block in re.findall(r"<pre[^>]*data-copy>(.*?)</pre>", page, re.DOTALL))
    assert address in curl
    (tmp_path / "picture.jpg").write_bytes(black_and_white())
    here = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    words = {"cwd": tmp_path, "env": here, "capture_output": True, "text": True, "timeout": 60, "check": True}
    said = subprocess.run(["bash", "-ec", curl], **words).stdout
    assert '"dark"' in said
    assert set(np.unique(np.asarray(Image.open(tmp_path / "mask.png")))) == {1, 2}
    assert "dark 0.75" in subprocess.run([sys.executable, "-c", python], **words).stdout
