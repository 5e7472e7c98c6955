"""Bringing, looking at, curing and splitting datasets by the pages alone: the real training API in process, no JavaScript."""

import html
import io
import json
import re
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from annotations.dataset import read_mask
from contracts.errors import Invalid
from gui import uploads
from gui.app import create_app
from gui.backend import Backend
from gui.settings import Settings
from tests.conftest import client_of, draw_dataset, text_of, wait_for

PAGE = {"Accept": "text/html"}


def labelme_files(pictures: int = 4, side: int = 60) -> dict[str, bytes]:
    """Pictures with a rectangle and a triangle each, and labelme's JSON of them, by file name."""
    files = {}
    for index in range(pictures):
        picture = io.BytesIO()
        Image.new("RGB", (side, side), (60 + 10 * index, 90, 120)).save(picture, "PNG")
        files[f"p{index}.png"] = picture.getvalue()
        shapes = [
            {"label": "pad", "shape_type": "rectangle", "points": [[5, 5], [25, 20 + index]]},
            {"label": "wedge", "shape_type": "polygon", "points": [[30, 30], [55, 30], [40, 55]]},
        ]
        record = {"version": "5.4.1", "shapes": shapes, "imagePath": f"p{index}.png", "imageHeight": side, "imageWidth": side}
        files[f"p{index}.json"] = json.dumps({**record, "flags": {}, "imageData": None}).encode()
    return files


def zipped(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return archive.getvalue()


def binary_files(pictures: int = 3) -> dict[str, bytes]:
    """Pictures and masks of 0 and 255, which do not say what white means."""
    files = {}
    for index in range(pictures):
        mask = np.zeros((40, 40), np.uint8)
        mask[5 + index : 20, 5:25] = 255
        for folder, pixels in (("images", np.full((40, 40, 3), 100 + 9 * index, np.uint8)), ("masks", mask)):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            files[f"{folder}/b{index}.png"] = file.getvalue()
    return files


def bring(gui: TestClient, files: dict[str, bytes], **fields: str) -> str:
    """Send the plain form; the address of the import's page."""
    parts = [("files", (name, content)) for name, content in files.items()]
    answer = gui.post("/datasets/new", data=fields, files=parts or {"files": ("", b"")}, follow_redirects=False)
    assert answer.status_code == 303, text_of(answer)
    return answer.headers["location"]


def ended(gui: TestClient, address: str) -> httpx.Response:
    """The page that an import's page ends in."""
    return wait_for(lambda: None if 'class="state training"' in (page := gui.get(address)).text else page, 30)


def test_a_zip_of_labelme_files_becomes_a_dataset_without_javascript(gui: TestClient, tmp_path: Path):
    page = ended(gui, bring(gui, {"plate_parts (1).zip": zipped(labelme_files())}))
    assert page.url.path == "/datasets/plate_parts-1", "the name is the file's"
    assert "Read as: labelme" in text_of(page)
    assert "4 pictures" in text_of(page)
    assert gui.get("/datasets").text.count("plate_parts-1")
    mask = read_mask(tmp_path / "datasets" / "plate_parts-1" / "labels" / "p0.png")
    assert mask[10, 10] != mask[40, 40] != mask[0, 0]


def test_many_files_and_folders_keep_their_places(gui: TestClient, tmp_path: Path):
    files = {f"mine/{name}": content for name, content in labelme_files().items()}
    page = ended(gui, bring(gui, files, name="by_hand"))
    assert page.url.path == "/datasets/by_hand"
    assert len(list((tmp_path / "datasets" / "by_hand" / "images").iterdir())) == 4


def test_a_folder_of_the_machine_is_imported_and_left_as_it_is(gui: TestClient, tmp_path: Path):
    source = tmp_path / "export"
    source.mkdir()
    for name, content in labelme_files().items():
        (source / name).write_bytes(content)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert ended(gui, bring(gui, {}, folder=str(source))).url.path == "/datasets/export"
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_what_only_a_person_knows_is_asked_and_given_without_sending_the_files_again(gui: TestClient, tmp_path: Path):
    page = ended(gui, bring(gui, {"white.zip": zipped(binary_files())}, name="white", classes="background\ncrack\nsky"))
    assert "Black-and-white masks show 2 classes, but 3 were named." in text_of(page)
    assert re.search(r'field asked"><label for="classes"', page.text), "the field that the problem speaks of stands out"
    assert "sky</textarea>" in page.text
    assert "nothing is uploaded again" in text_of(page)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    assert hidden["upload"]
    again = ended(gui, bring(gui, {}, **hidden, name="white", white="foreground", classes="background\ncrack"))
    assert again.url.path == "/datasets/white"
    assert "crack" in text_of(again)
    assert set(np.unique(read_mask(tmp_path / "datasets" / "white" / "labels" / "b0.png"))) == {0, 1}


def test_files_of_no_known_format_are_told_in_a_line_and_what_was_looked_for_lies_below(gui: TestClient):
    pictures = {name: content for name, content in labelme_files().items() if not name.endswith(".json")}
    page = ended(gui, bring(gui, {"marks.zip": zipped({**pictures, "marks.txt": b"pad 20 10 40 30"})}, name="marks"))
    cause, looked_for = page.text.split("What was looked for")
    assert "holds no labelled pictures in a known format" in cause
    assert "Supervisely" not in cause
    assert "<li>Supervisely" in looked_for
    assert re.findall(r'field asked"><label for="(\w+)"', page.text) == ["format"]


def test_a_refused_form_keeps_what_was_typed_and_what_was_sent(gui: TestClient, dataset: Path):
    files = [("files", ("a.zip", zipped(labelme_files())))]
    taken = gui.post("/datasets/new", data={"name": "plates", "classes": "sky"}, files=files)
    assert taken.status_code == 422
    assert "There is a dataset plates already" in text_of(taken)
    assert re.search(r'name="upload" value="\w+"', taken.text), "the files are kept"
    assert ">sky</textarea>" in taken.text
    odd = gui.post("/datasets/new", data={"name": "odd", "colours": "reddish crack", "folder": "/nowhere"}, files={"files": ("", b"")})
    assert "The line “reddish crack” is not a colour and a class." in text_of(odd)
    nothing = gui.post("/datasets/new", data={"name": "none"}, files={"files": ("", b"")})
    assert "Nothing was chosen." in text_of(nothing)
    assert gui.post("/datasets/new", data={"name": "x"}).status_code == 400, "a form without files is another form"


def test_pieces_go_up_on_where_they_broke_off(gui: TestClient):
    content = zipped(labelme_files())
    upload = gui.post("/uploads", json={"files": [{"name": "a.zip", "size": len(content)}]}).json()
    place = f"/uploads/{upload['id']}"
    assert gui.put(f"{place}/files/0?offset=0", content=content[:100]).json() == {"received": 100}
    wrong = gui.put(f"{place}/files/0?offset=50", content=content[50:])
    assert (wrong.status_code, wrong.json()["received"]) == (409, 100)
    assert gui.get(place).json()["files"][0]["received"] == 100
    assert gui.put(f"{place}/files/0?offset=100", content=content[100:]).json() == {"received": len(content)}
    assert ended(gui, bring(gui, {}, upload=upload["id"], name="in_pieces")).url.path == "/datasets/in_pieces"
    assert gui.delete("/uploads/none").status_code == 404
    assert gui.get("/uploads/none").json()["cause"]


def test_the_gallery_is_filtered_by_class_finding_and_side_on_the_server(gui: TestClient, tmp_path: Path):
    folder = draw_dataset(tmp_path / "datasets" / "many", pictures=60)
    mask = read_mask(folder / "labels" / "p7.png").copy()
    mask[0, 0] = 9
    Image.fromarray(mask).save(folder / "labels" / "p7.png")

    def stems(**words: str) -> list[str]:
        return re.findall(r'href="/datasets/many/pictures/(\w+)[^"]*"><span class="thumb"', gui.get("/datasets/many", params=words).text)

    assert len(stems()) == 48
    assert len(stems(start="48")) == 12
    assert set(stems(**{"class": "1"})) == {f"p{index}" for index in range(0, 60, 2)}
    assert stems(finding="value") == ["p7"]
    scored = stems(side="validation")
    assert len(scored) == 12
    page = gui.get(f"/datasets/many/pictures/{scored[1]}", params={"side": "validation"})
    assert "2 of 12" in text_of(page), "neighbours are those that are looked at"
    assert "No picture is like this" in text_of(gui.get("/datasets/many", params={"class": "2", "finding": "value", "side": "test"}))


def test_a_cure_is_shown_before_it_is_applied_and_can_be_undone(gui: TestClient, dataset: Path):
    file = dataset / "labels" / "p0.png"
    Image.fromarray(np.where(read_mask(file) > 0, 255, 0).astype(np.uint8)).save(file)
    before = file.read_bytes()
    (dataset / "labels" / "p1.png").unlink()
    page = gui.get("/datasets/plates")
    offered = re.findall(r'href="(/datasets/plates/cures/\w+)"', page.text)
    assert "/datasets/plates/cures/white_ignore" in offered
    assert "/datasets/plates/cures/set_unpaired_aside" in offered
    shown = gui.get("/datasets/plates/cures/set_unpaired_aside")
    assert "images/p1.png" in text_of(shown)
    assert (dataset / "images" / "p1.png").exists(), "showing changes nothing"
    done = gui.post("/datasets/plates/cures/set_unpaired_aside")
    assert "fit to train on" in text_of(done)
    assert not (dataset / "images" / "p1.png").exists()
    undo = re.search(r'action="(/datasets/plates/undo/[^"]+)"', done.text)
    assert undo
    assert "1 problem" in text_of(gui.post(undo[1]))
    assert (dataset / "images" / "p1.png").exists()
    assert file.read_bytes() == before


def test_a_form_with_more_than_a_dataset_may_have_is_refused_before_it_fills_the_disk(sdk_app: FastAPI, inference_app: FastAPI):
    backend = Backend(client_of(sdk_app), client_of(inference_app))
    with TestClient(create_app(Settings(largest_dataset_upload=2**20), backend)) as client:
        answer = client.post("/datasets/new", data={"name": "huge"}, files={"files": ("a.zip", bytes(3 * 2**20))}, headers=PAGE)
    assert answer.status_code == 413
    assert "The request has more than 1 MB." in text_of(answer)


def test_a_name_of_a_file_without_an_end_is_refused(gui: TestClient):
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + b"x" * 3_000_000
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = gui.post("/datasets/new", content=head + b'"\r\n\r\nx\r\n--b--\r\n', headers=kind)
    assert answer.status_code == 400
    assert "cannot be read (Maximum header size exceeded)" in text_of(answer)


def test_the_split_is_shown_kept_and_let_go(gui: TestClient, dataset: Path):
    drawn = gui.get("/datasets/plates", params={"validation": "34", "test": "17", "seed": "1"})
    assert "Test 1 picture " in text_of(drawn)
    kept = gui.post("/datasets/plates/split", data={"validation": "34", "test": "17", "seed": "1"})
    assert "This split lies with the dataset" in text_of(kept)
    assert len(json.loads((dataset / "split.json").read_text())["validation"]) == 2
    assert "Drawn by seed" in text_of(gui.post("/datasets/plates/split"))
    assert gui.post("/datasets/plates/split", data={"validation": "many"}).status_code == 400


def test_the_report_is_a_file_to_download(gui: TestClient, dataset: Path):
    answer = gui.get("/datasets/plates/report.json")
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.json()["classes"] == ["background", "pad", "circle"]


def test_a_long_check_shows_how_far_it_is_and_the_wizard_waits_for_it():
    backend = Backend(httpx.AsyncClient(transport=httpx.MockTransport(still_checking), base_url="http://slow"), httpx.AsyncClient())
    with TestClient(create_app(Settings(), backend)) as client:
        page = client.get("/datasets/large")
        wizard = client.get("/train", params={"dataset": "large"})
    assert "120 of 5 000 pictures" in text_of(page)
    assert "data-follow" in page.text
    assert 'http-equiv="refresh"' in page.text
    assert "It is being checked: 120 of 5 000 pictures." in text_of(wizard)


def still_checking(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/v1/datasets":
        return httpx.Response(200, json=[{"name": "large", "pictures": 5000, "classes": ["background", "pad"], "error": None}])
    return httpx.Response(202, json={"checking": {"done": 120, "total": 5000}})


def test_the_wizard_shows_crops_as_the_typed_settings_make_them(gui: TestClient, dataset: Path):
    words = {"dataset": "plates", "network": "majority/majority/none", "set.crop": "64", "set.turns": "true", "set.epochs": "3"}
    page = gui.get("/train/hyperparameters", params=words)
    sheet = re.search(r'<img src="(/datasets/plates/augmented[^"]+)"', page.text)
    assert sheet
    address = html.unescape(sheet[1])
    assert {"crop": "64", "turns": "true", "count": "12"}.items() <= dict(httpx.URL(address).params).items()
    assert "epochs" not in address, "what crops do not depend on leaves the picture alone"
    assert Image.open(io.BytesIO(gui.get(address).content)).format == "JPEG"


def test_names_and_colours_are_read_as_people_write_them():
    assert uploads.propose_name("Risse (2).tar.gz", set()) == "Risse-2"
    assert uploads.propose_name("/data/plates/", {"plates"}) == "plates-2"
    assert uploads.propose_name("new.zip", set()) == "new-2"
    assert uploads.propose_name("§§§", set()) == "pictures"
    assert uploads.read_colours("#FF0000 crack\n\n0, 0,255: sky blue") == {"#ff0000": "crack", "#0000ff": "sky blue"}
    for line in ("red", "#ff0000", "300 0 0 sky"):
        with pytest.raises(Invalid, match="is not a colour and a class"):
            uploads.read_colours(line)
