"""Any picture is read: of every kind, turned as it may be, of one pixel and of millions, in tiles that nobody can see."""

import io
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from annotations import tiles, whole_picture
from annotations.dataset import TURNS, as_rgb
from annotations.whole_picture import IMAGENET, resize_picture
from contracts.model import Geometry
from inference_api import pictures
from inference_api.png import write_png
from inference_api.store import LoadedModel, Quick, load_model
from tests.conftest import ROOT, wait_for
from tests.served import serve_brightness, serve_graph, served

PREDICT = "/v1/models/brightness/predict"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    serve_brightness(folder)
    return folder


@pytest.fixture(scope="module")
def inference(checkpoints: Path) -> Iterator[TestClient]:
    with served(checkpoints) as client:
        yield client


@pytest.fixture(params=["small", "large"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every picture is read as small ones are, and as large ones are: as rows, in strips, a few at a time."""
    if request.param == "large":
        monkeypatch.setattr(pictures, "LARGE", 1)
        monkeypatch.setattr(whole_picture, "PIXELS_AT_ONCE", 300)
        monkeypatch.setattr(whole_picture, "DECIDED_AT_ONCE", 300)
    return request.param


def quarters(width: int = 60, height: int = 40) -> np.ndarray:
    """Class ids: dark on the left above, bright on the right above, background below. No turn looks like another."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2, : width // 2], mask[: height // 2, width // 2 :] = 1, 2
    return mask


def painted(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array([128, 5, 250], np.uint8)[mask])


def sent(inference: TestClient, picture: Image.Image, kind: str, answer: str = "mask", **options: object) -> np.ndarray:
    """The answer to a picture that was saved as a kind of file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    reply = inference.post(f"{PREDICT}?answer={answer}", files={"picture": ("p", file.getvalue())})
    assert reply.status_code == 200, reply.text
    return np.asarray(Image.open(io.BytesIO(reply.content)))


def sixteen_bits(mask: np.ndarray) -> np.ndarray:
    return np.array([128, 5, 250], np.uint16)[mask] * 257


KINDS = [
    ("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "1"), ("PNG", "L"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "RGB"),
    ("PNG", "RGBA"), ("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "L"), ("BMP", "RGB"), ("TIFF", "L"), ("TIFF", "RGB"), ("TIFF", "RGBA"),
    ("TIFF", "CMYK"), ("GIF", "P"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_every_kind_and_mode_is_read(inference: TestClient, path: str, kind: str, mode: str):
    mask = quarters()
    if mode == "1":
        mask = np.where(mask == 0, 1, mask)  # it knows no grey
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    picture = painted(mask).convert("RGB").convert(mode) if mode != "1" else painted(mask).convert("1", dither=Image.Dither.NONE)
    seen = sent(inference, picture, kind, **options)
    assert seen.shape == mask.shape
    assert (seen != mask).mean() < (0.06 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_a_tiff_is_read_however_it_is_packed(inference: TestClient, path: str, compression: str):
    seen = sent(inference, painted(quarters()).convert("RGB"), "TIFF", compression=compression)
    assert (seen != quarters()).mean() < 0.06


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(inference: TestClient, path: str, kind: str):
    assert (sent(inference, Image.fromarray(sixteen_bits(quarters())), kind) == quarters()).all()


def test_sixteen_bits_a_colour_are_scaled_to_eight(inference: TestClient, path: str):
    import cv2

    packed = cv2.imencode(".png", sixteen_bits(quarters())[..., None].repeat(3, axis=2))[1].tobytes()
    reply = inference.post(PREDICT, files={"picture": ("p.png", packed)})
    assert (np.asarray(Image.open(io.BytesIO(reply.content))) == quarters()).all()


@pytest.mark.parametrize("scale", [1 / 255, 1, 257])
def test_grey_numbers_of_32_bits_are_read_by_how_far_they_reach(inference: TestClient, path: str, scale: float):
    values = np.array([128, 5, 250])[quarters()] * scale
    seen = sent(inference, Image.fromarray(values.astype(np.float32)), "TIFF")
    assert (seen == quarters()).all()
    if scale >= 1:
        assert (sent(inference, Image.fromarray(values.astype(np.int32)), "TIFF") == quarters()).all()


def test_transparency_lies_on_white(inference: TestClient, path: str):
    picture = Image.new("RGBA", (8, 8), (5, 5, 5, 0))
    assert (sent(inference, picture, "PNG") == 2).all()
    assert (sent(inference, Image.new("RGBA", (8, 8), (5, 5, 5, 255)), "PNG") == 1).all()


@pytest.mark.parametrize("answer", ["mask", "overlay"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_answer_is_as_upright_as_the_picture_is_seen(inference: TestClient, path: str, orientation: int, answer: str):
    back = {turn: next(other for other in TURNS if _undoes(other, turn)) for turn in TURNS}
    stored = painted(quarters()) if orientation == 1 else painted(quarters()).transpose(TURNS[back[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
        seen = sent(inference, stored.convert("RGB"), kind, answer, exif=exif, **options)
        truth = quarters()
        assert seen.shape[:2] == truth.shape, kind
        if answer == "mask":
            assert (seen != truth).mean() < 0.06, kind
        else:
            assert np.abs(seen[30, :].astype(int) - 128).max() < 12, kind  # the background is bare, and below


def _undoes(other: int, turn: int) -> bool:
    picture = Image.fromarray(quarters())
    return picture.transpose(TURNS[turn]).transpose(TURNS[other]).tobytes() == picture.tobytes() and (turn in (6, 8)) == (other in (6, 8))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 3), (31, 77), (641, 483), (1900, 500), (33, 3000)])
def test_a_mask_has_the_size_of_its_picture_from_one_pixel_on(inference: TestClient, path: str, size: tuple[int, int]):
    assert sent(inference, Image.new("RGB", size, "white"), "PNG").shape == (size[1], size[0])


def test_a_large_picture_is_seen_as_a_small_one_is(inference: TestClient, monkeypatch: pytest.MonkeyPatch):
    """Strips, rows made on the way and what is kept in bytes change nothing; of a JPEG that is decoded smaller, next to nothing."""
    numbers = np.random.default_rng(2)
    grain = Image.fromarray(numbers.integers(0, 255, (20, 30, 3), dtype=np.uint8)).resize((1500, 1100), Image.Resampling.BICUBIC)
    before = {kind: sent(inference, grain, kind) for kind in ("PNG", "JPEG")}
    sure = sent(inference, grain, "PNG", "confidence").astype(int)
    monkeypatch.setattr(pictures, "LARGE", 1000)
    monkeypatch.setattr(whole_picture, "PIXELS_AT_ONCE", 100_000)
    assert (sent(inference, grain, "PNG") != before["PNG"]).mean() < 1e-4
    assert (sent(inference, grain, "JPEG") != before["JPEG"]).mean() < 2e-3
    assert np.abs(sent(inference, grain, "PNG", "confidence").astype(int) - sure).max() <= 3
    assert (sent(inference, grain, "PNG", "overlay") == sent(inference, grain, "PNG", "overlay")).all()


def test_rows_of_a_resized_picture_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(whole_picture, "PIXELS_AT_ONCE", 5000)
    picture = np.random.default_rng(4).integers(0, 255, (701, 433, 3), np.uint8)
    for size in ((333, 206), (701, 433), (5, 3), (700, 432)):
        parts = [whole_picture.shrink_rows(picture, size, top, min(top + 90, size[0])) for top in range(0, size[0], 90)]
        assert np.abs(np.concatenate(parts).astype(int) - resize_picture(picture, size)).max() <= 1


@pytest.fixture(scope="module")
def convolutions(checkpoints: Path) -> LoadedModel:
    """A network that looks around: three layers, so that the edge of a tile is wrong for three pixels."""
    numbers = np.random.default_rng(8)
    sizes = [3, 8, 8, 3]
    layers = [
        (numbers.normal(0, (2 / (9 * before)) ** 0.5, (after, before, 3, 3)).astype(np.float32), np.zeros(after, np.float32))
        for before, after in itertools.pairwise(sizes)
    ]
    serve_graph(checkpoints, "convolutions", layers, Geometry(short_side=20_000, multiple_of=8))
    return load_model(checkpoints / "convolutions" / "model")


def in_tiles(loaded: LoadedModel, picture: np.ndarray, tile: tuple[int, int] | None, **geometry: object):
    changed = loaded.model.geometry.model_copy(update={"tile": tile, **geometry})
    model = loaded.model.model_copy(update={"geometry": changed})
    return replace(loaded, model=model).read(picture)


def smooth(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(9).integers(0, 255, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_tiles_have_no_borders_that_can_be_seen(convolutions: LoadedModel):
    picture = smooth(304, 416)
    whole, tiled = in_tiles(convolutions, picture, None), in_tiles(convolutions, picture, (128, 96))
    away = np.abs(whole.confidence - tiled.confidence)
    unlike = whole.mask != tiled.mask
    assert unlike.mean() < 0.005
    assert (whole.confidence[unlike] < 0.52).all()  # only where two classes were as good as equal
    assert np.median(away) < 1e-6
    # Where a tile ends it has nearly no weight: the step from one pixel to the next is no larger there than it is in the picture.
    steps = np.abs(np.diff(tiled.confidence, axis=1)).mean(axis=0)
    natural = np.abs(np.diff(whole.confidence, axis=1)).mean(axis=0)
    assert (steps - natural).max() < 0.005


def test_a_picture_in_parts_side_by_side_is_the_picture_in_one(convolutions: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    """Where classes are many and a picture wide, a row of tiles is too much to hold: then its columns are read in parts."""
    picture = smooth(240, 600)
    for short_side in (240, 170):  # at its own size, and enlarged again
        before = in_tiles(convolutions, picture, (64, 64), short_side=short_side)
        with monkeypatch.context() as patch:
            patch.setattr(tiles, "MOST_HELD", 1)
            parts = in_tiles(convolutions, picture, (64, 64), short_side=short_side)
        assert (parts.mask == before.mask).mean() > 0.9999
        assert np.abs(parts.confidence - before.confidence).max() < 1e-5


def test_a_picture_that_is_too_large_for_one_piece_is_read_in_tiles(convolutions: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    picture = smooth(304, 416)
    whole = in_tiles(convolutions, picture, None)
    monkeypatch.setattr(tiles, "LARGEST_WHOLE", 10_000)
    monkeypatch.setattr(tiles, "SIDE", 128)
    assert tiles.lay_tiles((304, 416), convolutions.model.geometry).tile == (128, 128)
    assert (in_tiles(convolutions, picture, None).mask == whole.mask).mean() > 0.995


def test_a_picture_can_be_read_at_its_own_size(inference: TestClient):
    """Lines of one pixel are lost where a picture of 2,000 is shrunk to 480, and found where it is not."""
    pixels = np.full((2000, 1200), 128, np.uint8)
    pixels[1000] = 250
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    for wish, found in (("", 0), ("&short_side=20000", 1200)):
        reply = inference.post(f"{PREDICT}?answer=shares{wish}", files={"picture": ("p", file.getvalue())})
        assert reply.json()["classes"][2]["pixels"] == found


def test_more_pixels_than_are_taken_get_a_sentence(checkpoints: Path):
    with served(checkpoints, largest_picture=10_000) as client:
        file = io.BytesIO()
        Image.new("L", (101, 100)).save(file, "PNG")
        reply = client.post(PREDICT, files={"picture": ("p.png", file.getvalue())})
    assert (reply.status_code, reply.json()["error"]) == (413, "TooLarge")
    assert "101 × 100" in reply.json()["cause"]


def test_a_picture_decoded_once_is_never_copied_whole(checkpoints: Path, tmp_path: Path):
    """The service's own memory, over what it needs idle, for 36 million pixels: Pillow's 4 bytes each, 1 of the mask, and strips."""
    side = 6000
    with open(tmp_path / "p.png", "wb") as file:
        write_png(file, (side, side), (np.full((500, side, 3), shade, np.uint8) for shade in range(12)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "CHECKPOINTS": str(checkpoints), "INFERENCE_PORT": str(port)}
    service = subprocess.Popen([sys.executable, "-m", "inference_api"], cwd=ROOT, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(f"{address}/v1/health"))
        small = io.BytesIO()
        Image.new("RGB", (600, 480)).save(small, "PNG")
        assert httpx.post(address + PREDICT, files={"picture": ("p", small.getvalue())}, timeout=60).status_code == 200
        idle = _peak(service.pid)
        with open(tmp_path / "p.png", "rb") as file:
            reply = httpx.post(f"{address}{PREDICT}?answer=mask", files={"picture": file}, timeout=120)
        assert Image.open(io.BytesIO(reply.content)).size == (side, side)
        assert _peak(service.pid) - idle < side * side * 4 + 100e6
    finally:
        service.terminate()
        service.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def _peak(process: int) -> int:
    """The most memory in bytes that a process has had in its life."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        pytest.skip("this system does not tell the memory of a process in /proc")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024


def test_an_upright_small_picture_is_the_picture_of_the_training():
    """What teaches and scores is read by the same function."""
    picture = painted(quarters())
    file = io.BytesIO()
    picture.save(file, "PNG")
    with Image.open(file) as opened:
        seen = pictures.decode(opened, "p", 480)
        assert (seen.pixels[0:40] == np.asarray(as_rgb(picture))).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 1000, 3), (600, 700, 3)])
def test_a_network_is_given_the_very_numbers_of_the_training(shape: tuple[int, int, int]):
    """To the last bit, a picture's and a tile's: OpenCV makes them here, numpy there."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for seen in (pixels, pixels[:, : max(1, shape[1] // 2)]):
        assert np.array_equal(Quick(IMAGENET.mean, IMAGENET.deviation).apply(seen), IMAGENET.apply(seen))
