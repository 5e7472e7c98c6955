"""Labelled pictures: what is wrong with them is said, what is right with them is read right."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from annotations.colours import class_colours, overlay, voc_palette
from annotations.dataset import open_dataset, read_mask, read_picture
from annotations.doctor.check import check_dataset
from annotations.doctor.checking import OWN
from annotations.dummy import draw_dummy_dataset
from annotations.split import split_stems
from annotations.whole_picture import Normalisation, read_whole_picture
from contracts.errors import Invalid
from contracts.model import Geometry
from tests.conftest import ROOT


def only_finding(folder: Path):
    findings = check_dataset(folder).errors
    assert len(findings) == 1, findings
    assert findings[0].cure
    return findings[0]


def test_a_sound_dataset_has_no_findings(dataset: Path):
    report = check_dataset(dataset)
    assert report.findings == []
    assert report.pictures == 6
    assert report.class_pictures == [6, 3, 3]
    assert report.class_pixels == [6 * 64 * 48 - 6 * 324, 3 * 324, 3 * 324]


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_a_missing_folder_is_named(dataset: Path, missing: str):
    (dataset / missing).rename(dataset / "elsewhere")
    assert f"no folder {missing}/" in only_finding(dataset).what


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ('{"classes": 3}', "cannot be read"),
        ('{"classes": 2, "classesname": ["a", "b", "c"]}', "says 2 classes and names 3"),
        ('{"classesname": ["a", "a", "b"]}', "twice"),
        ('{"classesname": ["a"]}', "names 1 classes"),
    ],
)
def test_wrong_class_names_are_said_so(dataset: Path, content: str, word: str):
    (dataset / "objectclasses.json").write_text(content)
    assert word in only_finding(dataset).what


def test_a_mask_of_another_size_is_named_with_both_sizes(dataset: Path):
    Image.new("L", (32, 48)).save(dataset / "labels" / "p2.png")
    finding = only_finding(dataset)
    assert finding.file == "labels/p2.png"
    assert "32 × 48" in finding.what
    assert "64 × 48" in finding.what


def test_a_value_beyond_the_classes_is_named_with_its_place(dataset: Path):
    mask = np.zeros((48, 64), np.uint8)
    mask[7, 5] = 9
    Image.fromarray(mask).save(dataset / "labels" / "p0.png")
    finding = only_finding(dataset)
    assert "the value 9, first at x 5, y 7" in finding.what
    assert "the classes end at 2" in finding.what


def test_255_is_ignored_not_wrong(dataset: Path):
    mask = np.full((48, 64), 255, np.uint8)
    Image.fromarray(mask).save(dataset / "labels" / "p0.png")
    report = check_dataset(dataset)
    assert report.errors == []
    assert report.ignored_pixels == 48 * 64


@pytest.mark.parametrize("place", ["images", "labels"])
def test_a_truncated_png_is_named(dataset: Path, place: str):
    file = dataset / place / "p3.png"
    file.write_bytes(file.read_bytes()[:60])
    finding = only_finding(dataset)
    assert finding.file == f"{place}/p3.png"
    assert "Cannot be read" in finding.what


def test_two_pictures_of_one_stem_are_both_named(dataset: Path):
    Image.new("RGB", (64, 48)).save(dataset / "images" / "p1.bmp")
    files = {finding.file for finding in check_dataset(dataset).errors}
    assert files == {"images/p1.png", "images/p1.bmp"}


def test_pictures_and_masks_without_partner_are_named_and_pair_with_nobody_else(dataset: Path):
    (dataset / "labels" / "p1.png").unlink()
    (dataset / "images" / "p4.png").unlink()
    report = check_dataset(dataset)
    assert {finding.file for finding in report.errors} == {"images/p1.png", "labels/p4.png"}
    assert [pair.stem for pair in open_dataset(dataset).pairs] == ["p0", "p2", "p3", "p5"]


def test_dots_in_names_pair_right(dataset: Path):
    for place in ("images", "labels"):
        (dataset / place / "p1.png").rename(dataset / place / "shot.2019.03.png")
    assert check_dataset(dataset).errors == []
    assert "shot.2019.03" in [pair.stem for pair in open_dataset(dataset).pairs]


def test_jpeg_masks_and_colour_masks_are_refused(dataset: Path):
    Image.new("L", (64, 48)).save(dataset / "labels" / "p0.jpg")
    (dataset / "labels" / "p0.png").unlink()
    Image.new("RGB", (64, 48)).save(dataset / "labels" / "p1.png")
    codes = {finding.file: finding.code for finding in check_dataset(dataset).errors}
    assert codes == {"labels/p0.jpg": "jpeg_mask", "labels/p1.png": "mask_mode"}


def test_a_class_in_no_mask_is_a_warning(dataset: Path):
    (dataset / "objectclasses.json").write_text('{"classes": 4, "classesname": ["background", "pad", "circle", "crack"]}')
    report = check_dataset(dataset)
    assert report.errors == []
    assert "crack" in report.findings[0].what


def test_class_names_may_be_digits(dataset: Path):
    (dataset / "objectclasses.json").write_text('{"classes": 3, "classesname": [0, 1, 2]}')
    assert open_dataset(dataset).classes == ["0", "1", "2"]


def test_a_turned_photograph_is_read_upright(tmp_path: Path):
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "p.png", exif=exif)
    assert read_picture(tmp_path / "p.png").shape == (3, 2, 3)
    assert read_mask(tmp_path / "p.png").shape == (3, 2)


def test_sixteen_bit_and_transparent_pictures_become_rgb(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "deep.png")[0, 0].tolist() == [128, 128, 128]
    assert read_picture(tmp_path / "clear.png")[0, 0].tolist() == [255, 255, 255]


def test_a_dataset_folder_that_is_not_there_is_said_so(tmp_path: Path):
    with pytest.raises(Invalid, match="no dataset folder"):
        open_dataset(tmp_path / "nowhere")


def test_the_dummy_dataset_is_drawn_to_the_byte(tmp_path: Path):
    draw_dummy_dataset(tmp_path)
    drawn = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    committed = ROOT / "datasets" / "dummy_dataset"
    files = (path for path in committed.rglob("*") if path.is_file() and OWN not in path.parts)
    assert drawn == {path.relative_to(committed): path.read_bytes() for path in files}


@given(
    stems=some.lists(some.text(min_size=1), min_size=2, max_size=40, unique=True),
    share=some.floats(0.01, 0.99),
    seed=some.integers(0, 2**31 - 1),
)
def test_a_split_is_complete_disjoint_and_the_same_for_the_same_seed(stems: list[str], share: float, seed: int):
    split = split_stems(stems, share, seed)
    assert sorted(split.training + split.validation) == sorted(stems)
    assert split.training
    assert split.validation
    assert split == split_stems(stems[::-1], share, seed)


def brightness(batch: np.ndarray) -> np.ndarray:
    """A network of two classes: bright pixels are of class 1."""
    grey = batch.mean(axis=1)
    return np.stack([-grey, grey], axis=1) * 9


@given(
    height=some.integers(1, 150),
    width=some.integers(1, 150),
    tile=some.sampled_from([None, (32, 32), (64, 32)]),
    short_side=some.integers(16, 200),
)
def test_a_mask_has_the_size_of_its_picture_whatever_tiles_it_is_read_in(height: int, width: int, tile, short_side: int):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = 255
    geometry = Geometry(short_side=short_side, tile=tile, multiple_of=8)
    reading = read_whole_picture(picture, geometry, Normalisation((0.5,) * 3, (0.5,) * 3), brightness)
    assert reading.mask.shape == (height, width)
    wrong = (reading.mask != (picture[:, :, 0] > 0)).mean()
    pixel = max(1.0, min(height, width) / short_side)  # what one pixel of the resized picture covers of this one
    assert wrong * width <= pixel + 1  # only where resizing has mixed the two halves
    assert (reading.confidence > 0.49).all()


def test_tiles_leave_no_seam():
    numbers = np.random.default_rng(1)
    small = Image.fromarray(numbers.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    picture = np.asarray(small.resize((160, 120), Image.Resampling.BICUBIC))
    normalisation = Normalisation((0.5,) * 3, (0.5,) * 3)
    whole = read_whole_picture(picture, Geometry(short_side=120, multiple_of=8), normalisation, brightness)
    tiled = read_whole_picture(picture, Geometry(short_side=120, tile=(64, 64)), normalisation, brightness)
    assert (whole.mask == tiled.mask).all()
    assert np.abs(whole.confidence - tiled.confidence).max() < 1e-5


def test_every_class_has_a_colour_of_its_own_and_the_background_none():
    colours = class_colours(22)
    assert len(set(colours)) == 22
    picture = np.full((1, 3, 3), 100, np.uint8)
    drawn = overlay(picture, np.array([[0, 1, 255]], np.uint8), colours, opacity=1)
    assert drawn[0].tolist() == [[100, 100, 100], list(colours[1]), [100, 100, 100]]


def test_the_palette_of_existing_clients_is_pascal_vocs():
    # The first colours, as the VOC development kit lists them.
    assert voc_palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert voc_palette()[255].tolist() == [224, 224, 192]


def test_pictures_of_any_mode_are_read(tmp_path: Path):
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA"):
        file = io.BytesIO()
        Image.new(mode, (5, 3)).save(file, "TIFF")
        (tmp_path / "p.tif").write_bytes(file.getvalue())
        assert read_picture(tmp_path / "p.tif").shape == (3, 5, 3)
