"""The check against a corpus of faulty datasets, each with the finding it must lead to; and what the check costs a second time."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from annotations.colours import voc_palette
from annotations.dataset import read_mask, read_picture
from annotations.doctor import checking
from annotations.doctor.check import check_dataset
from annotations.doctor.duplicates import group_alike, look_of
from annotations.split import Picture, draw_split, read_split
from contracts.errors import Invalid
from docker_sdk_api import datasets as sdk_datasets
from tests.conftest import CLASSES, draw_dataset, run_job, wait_for

Spoil = Callable[[Path], None]
EVERY = [f"p{index}" for index in range(6)]
SOME = {"training": EVERY[:4], "validation": EVERY[4:]}
IMAGES, LABELS = "images", "labels"


def mask_of(folder: Path, stem: str = "p0") -> Path:
    return folder / "labels" / f"{stem}.png"


def with_value(value: int, x: int = 5, y: int = 7) -> Spoil:
    def spoil(folder: Path) -> None:
        mask = read_mask(mask_of(folder)).copy()
        mask[y, x] = value
        Image.fromarray(mask).save(mask_of(folder))

    return spoil


def cut_off(place: str, part: float) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / place / "p3.png"
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * part)])

    return spoil


def filled_with(place: str, content: bytes) -> Spoil:
    return lambda folder: (folder / place / "p3.png").write_bytes(content) and None


def byte_changed(place: str, at: float) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / place / "p3.png"
        data = bytearray(file.read_bytes())
        start = data.index(b"IDAT") + 4
        data[start + int((len(data) - start - 20) * at)] ^= 0x5A
        file.write_bytes(bytes(data))

    return spoil


def all_masks(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in (folder / "labels").iterdir():
            Image.fromarray(change(read_mask(path))).save(path)

    return spoil


def one_mask(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return lambda folder: Image.fromarray(change(read_mask(mask_of(folder)))).save(mask_of(folder))


def in_mode(mode: str) -> Spoil:
    """A mask in another mode; in modes that PNG does not have, as TIFF."""

    def spoil(folder: Path) -> None:
        mask = Image.open(mask_of(folder)).convert(mode)
        mask_of(folder).unlink()
        mask.save(folder / "labels" / f"p0.{'png' if mode in ('RGB', 'RGBA', 'LA', 'I;16') else 'tif'}")

    return spoil


def of_size(width: int, height: int) -> Spoil:
    return lambda folder: Image.new("L", (width, height)).save(mask_of(folder))


def classes(content: str) -> Spoil:
    return lambda folder: (folder / "objectclasses.json").write_text(content) and None


def named(*names: str) -> str:
    return json.dumps({"classes": len(names), "classesname": names})


def without(*paths: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in paths:
            target = folder / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    return spoil


def added(path: str, mode: str = "RGB") -> Spoil:
    return lambda folder: Image.new(mode, (64, 48)).save(folder / path)


def renamed(old: str, new: str) -> Spoil:
    return lambda folder: (folder / old).rename(folder / new) and None


def oriented(orientation: int, size: tuple[int, int] | None = None) -> Spoil:
    """A picture that says how to be shown, beside a mask that does not; both of `size` where it is given."""

    def spoil(folder: Path) -> None:
        path = folder / "images" / "p0.png"
        picture, mask = Image.open(path), Image.open(mask_of(folder))
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.resize(size or picture.size).save(path, exif=exif)
        mask.resize(size or mask.size, Image.Resampling.NEAREST).save(mask_of(folder))

    return spoil


def animated(place: str) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / place / "p0.png"
        frame = Image.open(file).copy()
        other = frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        frame.save(file.with_suffix(".tif"), save_all=True, append_images=[other])
        file.unlink()

    return spoil


def split(**sides: list[str]) -> Spoil:
    return lambda folder: (folder / "split.json").write_text(json.dumps({"training": [], "validation": [], **sides})) and None


def copied(stem: str, to: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for place in (IMAGES, LABELS):
            shutil.copy(folder / place / f"{stem}.png", folder / place / f"{to}.png")

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, shape, dtype=np.uint8)


def tiny(folder: Path) -> None:
    """One pixel of a fourth class, in six pictures."""
    classes(named("background", "pad", "circle", "crack"))(folder)
    with_value(3)(folder)


def vanishing(folder: Path) -> None:
    """Three pixels in a picture that is shrunk to a third."""
    mask = np.zeros((1152, 1300), np.uint8)
    mask[600:604, 600:612] = 1
    mask[10, 10:13] = 2
    Image.fromarray(mask).save(mask_of(folder))
    Image.new("RGB", (1300, 1152), "grey").save(folder / "images" / "p0.png")


def recompressed(folder: Path) -> None:
    """A copy that was saved as JPEG, on the other side of a given split."""
    Image.open(folder / "images" / "p1.png").save(folder / "images" / "copy.jpg", quality=80)
    shutil.copy(mask_of(folder, "p1"), mask_of(folder, "copy"))
    split(training=["p0", "p1", "p2", "p3"], validation=["p4", "p5", "copy"])(folder)


FAULTS: dict[str, tuple[str, Spoil]] = {
    **{f"the value {value}": ("value", with_value(value)) for value in (3, 4, 17, 100, 127, 128, 200, 253, 254)},
    **{f"the value 9 at {x}, {y}": ("value", with_value(9, x, y)) for x, y in ((0, 0), (63, 0), (0, 47), (63, 47), (31, 23))},
    **{
        f"{place} cut off at {part}": ("unreadable", cut_off(place, part))
        for place in (IMAGES, LABELS)
        for part in (0, 0.02, 0.1, 0.3, 0.5, 0.7)
    },
    **{
        f"{place} holding {content[:9]!r}": ("unreadable", filled_with(place, content))
        for place in (IMAGES, LABELS)
        for content in (b"\0" * 64, b"<html>not found", b"\x89PNG\r\n\x1a\n", b"GIF89a\1\0\1\0", b"BM" + b"\xff" * 60, b"version https")
    },
    **{f"a byte of {place} changed at {at}": ("unreadable", byte_changed(place, at)) for place in (IMAGES, LABELS) for at in (0.1, 0.9)},
    **{f"a mask of {size}": ("size", of_size(*size)) for size in ((1, 1), (64, 47), (63, 48), (32, 24), (128, 96), (48, 48), (64, 1))},
    **{f"a mask in the mode {mode}": ("mask_mode", in_mode(mode)) for mode in ("RGB", "RGBA", "LA", "I;16", "I", "F", "CMYK")},
    **{f"class names {content[:30]}": ("structure", classes(content)) for content in (
        "", "{", "[]", "{}", "null", "7", '{"classesname": 3}', '{"classesname": null}', '{"classesname": []}', named("one"),
        named("a", "a"), named("a", " "), '{"classes": 9, "classesname": ["a", "b"]}', named(*map(str, range(256))), "\xff\xfe",
    )},
    **{f"without {paths}": ("structure", without(*paths)) for paths in (
        (IMAGES,), (LABELS,), ("objectclasses.json",), (IMAGES, LABELS), (IMAGES, LABELS, "objectclasses.json"),
    )},
    **{f"without the mask {stem}": ("no_mask", without(f"labels/{stem}.png")) for stem in ("p0", "p3", "p5")},
    **{f"without the picture {stem}": ("no_picture", without(f"images/{stem}.png")) for stem in ("p0", "p3", "p5")},
    "a mask whose name ends in _mask": ("no_mask", renamed("labels/p0.png", "labels/p0_mask.png")),
    "a mask whose name is in capitals": ("no_picture", renamed("labels/p0.png", "labels/P0.png")),
    "a picture of another ending": ("not_read", renamed("images/p0.png", "images/p0.gif")),
    "masks as numpy files": ("not_read", lambda folder: np.save(folder / "labels" / "p0.npy", np.zeros(3))),
    "a folder inside": ("not_read", lambda folder: (folder / "labels" / "more").mkdir()),
    "two pictures of a stem": ("same_stem", added("images/p1.bmp")),
    "two masks of a stem": ("same_stem", added("labels/p1.bmp", "L")),
    "a JPEG mask": ("jpeg_mask", both(without("labels/p0.png"), added("labels/p0.jpg", "L"))),
    "a JPEG mask that ends in .JPEG": ("jpeg_mask", both(without("labels/p0.png"), added("labels/p0.jpeg", "L"))),
    "no pictures at all": ("too_few", without(*(f"{place}/{stem}.png" for place in (IMAGES, LABELS) for stem in EVERY))),
    "one picture": ("too_few", without(*(f"{place}/{stem}.png" for place in (IMAGES, LABELS) for stem in EVERY[1:]))),
    "masks of 0 and 255": ("white", both(classes(named("background", "pad")), all_masks(lambda mask: (mask > 0) * np.uint8(255)))),
    "masks of 0 and 255 for three classes": ("white", all_masks(lambda mask: (mask > 0) * np.uint8(255))),
    "one mask of 0 and 255": ("white_some", one_mask(lambda mask: (mask > 0) * np.uint8(255))),
    "values with gaps": ("value", all_masks(lambda mask: mask * 100)),
    "values to 255": ("value", all_masks(lambda mask: np.array([0, 128, 255], np.uint8)[mask])),
    "values from 1": ("value", all_masks(lambda mask: mask + 1)),
    "values that make no sense": ("value", all_masks(lambda mask: mask * 7 + 100 + mask[:1])),
    "colours of Pascal VOC": ("mask_mode", all_masks(lambda mask: voc_palette()[mask])),
    "colours that nobody knows": ("mask_mode", all_masks(lambda mask: (voc_palette() // 3 + 7)[mask])),
    "a photograph as mask": ("mask_mode", one_mask(lambda mask: noise((*mask.shape, 3)))),
    "16 bits with large values": ("mask_mode", one_mask(lambda mask: mask.astype(np.uint16) * 900)),
    "masks that lie on their side": ("turned", all_masks(lambda mask: np.rot90(mask))),
    **{f"EXIF orientation {turn}": ("turned", oriented(turn)) for turn in (5, 6, 7, 8)},
    **{f"EXIF orientation {turn} that no size shows": ("maybe_turned", oriented(turn)) for turn in (2, 3, 4)},
    "EXIF orientation 6 of a square": ("maybe_turned", oriented(6, (48, 48))),
    "several frames in a picture": ("frames", animated(IMAGES)),
    "several frames in a mask": ("frames", animated(LABELS)),
    "nothing but background": ("nothing_to_learn", all_masks(lambda mask: mask * 0)),
    "nothing but one class": ("nothing_to_learn", all_masks(lambda mask: mask * 0 + 1)),
    "nothing but 255": ("nothing_to_learn", all_masks(lambda mask: mask * 0 + 255)),
    "a picture of background": ("all_background", one_mask(lambda mask: mask * 0)),
    "a picture to ignore": ("all_ignored", one_mask(lambda mask: mask * 0 + 255)),
    "a class in no mask": ("absent_class", classes(named("background", "pad", "circle", "crack"))),
    "a tiny class": ("tiny_class", tiny),
    "a class that vanishes": ("vanishes", vanishing),
    "a picture twice": ("duplicate", copied("p1", "q")),
    "a picture on both sides": ("duplicate_across_split", both(copied("p1", "q"), split(training=EVERY[:4], validation=["p4", "p5", "q"]))),
    "a picture compressed again on the other side": ("near_duplicate_across_split", recompressed),
    "a split that is none": ("structure", lambda folder: (folder / "split.json").write_text("[1]") and None),
    "a split of other pictures": ("split_stem", split(training=[*SOME["training"], "gone"], validation=SOME["validation"])),
    "a split with a stem on two sides": ("split_twice", split(training=EVERY, validation=["p0"])),
    "a split without validation": ("split_empty", split(training=EVERY)),
    "a split without training": ("split_empty", split(validation=EVERY)),
    "a split that forgets a picture": ("not_in_split", split(training=EVERY[:3], validation=EVERY[4:])),
    "a class only in training": ("only_in_training", split(training=["p0", "p1", "p3", "p5"], validation=["p2", "p4"])),
    "a class never in training": ("not_in_training", split(training=["p0", "p2", "p4"], validation=["p1", "p3", "p5"])),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_dataset_is_found_out_with_file_and_cure(dataset: Path, fault: str):
    code, spoil = FAULTS[fault]
    spoil(dataset)
    report = check_dataset(dataset)
    assert code in {finding.code for finding in report.findings}, report.findings
    for finding in report.findings:
        assert finding.file
        assert finding.what.endswith((".", "?"))
        assert finding.cure.endswith((".", "?"))
        assert finding.file.endswith("/") or code == "structure" or (dataset / finding.file).exists() or "not_in_split" in finding.code
    assert sum(report.counts.values()) == len(report.findings)
    assert check_dataset(dataset) == report  # from what was kept, the same


def test_the_corpus_holds_more_than_a_hundred_faults():
    assert len(FAULTS) >= 100


def test_a_finding_says_value_share_and_place(dataset: Path):
    with_value(9, x=3, y=4)(dataset)
    finding = check_dataset(dataset).errors[0]
    assert (finding.value, finding.place, finding.share) == (9, (3, 4), 1 / (64 * 48))


def test_the_place_in_a_turned_mask_is_the_one_that_is_seen(tmp_path: Path):
    folder = draw_dataset(tmp_path / "turned")
    mask = np.zeros((64, 48), np.uint8)
    mask[0, 0] = 9
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(mask).save(mask_of(folder), exif=exif)
    x, y = check_dataset(folder).errors[0].place
    assert read_mask(mask_of(folder))[y, x] == 9


def test_a_second_check_reads_only_what_changed(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    read = []
    examine = checking.examine
    monkeypatch.setattr(checking, "examine", lambda stem, *rest: read.append(stem) or examine(stem, *rest))
    first = check_dataset(dataset)
    assert sorted(read) == EVERY
    read.clear()
    assert check_dataset(dataset) == first
    assert read == []
    with_value(1)(dataset)
    assert check_dataset(dataset).fingerprint != first.fingerprint
    assert read == ["p0"]


def test_what_was_kept_is_read_anew_where_it_is_broken_or_the_classes_are_others(dataset: Path):
    first = check_dataset(dataset)
    for content in ("", "{", "[]", '{"version": 1, "classes": 3, "pairs": [{"stem": "p0"}]}'):
        (dataset / checking.OWN / "check.json").write_text(content)
        assert check_dataset(dataset) == first
    classes(named("background", "pad"))(dataset)
    assert {finding.code for finding in check_dataset(dataset).errors} == {"value"}


def test_processes_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = draw_dataset(tmp_path / "many", pictures=40)
    with_value(9)(folder)
    cut_off(IMAGES, 0.4)(folder)
    told: list[tuple[int, int]] = []
    alone = check_dataset(folder, processes=1)
    shutil.rmtree(folder / checking.OWN)
    monkeypatch.setattr(checking, "ENOUGH_FOR_PROCESSES", 1)
    assert check_dataset(folder, lambda done, total: told.append((done, total)), processes=2) == alone
    assert told[0] == (0, 40)
    assert told[-1] == (40, 40)


def test_the_fingerprint_hangs_on_content_alone(tmp_path: Path):
    first, second = draw_dataset(tmp_path / "one"), draw_dataset(tmp_path / "two")
    assert check_dataset(first).fingerprint == check_dataset(second).fingerprint
    seen = {check_dataset(first).fingerprint}
    for change in (with_value(2), classes(named("background", "pad", "ring")), split(**SOME), without("images/p5.png")):
        change(first)
        seen.add(check_dataset(first).fingerprint)
    assert len(seen) == 5


def test_copies_look_alike_and_different_pictures_do_not():
    root = Path(__file__).parent.parent / "datasets" / "dummy_dataset" / "images"
    plates = [Image.open(path).convert("RGB") for path in sorted(root.iterdir())]
    looks = [look_of(plate) for plate in plates]
    assert group_alike(looks, [str(place) for place in range(50)]) == list(range(50))
    copies = [look_of(plate.resize((128, 96)).point(lambda value: min(255, value * 1.1))) for plate in plates]
    assert group_alike(looks + copies, [str(place) for place in range(100)]) == [*range(50), *range(50)]


@pytest.mark.parametrize("mode", ["HSV", "LAB", "RGBX", "RGBa", "CMYK", "LA", "L", "I;16", "F"])
def test_a_picture_of_any_mode_has_a_look(mode: str):
    plate = Image.open(Path(__file__).parent.parent / "datasets" / "dummy_dataset" / "images" / "plate_00.png")
    between = {"RGBa": "RGBA", "I;16": "I"}.get(mode, "RGB")
    assert look_of(plate.convert(between).convert(mode)) > 0


@given(
    shows=some.lists(some.sets(some.integers(0, 4)), min_size=4, max_size=60),
    twins=some.lists(some.integers(0, 59), max_size=8),
    share=some.floats(0.05, 0.5),
    test_share=some.sampled_from([0.0, 0.1, 0.3]),
    seed=some.integers(0, 99),
)
def test_a_split_is_whole_and_keeps_look_alikes_together(
    shows: list[set[int]], twins: list[int], share: float, test_share: float, seed: int
):
    first = f"s{twins[0] % len(shows)}" if twins else ""
    together = {f"s{twin % len(shows)}" for twin in twins}
    pictures = [
        Picture(f"s{index}", frozenset(classes), first if f"s{index}" in together else f"s{index}") for index, classes in enumerate(shows)
    ]
    drawn = draw_split(pictures, share, seed, test_share)
    sides = drawn.sides()
    assert sorted(stem for side in sides.values() for stem in side) == sorted(picture.stem for picture in pictures)
    assert drawn.training
    assert drawn.validation
    assert drawn == draw_split(pictures[::-1], share, seed, test_share)
    if len(together) < len(shows):
        assert sum(bool(together & set(side)) for side in sides.values()) <= 1


def test_a_rare_class_is_on_both_sides(dataset: Path):
    pictures = [Picture(f"s{index}", frozenset({0, 1} if index < 3 else {0})) for index in range(100)]
    for seed in range(20):
        drawn = draw_split(pictures, 0.2, seed)
        assert len(drawn.validation) == 20
        assert {"s0", "s1", "s2"} & set(drawn.validation)
        assert {"s0", "s1", "s2"} & set(drawn.training)


def test_a_given_split_is_kept_by_wizard_and_job_and_its_test_pictures_are_scored_once(api: TestClient, dataset: Path):
    given = {"training": ["p0", "p1"], "validation": ["p2", "p3"], "test": ["p4", "p5"]}
    split(**given)(dataset)
    assert api.get("/v1/datasets/plates/split?validation_share=0.5&seed=3").json() == given
    assert api.get("/v1/datasets/plates").json()["split"] == given
    view = run_job(api, name="given", dataset="plates", seed=3)
    folder = api.app.state.settings.checkpoints / "given"
    assert json.loads((folder / "split.json").read_text()) == given
    assert view["status"]["test"]["mean_iou"] > 0
    assert (folder / "events.jsonl").read_text().count('"event":"test"') == 1


def test_the_wizards_split_is_the_jobs_and_can_be_stored_and_forgotten(api: TestClient, dataset: Path):
    drawn = api.get("/v1/datasets/plates/split?validation_share=0.4&seed=5").json()
    run_job(api, name="drawn", dataset="plates", seed=5, validation_share=0.4)
    assert json.loads((api.app.state.settings.checkpoints / "drawn" / "split.json").read_text()) == drawn
    stored = api.put("/v1/datasets/plates/split?validation_share=0.4&seed=9&test_share=0.2").json()
    assert len(stored["test"]) == 1
    assert api.get("/v1/datasets/plates/split?seed=1").json() == stored
    assert read_split(dataset).model_dump() == stored
    assert api.delete("/v1/datasets/plates/split").status_code == 204
    assert api.get("/v1/datasets/plates/split?validation_share=0.4&seed=5").json() == drawn


def test_a_split_that_cannot_be_read_is_said_so(dataset: Path):
    (dataset / "split.json").write_text("{}")
    with pytest.raises(Invalid, match=r"split.json of the dataset plates cannot be read"):
        read_split(dataset)


def test_a_job_says_when_its_dataset_has_changed_since(api: TestClient, dataset: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("docker_sdk_api.jobs.SECONDS_BETWEEN_LOOKS", 0)
    view = run_job(api, name="first", dataset="plates")
    assert view["job"]["dataset_fingerprint"] == api.get("/v1/datasets/plates").json()["fingerprint"]
    assert not view["dataset_changed"]
    for path in (dataset / "labels").iterdir():
        path.touch()
    assert not api.get("/v1/jobs/first").json()["dataset_changed"]
    before = mask_of(dataset).read_bytes()
    with_value(1)(dataset)
    assert api.get("/v1/jobs/first").json()["dataset_changed"]
    mask_of(dataset).write_bytes(before)
    classes(named("background", "pad", "circle", "crack"))(dataset)
    assert api.get("/v1/jobs/first").json()["dataset_changed"]
    classes(CLASSES)(dataset)
    assert not api.get("/v1/jobs/first").json()["dataset_changed"]
    shutil.rmtree(dataset)
    assert api.get("/v1/jobs/first").json()["dataset_changed"]


def test_a_long_check_is_answered_with_how_far_it_is(api: TestClient, dataset: Path, monkeypatch: pytest.MonkeyPatch):
    examine = checking.examine
    monkeypatch.setattr(checking, "examine", lambda *pair: time.sleep(0.1) or examine(*pair))
    monkeypatch.setattr(sdk_datasets, "PATIENCE", 0.05)
    answer = api.get("/v1/datasets/plates")
    assert answer.status_code == 202
    assert answer.json()["checking"]["total"] in (0, 6)
    early = api.get("/v1/datasets/plates/report.json")
    assert (early.status_code, early.json()["cause"]) == (503, "The check of “plates” still goes on.")
    report = wait_for(lambda: (answer := api.get("/v1/datasets/plates")).status_code == 200 and answer.json(), 20)
    assert report["stems"] == EVERY


def test_the_report_is_downloaded_and_the_pictures_are_listed(api: TestClient, dataset: Path):
    with_value(9)(dataset)
    answer = api.get("/v1/datasets/plates/report.json")
    assert "plates-report.json" in answer.headers["content-disposition"]
    assert answer.json()["counts"] == {"value": 1}
    rows = {row["stem"]: row for row in api.get("/v1/datasets/plates/pictures").json()}
    assert rows["p0"]["findings"] == ["value"]
    assert rows["p1"] == {"stem": "p1", "width": 64, "height": 48, "classes": [0, 2], "findings": [], "alike": "p1"}
    assert read_picture(dataset / "images" / "p1.png").shape == (48, 64, 3)
