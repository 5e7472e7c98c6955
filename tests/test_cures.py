"""Cures: what the preview says is what happens, a check afterwards finds nothing, and undoing gives every byte back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from annotations.colours import voc_palette
from annotations.dataset import read_mask
from annotations.doctor.check import check_dataset
from annotations.doctor.cures import apply, list_undos, preview, undo
from contracts.errors import Invalid, NotFound
from tests.conftest import run_job

TWO = '{"classes": 2, "classesname": ["background", "crack"]}'


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset that is not Maskwright's own."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".maskwright" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path) for path in (folder / "labels").iterdir()}


def rewrite(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write every mask of a dataset anew."""
    for path in (folder / "labels").iterdir():
        Image.fromarray(change(read_mask(path))).save(path)


def white(folder: Path) -> None:
    (folder / "objectclasses.json").write_text(TWO)
    rewrite(folder, lambda mask: (mask > 0).astype(np.uint8) * 255)


def voc_colours(folder: Path) -> None:
    rewrite(folder, lambda mask: voc_palette()[mask])


def grey_as_colour(folder: Path) -> None:
    rewrite(folder, lambda mask: np.repeat(mask[..., None], 3, axis=2))


def named_colours(folder: Path) -> None:
    table = np.array([[10, 20, 30], [250, 0, 0], [0, 0, 250]], np.uint8)
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:10,20,30::\npad:250,0,0::\ncircle:0,0,250::\n")
    rewrite(folder, lambda mask: table[mask])


def deep(folder: Path) -> None:
    rewrite(folder, lambda mask: mask.astype(np.uint16))


def gaps(folder: Path) -> None:
    rewrite(folder, lambda mask: mask * 100)


def from_one(folder: Path) -> None:
    rewrite(folder, lambda mask: mask + 1)


def unpaired(folder: Path) -> None:
    Image.new("L", (64, 48)).save(folder / "labels" / "lonely.png")
    Image.new("RGB", (64, 48)).save(folder / "images" / "single.png")


def turned_by_camera(folder: Path) -> None:
    """The picture's pixels lie as the sensor saw them, and the mask with them; EXIF says how to show the picture."""
    for path in list((folder / "images").iterdir()):
        picture = Image.open(path)
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "0 and 255": (white, "white", "white_foreground"),
    "the colours of Pascal VOC": (voc_colours, "mask_mode", "map_colours"),
    "ids as grey RGB": (grey_as_colour, "mask_mode", "map_colours"),
    "colours named in labelmap.txt": (named_colours, "mask_mode", "map_colours"),
    "16 bits": (deep, "mask_mode", "to_eight_bits"),
    "values with gaps": (gaps, "value", "renumber"),
    "values from 1": (from_one, "value", "renumber"),
    "a turned camera": (turned_by_camera, "turned", "turn_masks"),
    "files without a partner": (unpaired, "no_picture", "set_unpaired_aside"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cure_does_what_its_preview_says_and_undoing_gives_every_byte_back(dataset: Path, fault: str):
    truth = masks(dataset)
    spoil, code, cure = FAULTS[fault]
    spoil(dataset)
    report = check_dataset(dataset)
    assert code in {finding.code for finding in report.errors}
    assert cure in [offer.code for offer in report.cures]
    before = files(dataset)
    promised = preview(dataset, cure)
    assert files(dataset) == before
    name = apply(dataset, cure)
    after = files(dataset)
    assert {file for file in before if after.get(file) != before[file]} == {change.file for change in promised}
    assert check_dataset(dataset).errors == []
    cured = masks(dataset)
    for stem, mask in truth.items():
        if fault == "0 and 255":
            assert (cured[stem] == (mask > 0)).all()
        elif fault == "a turned camera":
            assert (cured[stem] == np.rot90(mask, -1)).all()
        else:
            assert (cured[stem] == mask).all()
    undo(dataset, name)
    assert files(dataset) == before
    assert list_undos(dataset) == []


def test_masks_that_lie_on_their_side_are_turned_one_way_or_the_other(dataset: Path):
    truth = masks(dataset)
    rewrite(dataset, lambda mask: np.rot90(mask))
    assert [offer.code for offer in check_dataset(dataset).cures] == ["turn_masks_left", "turn_masks_right"]
    undo(dataset, apply(dataset, "turn_masks_left"))
    apply(dataset, "turn_masks_right")
    assert all((mask == truth[stem]).all() for stem, mask in masks(dataset).items())


def test_a_few_masks_of_0_and_255_are_a_question_and_either_answer_ends_it(dataset: Path):
    (dataset / "objectclasses.json").write_text(TWO)
    rewrite(dataset, lambda mask: (mask > 0).astype(np.uint8))
    path = dataset / "labels" / "p0.png"
    Image.fromarray(read_mask(path) * 255).save(path)
    report = check_dataset(dataset)
    assert report.errors == []
    assert [(finding.code, finding.file, finding.value) for finding in report.findings] == [("white_some", "labels/p0.png", 255)]
    assert {offer.code for offer in report.cures} == {"white_ignore", "white_foreground"}
    name = apply(dataset, "white_ignore")
    assert check_dataset(dataset).findings == []
    undo(dataset, name)
    apply(dataset, "white_foreground")
    assert check_dataset(dataset).findings == []
    assert read_mask(path).max() == 1


def test_a_cure_that_fails_half_way_leaves_everything_as_it_was(dataset: Path):
    unpaired(dataset)
    (dataset / "unpaired" / "labels").mkdir(parents=True)
    (dataset / "unpaired" / "labels" / "lonely.png").write_bytes(b"older")
    before = files(dataset)
    with pytest.raises(Invalid, match="is there already"):
        apply(dataset, "set_unpaired_aside")
    assert files(dataset) == before
    assert list_undos(dataset) == []


def test_undoing_does_not_overwrite_what_changed_since(dataset: Path):
    gaps(dataset)
    name = apply(dataset, "renumber")
    Image.new("L", (64, 48), 1).save(dataset / "labels" / "p0.png")
    with pytest.raises(Invalid, match=r"labels/p0.png has changed since"):
        undo(dataset, name)


def test_cures_are_undone_in_the_order_backwards(dataset: Path):
    unpaired(dataset)
    gaps(dataset)
    before = files(dataset)
    first, second = apply(dataset, "set_unpaired_aside"), apply(dataset, "renumber")
    with pytest.raises(Invalid, match=f"Undo {second} first"):
        undo(dataset, first)
    undo(dataset, second)
    undo(dataset, first)
    assert files(dataset) == before


def test_a_cure_that_has_nothing_to_do_or_is_none_says_so(dataset: Path):
    assert preview(dataset, "renumber") == []
    with pytest.raises(Invalid, match="nothing to do"):
        apply(dataset, "renumber")
    with pytest.raises(NotFound, match="white_foreground"):
        apply(dataset, "magic")
    with pytest.raises(NotFound, match="nothing to undo"):
        undo(dataset, "../../images")


def test_a_dataset_is_cured_over_the_api_and_then_trains(api: TestClient, dataset: Path):
    white(dataset)
    report = api.get("/v1/datasets/plates").json()
    assert report["cures"] == [{"code": "white_foreground", "title": "Treat 255 as the foreground", "files": 6}]
    assert len(api.get("/v1/datasets/plates/cures/white_foreground").json()) == 6
    answer = api.post("/v1/datasets/plates/cures/white_foreground").json()
    assert api.get("/v1/datasets/plates").json()["counts"] == {}
    assert api.post(f"/v1/datasets/plates/undo/{answer['undo']}").status_code == 200
    assert api.get("/v1/datasets/plates").json()["counts"] == {"white": 6}
    assert api.get("/v1/datasets/plates/cures/magic").status_code == 404
    assert api.post("/v1/datasets/plates/undo/7").status_code == 404
    api.post("/v1/datasets/plates/cures/white_foreground")
    assert run_job(api, name="cured", dataset="plates")["status"]["state"] == "finished"
