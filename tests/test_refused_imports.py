"""What cannot be imported is named with file, value and cure, and nothing is left of it; and imports from a terminal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotations.formats import Choices, list_formats
from annotations.importing import import_dataset
from contracts.errors import Invalid, NotFound, Taken
from tests.conftest import ROOT
from tests.labelled import (
    COLOURS,
    HEIGHT,
    ONE,
    TWO,
    WIDTH,
    bring,
    brush,
    coco_document,
    expect,
    ids,
    index_source,
    labelme_document,
    mask_of,
    picture,
    quiet,
    save,
    shape,
    studio_task,
    write,
)


def refused(source: Path, choices: Choices | None = None, format: str | None = None) -> Invalid:
    """The problem that an import ends with; nothing may be left where the dataset would be."""
    destination = source.parent / "imported"
    with pytest.raises(Invalid) as caught:
        import_dataset(source, destination, format, choices or Choices(), quiet)
    assert caught.value.cure
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]
    assert str(source.parent) not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (ids((9, 4, 5, 5, 6)), ["mask of b", "value 9", "x 5, y 4", "end at 2"]),
        (ids((1, 4, 5, 5, 6)).astype(np.uint16) * 700, ["labels/b.png", "value 700", "x 5, y 4"]),
        (COLOURS[ONE], ["labels/b.png", "colours", "#5a5a5b at x 0, y 0"]),
        (np.zeros((5, 5), np.uint8), ["labels/b.png", "5 × 5", "16 × 12"]),
    ],
)
def test_a_wrong_mask_is_named_with_value_and_place(tmp_path: Path, mask: np.ndarray, words: list[str]):
    problem = refused(index_source(tmp_path / "source", mask), format="index_masks")
    for word in words:
        assert word in problem.cause


@pytest.mark.parametrize("format", [None, "index_masks", "colour_masks", "binary_masks"])
def test_jpeg_masks_are_refused_with_the_reason(tmp_path: Path, format: str | None):
    source = index_source(tmp_path / "source")
    (source / "labels" / "b.png").unlink()
    save(source / "labels" / "b.jpg", ONE)
    if format is not None:
        (source / "labels" / "a.png").unlink()
    if format == "binary_masks":
        (source / "objectclasses.json").unlink()
    problem = refused(source, format=format)
    assert "labels/b.jpg is a JPEG: its compression changes the values" in problem.cause


def test_a_damaged_mask_or_picture_is_named(tmp_path: Path):
    source = index_source(tmp_path / "source")
    whole = (source / "labels" / "b.png").read_bytes()
    (source / "labels" / "b.png").write_bytes(whole[: len(whole) // 2])
    assert "labels/b.png cannot be read" in refused(source).cause
    (source / "labels" / "b.png").write_bytes(whole)
    (source / "images" / "b.png").write_bytes(b"no picture")
    assert "images/b.png cannot be read" in refused(source).cause


def test_two_masks_of_one_picture_are_refused(tmp_path: Path):
    source = index_source(tmp_path / "source")
    save(source / "labels" / "b_mask.png", ONE)
    assert "labels/b.png and labels/b_mask.png are both masks of b.png" in refused(source).cause


def test_smoothed_black_and_white_masks_are_named_with_their_value(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "images" / "a.png")
    save(source / "masks" / "a.png", ids((255, 2, 3, 7, 9), (128, 4, 9, 5, 10)))
    assert "value 128 at x 9, y 4" in refused(source, format="binary_masks").cause


def test_a_colour_without_a_class_is_named_with_its_place(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "images" / "a.png")
    save(source / "masks" / "a.png", COLOURS[ids((2, 4, 5, 5, 6))])
    assert "#00c800 at x 5, y 4" in refused(source, Choices(colours={"10,20,30": "background", "255,0,0": "crack"})).cause


def test_smoothed_colours_are_no_classes(tmp_path: Path):
    picture(tmp_path / "source" / "images" / "a.png")
    picture(tmp_path / "source" / "masks" / "a.png")
    assert "its edges are smooth, or it is a photograph" in refused(tmp_path / "source").cause


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (labelme_document("a.jpg", [shape("crack", "polygon", (1, 1), (2, 2))]), "a polygon of “crack” with 2 points"),
        (labelme_document("a.jpg", [shape("crack", "spline", (1, 1), (2, 2))]), "the kind “spline”"),
        (labelme_document("b.jpg", [shape("crack", "point", (1, 1))]), "images/b.jpg, which is not there"),
        ({**labelme_document("a.jpg", [shape("crack", "point", (1, 1))]), "imageWidth": 20}, "made for 20 × 12 pixels"),
        ({**labelme_document("a.jpg", []), "shapes": [{"label": "crack"}]}, "shapes.0.points: Field required"),
        (labelme_document("a.jpg", [shape("crack", "point", (float("nan"), 1))]), "finite number"),
    ],
)
def test_what_is_wrong_in_labelme_files_is_named(tmp_path: Path, document: dict[str, Any], word: str):
    source = tmp_path / "source"
    name = "other" if document["imagePath"] == "b.jpg" else "a"
    picture(source / "a.jpg")
    if name == "other":
        document["imagePath"] = "images/b.jpg"
    write(source / f"{name}.json", document)
    problem = refused(source)
    assert f"source/{name}.json" in problem.cause
    assert word in problem.cause


def test_a_picture_outside_of_what_was_brought_is_never_read(tmp_path: Path):
    picture(tmp_path / "source" / "other.jpg")
    secret = picture(tmp_path.parent / f"{tmp_path.name}-secret.jpg")
    write(tmp_path / "source" / "a.json", labelme_document(f"../../{secret.name}", [shape("crack", "point", (1, 1))]))
    assert "is not there" in refused(tmp_path / "source").cause


@pytest.mark.parametrize(
    ("segmentation", "word"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": [3, 4]}, "add up to 7 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "0\x7f"}, "which they never do"),
        ({"size": [HEIGHT, WIDTH], "counts": "XX"}, "break off"),
        ({"size": [9, 9], "counts": [81]}, "made for 9 × 9"),
        ([[1, 2, 3]], "odd number of coordinates"),
        ([], "boxes only"),
    ],
)
def test_what_is_wrong_in_coco_files_is_named(tmp_path: Path, segmentation: Any, word: str):
    picture(tmp_path / "source" / "images" / "a.jpg")
    write(tmp_path / "source" / "train.json", coco_document("a.jpg", [(3, segmentation, 0)]))
    problem = refused(tmp_path / "source")
    assert "train.json" in problem.cause
    assert word in problem.cause


def test_a_cvat_export_without_pictures_says_how_to_export_them(tmp_path: Path):
    save(tmp_path / "source" / "SegmentationClass" / "a.png", COLOURS[ONE])
    write(tmp_path / "source" / "labelmap.txt", "background:10,20,30::")
    assert "Save images" in refused(tmp_path / "source").cure


def test_a_picture_that_a_voc_list_names_must_be_there(tmp_path: Path):
    picture(tmp_path / "source" / "JPEGImages" / "a.jpg")
    save(tmp_path / "source" / "SegmentationClass" / "a.png", ONE)
    write(tmp_path / "source" / "ImageSets" / "Segmentation" / "train.txt", "a\nb\n")
    assert "lists b, but there is no JPEGImages/b.jpg" in refused(tmp_path / "source").cause


def test_a_broken_brush_is_named_with_its_task(tmp_path: Path):
    picture(tmp_path / "source" / "a.jpg")
    broken = brush("crack", ids((1, 2, 3, 7, 9)))
    broken["value"]["rle"] = broken["value"]["rle"][:9]
    write(tmp_path / "source" / "p.json", [studio_task(8, "/data/upload/1/a.jpg", [broken])])
    problem = refused(tmp_path / "source")
    assert "task 8 in source/p.json" in problem.cause
    assert "breaks off" in problem.cause


def test_a_label_that_was_not_given_as_a_class_is_named(tmp_path: Path):
    picture(tmp_path / "source" / "a.jpg")
    write(tmp_path / "source" / "a.json", labelme_document("a.jpg", [shape("scratch", "point", (1, 1))]))
    assert "the label “scratch”" in refused(tmp_path / "source", Choices(classes=["crack"])).cause


def test_what_is_no_dataset_is_told_what_was_looked_for(tmp_path: Path):
    write(tmp_path / "source" / "notes.txt", "nothing")
    problem = refused(tmp_path / "source")
    assert "it holds notes.txt" in problem.cause
    for row in list_formats():
        assert row["name"] in problem.cause
    with pytest.raises(NotFound, match="no format “gif”"):
        import_dataset(tmp_path / "source", tmp_path / "d", "gif", Choices(), quiet)


def test_an_import_never_replaces_a_dataset(tmp_path: Path):
    source = index_source(tmp_path / "source")
    kept = index_source(tmp_path / "imported", TWO)
    with pytest.raises(Taken):
        import_dataset(source, kept, None, Choices(), quiet)
    np.testing.assert_array_equal(mask_of(kept, "b"), TWO)


def test_files_without_a_partner_are_left_out_and_named(tmp_path: Path):
    source = index_source(tmp_path / "source")
    picture(source / "images" / "c.png")
    save(source / "labels" / "d.png", ONE)
    dataset = bring(source, "index_masks")
    notes = json.loads((dataset / "source.json").read_text())["notes"]
    assert notes == [
        "1 file has no mask and was left out: images/c.png",
        "1 file has no picture and was left out: labels/d.png",
    ]


@pytest.mark.parametrize("archive", [True, False])
def test_the_command_line_imports_folders_and_archives(tmp_path: Path, archive: bool):
    source = index_source(tmp_path / "source" / "wrapped")
    if archive:
        shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "source")
    given = tmp_path / "packed.zip" if archive else source

    def maskwright(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DATASETS": str(tmp_path / "datasets"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "cli", "import", str(given), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    answer = maskwright("--to", "plates", "--classes", "ground, crack,hole")
    assert answer.returncode == 0, answer.stderr
    assert "Recognised: Pictures and index masks" in answer.stdout
    assert "plates: 2 pictures, 3 classes (ground, crack, hole)" in answer.stdout
    expect(tmp_path / "datasets" / "plates", {"a": ONE, "b": ONE}, ["ground", "crack", "hole"])
    answer = maskwright("--to", "other", "--format", "coco")
    assert answer.returncode == 2
    assert "does not look like COCO" in " ".join(answer.stderr.split())
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["plates"]
