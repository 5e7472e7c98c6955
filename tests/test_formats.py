"""Every format that people bring, on small files made here: what is imported is the expected index mask, pixel by pixel."""

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotations.dataset import open_dataset, read_picture
from annotations.formats import FORMATS, Choices, list_formats
from annotations.run_lengths import brush_of, counts_of, pack_counts
from tests.conftest import ROOT
from tests.labelled import (
    CLASSES,
    COLOURS,
    HEIGHT,
    NAMES,
    ONE,
    PALETTE,
    SIZE,
    TWO,
    WIDTH,
    bring,
    brush,
    coco_document,
    expect,
    ids,
    labelme_document,
    mask_of,
    picture,
    save,
    shape,
    split_of,
    studio_task,
    write,
)

# index masks


@pytest.mark.parametrize(
    ("name", "content"),
    [("objectclasses.json", json.dumps(CLASSES)), ("class_names.list", "\n".join(NAMES)), ("class_names.txt", "\n".join(NAMES) + "\n\n")],
)
@pytest.mark.parametrize("inside", ["", "train/"])
def test_index_masks_with_their_class_names(tmp_path: Path, name: str, content: str, inside: str):
    source = tmp_path / "source"
    for stem, mask in (("a.b", ONE), ("c", TWO)):
        picture(source / inside / "images" / f"{stem}.jpg")
        save(source / inside / "labels" / f"{stem}.png", mask)
    write(source / inside / name, content)
    dataset = bring(source, "index_masks")
    expect(dataset, {"a.b": ONE, "c": TWO}, NAMES)
    assert (dataset / "images" / "c.jpg").read_bytes() == (source / inside / "images" / "c.jpg").read_bytes()


@pytest.mark.parametrize("layout", ["{side}/images|{side}/masks", "images/{side}|labels/{side}"])
def test_given_folders_are_kept_as_the_split(tmp_path: Path, layout: str):
    source = tmp_path / "source"
    pictures, masks = layout.split("|")
    for side in ("train", "val", "test"):
        picture(source / pictures.format(side=side) / f"{side}1.png")
        save(source / masks.format(side=side) / f"{side}1_mask.png", ONE)
    dataset = bring(source, "index_masks", Choices(classes=NAMES))
    assert split_of(dataset) == {"training": ["train1"], "validation": ["val1"], "test": ["test1"]}
    expect(dataset, {f"{side}1": ONE for side in ("train", "val", "test")}, NAMES)


def test_the_same_name_on_two_sides_is_told_apart(tmp_path: Path):
    for side, mask in (("train", ONE), ("val", TWO)):
        picture(tmp_path / "source" / side / "images" / "1.png")
        save(tmp_path / "source" / side / "masks" / "1.png", mask)
    dataset = bring(tmp_path / "source", "index_masks")
    expect(dataset, {"training_1": ONE, "validation_1": TWO}, ["background", "class_1", "class_2"])


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16", "LA"])
def test_index_masks_of_every_mode(tmp_path: Path, mode: str):
    source = tmp_path / "source"
    picture(source / "images" / "a.png")
    write(source / "objectclasses.json", CLASSES)
    stored = {
        "RGB": lambda: np.repeat(ONE[..., None], 3, axis=2),
        "RGBA": lambda: np.dstack([ONE, ONE, ONE, np.full_like(ONE, 255)]),
        "LA": lambda: np.dstack([ONE, np.full_like(ONE, 255)]),
        "I;16": lambda: ONE.astype(np.uint16),
    }.get(mode, lambda: ONE)()
    save(source / "labels" / "a.png", stored, palette=mode == "P")
    with Image.open(source / "labels" / "a.png") as image:
        assert image.mode == mode
    expect(bring(source, "index_masks"), {"a": ONE}, NAMES)


def test_a_mask_of_one_bit_is_black_and_white(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "images" / "a.png")
    area = ids((1, 2, 3, 7, 9))
    save(source / "masks" / "a.png", area > 0)
    expect(bring(source, "binary_masks"), {"a": area}, ["background", "foreground"])


# pictures that were held sideways


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_the_orientation_goes_to_picture_and_mask(tmp_path: Path, orientation: int, kind: str):
    source = tmp_path / "source"
    file = picture(source / "images" / f"a.{kind}", orientation=orientation)
    upright = read_picture(file)
    mask = ids((1, 1, 2, 6, 9), size=upright.shape[:2])
    save(source / "labels" / "a.png", mask)
    write(source / "objectclasses.json", CLASSES)
    dataset = bring(source, "index_masks")
    np.testing.assert_array_equal(mask_of(dataset, "a"), mask)
    imported = open_dataset(dataset).pairs[0].picture
    np.testing.assert_array_equal(read_picture(imported), upright)
    with Image.open(imported) as image:
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_stored_pixels_is_turned_with_them(tmp_path: Path, orientation: int):
    source = tmp_path / "source"
    stored = ids((1, 1, 2, 6, 9), (2, 0, 0, 1, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (source / "images").mkdir(parents=True)
    Image.fromarray(stored * 100).save(source / "images" / "a.png", exif=exif)
    save(source / "labels" / "a.png", stored)
    write(source / "objectclasses.json", CLASSES)
    dataset = bring(source, "index_masks")
    np.testing.assert_array_equal(mask_of(dataset, "a"), read_picture(source / "images" / "a.png")[..., 0] // 100)


def test_the_orientation_of_a_mask_itself_is_applied(tmp_path: Path):
    source = tmp_path / "source"
    stored = ids((1, 1, 2, 6, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(source / "images" / "a.png", (WIDTH, HEIGHT))
    (source / "labels").mkdir()
    Image.fromarray(stored).save(source / "labels" / "a.png", exif=exif)
    write(source / "objectclasses.json", CLASSES)
    np.testing.assert_array_equal(mask_of(bring(source, "index_masks"), "a"), np.rot90(stored, -1))


# black and white, colours, a file a class


def test_black_and_white_masks(tmp_path: Path):
    source = tmp_path / "source"
    area = ids((1, 2, 3, 7, 9))
    for stem, stored in (("a", area * 255), ("b", np.repeat((area * 255)[..., None], 3, axis=2))):
        picture(source / "images" / f"{stem}.png")
        save(source / "masks" / f"{stem}.png", stored)
    dataset = bring(source, "binary_masks", Choices(classes=["crack"]))
    expect(dataset, {"a": area, "b": area}, ["background", "crack"])


def test_black_and_white_in_16_bits(tmp_path: Path):
    area = ids((1, 2, 3, 7, 9))
    picture(tmp_path / "source" / "images" / "a.png")
    save(tmp_path / "source" / "masks" / "a.png", area.astype(np.uint16) * 65535)
    expect(bring(tmp_path / "source", "binary_masks"), {"a": area}, ["background", "foreground"])


def test_masks_of_nothing_but_background_do_not_hide_what_the_others_are(tmp_path: Path):
    for stem, mask in (("a", ids()), ("b", ONE)):
        picture(tmp_path / "source" / "images" / f"{stem}.png")
        save(tmp_path / "source" / "masks" / f"{stem}.png", mask)
    expect(bring(tmp_path / "source", "index_masks", Choices(classes=NAMES)), {"a": ids(), "b": ONE}, NAMES)


def test_white_may_be_chosen_to_mean_ignore(tmp_path: Path):
    area = ids((1, 2, 3, 7, 9)) * 255
    picture(tmp_path / "source" / "images" / "a.png")
    save(tmp_path / "source" / "masks" / "a.png", area)
    expect(bring(tmp_path / "source", "binary_masks", Choices(white="ignore")), {"a": area}, ["background", "foreground"])


def test_one_and_255_with_class_names_are_a_class_and_ignore(tmp_path: Path):
    mask = ids((1, 2, 3, 7, 9), (255, 0, 0, 2, 2))
    picture(tmp_path / "source" / "images" / "a.png")
    save(tmp_path / "source" / "labels" / "a.png", mask)
    write(tmp_path / "source" / "class_names.txt", "background\ncrack")
    expect(bring(tmp_path / "source", "index_masks"), {"a": mask}, ["background", "crack"])


@pytest.mark.parametrize("how", ["given", "class_dict.csv"])
def test_colour_masks_with_their_table(tmp_path: Path, how: str):
    source = tmp_path / "source"
    picture(source / "images" / "a.png")
    save(source / "masks" / "a.png", COLOURS[ONE])
    choices = Choices()
    if how == "given":
        choices = Choices(colours={"#0a141e": "background", "255,0,0": "crack", "#00c800": "hole", "#5a5a5b": "void"})
    else:
        write(source / how, "name,r,g,b\nbackground,10,20,30\ncrack,255,0,0\nhole,0,200,0\nVoid,90,90,91\n")
    expect(bring(source, "colour_masks", choices), {"a": ONE}, NAMES)


def test_colours_are_found_out_and_said(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "images" / "a.png")
    table = PALETTE.copy()
    table[255] = (224, 224, 192)
    alpha = np.full((*SIZE, 1), 255, np.uint8)
    save(source / "masks" / "a.png", np.concatenate([table[ONE], alpha], axis=2))
    dataset = bring(source, "colour_masks", Choices(classes=NAMES))
    expect(dataset, {"a": ONE}, NAMES)
    assert "#800000 crack" in json.loads((dataset / "source.json").read_text())["notes"][0]


@pytest.mark.parametrize("layout", ["masks/{name}/a.png", "masks/a_{name}.png"])
def test_one_mask_for_every_class(tmp_path: Path, layout: str):
    source = tmp_path / "source"
    picture(source / "images" / "a.jpg")
    for name, area in (("crack", ids((255, 2, 3, 7, 9))), ("hole", ids((255, 5, 6, 10, 14)))):
        save(source / layout.format(name=name), area)
    expect(bring(source, "mask_per_class"), {"a": ids((1, 2, 3, 7, 9), (2, 5, 6, 10, 14))}, NAMES)


# what tools and collections write


def test_labelme_shapes_later_ones_on_top(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "a.jpg")
    stamp = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).save(stamp, "PNG")
    shapes = [
        shape("crack", "polygon", (1, 1), (6, 1), (6, 5), (1, 5)),
        shape("hole", "rectangle", (10, 9), (4, 4)),
        shape(7, "circle", (13, 2), (14, 2)),
        shape("__ignore__", "rectangle", (0, 10), (2, 11)),
        shape("crack", "mask", (14, 10), (15, 11), mask=base64.b64encode(stamp.getvalue()).decode()),
    ]
    write(source / "a.json", labelme_document("a.jpg", shapes, imageData=None))
    expected = ids((2, 1, 1, 6, 7), (3, 4, 4, 10, 11), (1, 1, 12, 4, 15), (255, 10, 0, 12, 3))
    expected[[1, 1, 3, 3], [12, 14, 12, 14]] = 0
    expected[10, 14] = expected[11, 15] = 2
    dataset = bring(source, "labelme")
    imported = mask_of(dataset, "a")
    corners = ([1, 1, 3, 3], [12, 14, 12, 14])  # a disc of radius 1 may or may not have them
    imported = imported.copy()
    imported[corners] = 0
    np.testing.assert_array_equal(imported, expected)
    assert open_dataset(dataset).classes == ["background", "7", "crack", "hole"]


@pytest.mark.parametrize("labelled", ["upright", "as stored"])
def test_labelme_on_a_sideways_photograph(tmp_path: Path, labelled: str):
    """Older labelme showed the stored pixels, newer shows the picture upright; the size in the file says which."""
    source = tmp_path / "source"
    picture(source / "a.jpg", orientation=6)
    size = (WIDTH, HEIGHT) if labelled == "upright" else SIZE
    document = labelme_document("a.jpg", [shape("crack", "rectangle", (3, 2), (8, 6))])
    write(source / "a.json", {**document, "imageHeight": size[0], "imageWidth": size[1]})
    drawn = ids((1, 2, 3, 7, 9), size=size)
    expected = drawn if labelled == "upright" else np.rot90(drawn, -1)
    expect(bring(source, "labelme"), {"a": expected}, ["background", "crack"])


def test_labelme_lines_and_points(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "a.jpg", (60, 60))
    shapes = [
        shape("crack", "line", (0, 10), (59, 10)),
        shape("hole", "point", (30, 40)),
        shape("crack", "linestrip", (5, 25), (5, 55), (25, 55)),
    ]
    write(source / "a.json", {**labelme_document("a.jpg", shapes), "imageHeight": 60, "imageWidth": 60})
    mask = mask_of(bring(source, "labelme"), "a")
    assert [int((mask[:20, column] == 1).sum()) for column in (1, 30, 58)] == [10, 10, 10]
    assert mask[40, 30] == 2
    assert mask[40, 25] == mask[35, 30] == mask[45, 30] == 2
    assert mask[40, 36] == mask[40, 24] == 0
    assert mask[40, 5] == mask[55, 20] == 1


def test_labelme_with_the_picture_inside(tmp_path: Path):
    file = picture(tmp_path / "elsewhere" / "a.png")
    shapes = [shape("crack", "rectangle", (3, 2), (8, 6))]
    inside = base64.b64encode(file.read_bytes()).decode()
    write(tmp_path / "source" / "a.json", labelme_document("..\\photos\\a.png", shapes, imageData=inside))
    dataset = bring(tmp_path / "source", "labelme")
    expect(dataset, {"a": ids((1, 2, 3, 7, 9))}, ["background", "crack"])
    assert (dataset / "images" / "a.png").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("place", ["SegmentationClass", "SegmentationClassPNG", "SegmentationClassNpy"])
def test_labelme_voc_export(tmp_path: Path, place: str):
    source = tmp_path / "source"
    picture(source / "JPEGImages" / "a.jpg")
    (source / "SegmentationClass").mkdir()
    write(source / "class_names.txt", "__ignore__\n_background_\ncrack\nhole\n")
    if place.endswith("Npy"):
        (source / place).mkdir()
        np.save(source / place / "a.npy", np.where(ONE == 255, -1, ONE.astype(np.int32)))
    else:
        save(source / place / "a.png", ONE, palette=True)
    expect(bring(source, "labelme_voc"), {"a": ONE}, ["_background_", "crack", "hole"])


@pytest.mark.parametrize("colours", [False, True])
def test_pascal_voc(tmp_path: Path, colours: bool):
    source = tmp_path / "VOCdevkit"
    base = source / "VOC2012"
    table = PALETTE.copy()
    table[255] = (224, 224, 192)
    for stem, mask in (("2007_000032", ONE), ("2007_000039", TWO), ("2007_000063", ONE)):
        picture(base / "JPEGImages" / f"{stem}.jpg")
        save(base / "SegmentationClass" / f"{stem}.png", table[mask] if colours else mask, palette=not colours)
    lists = {"train": "2007_000032\n", "val": "2007_000039\n", "trainval": "2007_000032\n2007_000039\n"}
    for name, content in lists.items():
        write(base / "ImageSets" / "Segmentation" / f"{name}.txt", content)
    dataset = bring(source, "pascal_voc")
    np.testing.assert_array_equal(mask_of(dataset, "2007_000032"), ONE)
    assert open_dataset(dataset).classes[:3] == ["background", "aeroplane", "bicycle"]
    assert split_of(dataset) == {"training": ["2007_000032"], "validation": ["2007_000039"], "test": []}


def test_cityscapes(tmp_path: Path):
    source = tmp_path / "source"
    label_ids = ids((7, 0, 0, 6, 16), (26, 2, 3, 7, 9), (33, 8, 8, 12, 12), (4, 10, 0, 12, 3))
    expected = np.full(SIZE, 255, np.uint8)
    for label, index in ((7, 0), (26, 13), (33, 18)):
        expected[label_ids == label] = index
    for split, city in (("train", "aachen"), ("val", "ulm")):
        picture(source / "leftImg8bit" / split / city / f"{city}_000000_000019_leftImg8bit.png")
        save(source / "gtFine" / split / city / f"{city}_000000_000019_gtFine_labelIds.png", label_ids)
        save(source / "gtFine" / split / city / f"{city}_000000_000019_gtFine_color.png", COLOURS[ONE])
    dataset = bring(source, "cityscapes")
    np.testing.assert_array_equal(mask_of(dataset, "aachen_000000_000019"), expected)
    assert len(open_dataset(dataset).classes) == 19
    assert split_of(dataset)["validation"] == ["ulm_000000_000019"]


def test_camvid(tmp_path: Path):
    source = tmp_path / "source"
    stored = ids((3, 2, 3, 7, 9), (11, 0, 0, 2, 2), (10, 8, 8, 12, 12))
    for side in ("train", "val", "test"):
        picture(source / side / f"0001{side}.png")
        save(source / f"{side}annot" / f"0001{side}.png", stored)
    dataset = bring(source, "camvid")
    np.testing.assert_array_equal(mask_of(dataset, "0001train"), np.where(stored == 11, 255, stored))
    assert split_of(dataset) == {"training": ["0001train"], "validation": ["0001val"], "test": ["0001test"]}


def test_camvid_in_colour(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "train" / "a.png")
    save(source / "train_labels" / "a_L.png", COLOURS[ONE])
    write(source / "class_dict.csv", "name,r,g,b\nbackground,10,20,30\ncrack,255,0,0\nhole,0,200,0\nVoid,90,90,91\n")
    expect(bring(source, "camvid"), {"a": ONE}, NAMES)


def test_coco_polygons_run_lengths_and_crowds(tmp_path: Path):
    source = tmp_path / "source"
    for side in ("train", "val"):
        picture(source / f"{side}2017" / f"{side}.jpg")
        hole = {"size": list(SIZE), "counts": counts_of(ids((1, 5, 6, 10, 14)) > 0)}
        if side == "val":
            hole["counts"] = pack_counts(hole["counts"])
        crowd = {"size": list(SIZE), "counts": counts_of(ids((1, 0, 0, 3, 4)) > 0)}
        shapes = [(3, [[3, 2, 9, 2, 9, 7, 3, 7], [0, 9, 2, 9, 2, 11, 0, 11]], 0), (9, hole, 0), (3, crowd, 1)]
        write(source / "annotations" / f"instances_{side}2017.json", coco_document(f"{side}.jpg", shapes))
        write(source / "annotations" / f"captions_{side}2017.json", {"images": [], "annotations": [{"caption": "x"}]})
    expected = ids((255, 0, 0, 3, 4), (1, 2, 3, 7, 9), (1, 9, 0, 11, 2), (2, 5, 6, 10, 14))
    dataset = bring(source, "coco")
    expect(dataset, {"train": expected, "val": expected}, NAMES)
    assert split_of(dataset) == {"training": ["train"], "validation": ["val"], "test": []}


def test_cvat_masks(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "JPEGImages" / "a.jpg")
    save(source / "SegmentationClass" / "a.png", COLOURS[np.where(ONE == 255, 0, ONE)])
    write(source / "labelmap.txt", "# label:color_rgb:parts:actions\nhole:0,200,0::\nbackground:10,20,30::\ncrack:255,0,0::\n")
    write(source / "ImageSets" / "Segmentation" / "default.txt", "a\n")
    dataset = bring(source, "cvat_masks", Choices(classes=NAMES))
    expect(dataset, {"a": np.where(ONE == 255, 0, ONE)}, NAMES)


@pytest.mark.parametrize("order", [1, -1])
def test_coco_draws_in_the_order_of_the_file(tmp_path: Path, order: int):
    source = tmp_path / "source"
    picture(source / "images" / "a.jpg")
    shapes = [(3, [[3, 2, 9, 2, 9, 7, 3, 7]], 0), (9, [[6, 5, 14, 5, 14, 10, 6, 10]], 0)][::order]
    write(source / "labels.json", coco_document("a.jpg", shapes))
    boxes = [(1, 2, 3, 7, 9), (2, 5, 6, 10, 14)][::order]
    expect(bring(source, "coco"), {"a": ids(*boxes)}, NAMES)


def test_roboflow_masks(tmp_path: Path):
    source = tmp_path / "source"
    for side in ("train", "valid"):
        picture(source / side / f"{side}_jpg.rf.0123.jpg")
        save(source / side / f"{side}_jpg.rf.0123_mask.png", ONE)
        write(source / side / "_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n2, hole\n")
    dataset = bring(source, "roboflow_masks")
    expect(dataset, {"train_jpg.rf.0123": ONE, "valid_jpg.rf.0123": ONE}, NAMES)
    assert split_of(dataset)["validation"] == ["valid_jpg.rf.0123"]


def test_label_studio_brushes_polygons_and_rectangles(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "photo one.jpg")
    picture(source / "b.jpg")
    corners = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((6, 5), (14, 5), (14, 10), (6, 10))]
    polygon = {"type": "polygonlabels", "value": {"points": corners, "polygonlabels": ["hole"]}}
    box = {"x": 0, "y": 0, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["crack"]}
    tasks = [
        studio_task(1, "/data/upload/3/1a2b3c4d-photo%20one.jpg", [brush("crack", ids((1, 2, 3, 7, 9))), polygon]),
        studio_task(2, "/data/local-files/?d=photos/b.jpg", [{"type": "rectanglelabels", "value": box}]),
    ]
    write(source / "project-1.json", tasks)
    masks = {"photo one": ids((1, 2, 3, 7, 9), (2, 5, 6, 10, 14)), "b": ids((1, 0, 0, 3, 4))}
    expect(bring(source, "label_studio"), masks, NAMES)


def test_label_studio_short_export(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "a.jpg")
    row = {"format": "rle", "rle": brush_of(ids((1, 2, 3, 7, 9)) > 0), "brushlabels": ["crack"], "original_width": WIDTH}
    write(source / "min.json", [{"image": "/data/upload/1/a.jpg", "id": 4, "tag": [{**row, "original_height": HEIGHT}]}])
    expect(bring(source, "label_studio"), {"a": ids((1, 2, 3, 7, 9))}, ["background", "crack"])


@pytest.mark.parametrize("export", [True, False])
def test_label_studio_brushes_as_png(tmp_path: Path, export: bool):
    source = tmp_path / "source"
    picture(source / ("a.jpg" if export else "12.jpg"))
    save(source / "task-12-annotation-3-by-1-tag-crack-0.png", ids((255, 2, 3, 7, 9)))
    save(source / "task-12-annotation-3-by-1-tag-deep hole-1.png", ids((255, 5, 6, 10, 14)))
    if export:
        write(source / "project.json", [studio_task(12, "/data/upload/1/0a1b2c3d-a.jpg", [brush("crack", ONE), brush("deep hole", ONE)])])
    expected = ids((1, 2, 3, 7, 9), (2, 5, 6, 10, 14))
    expect(bring(source, "label_studio_png"), {"a" if export else "12": expected}, ["background", "crack", "deep hole"])


def test_supervisely_polygons_with_holes_and_bitmaps(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "train" / "img" / "a.jpg")
    picture(source / "val" / "img" / "b.jpg")
    stamp = io.BytesIO()
    Image.fromarray(np.full((5, 8), 255, np.uint8)).convert("1").save(stamp, "PNG")
    data = base64.b64encode(zlib.compress(stamp.getvalue())).decode()
    outline = {"exterior": [[1, 1], [9, 1], [9, 9], [1, 9]], "interior": [[[3, 3], [7, 3], [7, 7], [3, 7]]]}
    polygon = {"classTitle": "crack", "geometryType": "polygon", "points": outline}
    bitmap = {"classTitle": "hole", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [6, 5]}}
    write(source / "meta.json", {"classes": [{"title": "crack", "shape": "polygon"}, {"title": "hole", "shape": "bitmap"}]})
    for name, objects in (("train/ann/a.jpg.json", [polygon, bitmap]), ("val/ann/b.jpg.json", [])):
        write(source / name, {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects})
    expected = ids((1, 1, 1, 10, 10), (0, 4, 4, 7, 7), (2, 5, 6, 10, 14))
    dataset = bring(source, "supervisely")
    expect(dataset, {"a": expected, "b": ids()}, NAMES)
    assert split_of(dataset) == {"training": ["a"], "validation": ["b"], "test": []}


def test_training_and_test_pictures_alone_are_given_some_to_validate_on(tmp_path: Path):
    for side, pictures in (("train", 5), ("test", 2)):
        for number in range(pictures):
            picture(tmp_path / "source" / side / "images" / f"{side}{number}.png")
            save(tmp_path / "source" / side / "labels" / f"{side}{number}.png", ONE)
    dataset = bring(tmp_path / "source", "index_masks", Choices(classes=NAMES))
    split = split_of(dataset)
    assert split["test"] == ["test0", "test1"]
    assert [len(split[side]) for side in ("training", "validation")] == [4, 1]
    assert "No pictures were given to validate on" in json.loads((dataset / "source.json").read_text())["notes"][-1]


def test_every_format_is_in_its_page():
    page = (ROOT / "docs" / "formats.md").read_text()
    assert [row["format"] for row in list_formats()] == list(FORMATS)
    for row in list_formats():
        assert f"| `{row['format']}` |" in page, row["format"]
        assert row["name"] in page, row["name"]
