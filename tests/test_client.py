"""The Python client and `maskwright predict`, against a real inference_api: the same answers, and problems with their cures."""

import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from annotations.dataset import read_mask, read_picture
from cli.predict import predict_all
from contracts.errors import Invalid, Late, NotFound, TooLarge, Unavailable
from maskwright_client import AsyncClient, Client
from tests.conftest import ROOT
from tests.served import CLASSES
from tests.service import Service, picture, running, serve_texture


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    serve_texture(folder)
    serve_texture(folder, "tiles", tile=(64, 64))
    return folder


@pytest.fixture(scope="module")
def service(checkpoints: Path) -> Iterator[Service]:
    with running(checkpoints) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them deeper, and a file that is none."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "a.png").write_bytes(picture(1, 40, 60))
    (tmp_path / "photos" / "deep" / "b.png").write_bytes(picture(2, 50, 30))
    (tmp_path / "photos" / "notes.txt").write_text("none")
    return tmp_path / "photos"


@pytest.fixture
def maskwright(checkpoints: Path):
    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "CHECKPOINTS": str(checkpoints), "PYTHONPATH": str(ROOT), "COLUMNS": "400"}
        command = [sys.executable, "-m", "cli", "predict", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_client_reads_models_and_every_answer(service: Service, folder: Path):
    path = folder / "a.png"
    with Client(service.url) as client:
        assert {model.name for model in client.models()} == {"texture", "tiles"}
        assert client.model("texture").classes == CLASSES
        mask = client.mask("texture", path)
        assert (mask.shape, mask.dtype) == ((40, 60), np.uint8)
        assert (client.mask("texture", path.read_bytes()) == mask).all()
        assert client.overlay("texture", path).shape == (40, 60, 3)
        assert client.confidence("texture", path).shape == (40, 60)
        rows = client.segments("texture", path)["classes"]
        assert [row["pixels"] for row in rows] == np.bincount(mask.ravel(), minlength=3).tolist()
        only = client.mask("texture", path, classes=["dark"])
        assert (only == np.where(mask == 1, 1, 0)).all()
        assert (np.asarray(Image.open(io.BytesIO(client.answer("texture", path, "mask")))) == mask).all()


def test_a_service_of_this_machine_is_asked_past_the_proxy_of_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def ask() -> int:
        async with AsyncClient(service.url) as client:
            return len(await client.models())

    with Client(service.url) as client:
        assert len(client.models()) == asyncio.run(ask()) == 2
    with Client("http://service.invalid", timeout=5) as far, pytest.raises(Unavailable):
        far.models()


def test_a_picture_that_is_larger_than_pillow_takes_from_strangers_is_asked_about_and_shown(
    service: Service, checkpoints: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Client(service.url) as client:
        truth = client.mask("texture", folder / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(Image.DecompressionBombError):
            Image.open(folder / "a.png")
        assert np.array_equal(client.mask("texture", folder / "a.png"), truth)
    monkeypatch.setenv("LARGEST_PICTURE", "1100")  # Pillow refuses twice as many
    ask = (str(checkpoints / "texture" / "model"), [folder / "a.png"], tmp_path / "m.png", None, None, Console(quiet=True))
    refused = [looked.problem for looked in predict_all(*ask)]
    assert isinstance(refused[0], TooLarge)
    monkeypatch.setenv("LARGEST_PICTURE", "2400")
    assert [looked.problem for looked in predict_all(*ask)] == [None]
    assert np.array_equal(read_mask(tmp_path / "m.png"), truth)


def test_an_async_client_gives_the_same_answers_many_at_once(service: Service, folder: Path):
    async def ask() -> list[np.ndarray]:
        async with AsyncClient(service.url) as client:
            assert (await client.model("texture")).name in [model.name for model in await client.models()]
            return await asyncio.gather(
                client.mask("texture", folder / "a.png"),
                client.overlay("texture", folder / "a.png"),
                client.confidence("texture", folder / "deep" / "b.png"),
            )

    together = asyncio.run(ask())
    with Client(service.url) as client:
        alone = client.mask("texture", folder / "a.png"), client.overlay("texture", folder / "a.png")
        alone += (client.confidence("texture", folder / "deep" / "b.png"),)
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


def test_a_folder_goes_there_as_a_batch_and_comes_back_as_a_zip(service: Service, folder: Path, tmp_path: Path):
    with Client(service.url) as client:
        state = client.wait_for_batch(client.start_batch("texture", [folder]).id, 60)
        assert (state.total, state.done, list(state.failures)) == (3, 3, ["notes.txt"])
        with zipfile.ZipFile(client.fetch_result(state.id, tmp_path / "result.zip")) as answers:
            assert np.array_equal(np.asarray(Image.open(answers.open("deep/b.png"))), client.mask("texture", folder / "deep" / "b.png"))
            assert set(json.loads(answers.read("segments.json"))) == {"a.png", "deep/b.png"}
        client.delete_batch(state.id)
        with pytest.raises(NotFound):
            client.batch(state.id)

    async def again() -> Path:
        async with AsyncClient(service.url) as client:
            state = await client.wait_for_batch((await client.start_batch("texture", [folder])).id, 60)
            fetched = await client.fetch_result(state.id, tmp_path / "again.zip")
            await client.delete_batch(state.id)
            with pytest.raises(NotFound):
                await client.fetch_result(state.id, tmp_path / "never.zip")
            return fetched

    assert zipfile.ZipFile(asyncio.run(again())).namelist()
    assert not (tmp_path / "never.zip").exists()


def test_a_batch_that_takes_longer_than_one_waits_goes_on(service: Service):
    with Client(service.url) as client:
        large = {"files": {"picture": ("p.png", picture(0, 3000, 3000, flat=True))}, "timeout": 60}
        identifier = httpx.post(f"{service.url}/v1/models/tiles/batches?short_side=4096", **large).json()["id"]
        with pytest.raises(Late, match="0 of 1 pictures"):
            client.wait_for_batch(identifier, 0)
        assert not client.batch(identifier).ended
        client.delete_batch(identifier)


def test_problems_come_through_with_cause_and_cure(service: Service, folder: Path):
    with Client(service.url) as client:
        with pytest.raises(NotFound, match="There is no model “nobody”") as missing:
            client.mask("nobody", folder / "a.png")
        assert "texture" in missing.value.cure
        with pytest.raises(Invalid, match="cannot be read as a picture"):
            client.mask("texture", folder / "notes.txt")
        with pytest.raises(Invalid, match="No such file"):
            client.mask("texture", folder / "missing.png")
        with pytest.raises(Invalid, match="no file to send"):
            client.start_batch("texture", [])


def test_an_address_where_nothing_listens_and_one_that_never_answers_are_told_apart():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with Client(url) as client, pytest.raises(Unavailable, match="cannot be reached"):
            client.models()
        closed.listen()
        with Client(url, timeout=0.2) as client, pytest.raises(Late, match="did not answer in time"):
            client.models()


def test_a_folder_is_answered_here_and_by_a_service_alike(service: Service, maskwright, folder: Path, tmp_path: Path):
    for out, more in (("here", ()), ("there", ("--url", service.url))):
        result = maskwright("texture", folder, "--out", tmp_path / out, "--overlay", tmp_path / f"{out}-over", *more)
        assert result.returncode == 0, result.stderr
        assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["a.png", "deep/b.png"]
    for name in ("a.png", "deep/b.png"):
        mask = read_mask(tmp_path / "here" / name)
        assert len(np.unique(mask)) == 3
        assert (mask == read_mask(tmp_path / "there" / name)).all()
        assert (read_picture(tmp_path / "here-over" / name) == read_picture(tmp_path / "there-over" / name)).all()


def test_a_zip_and_one_picture_that_cannot_be_read_fail_only_for_that_one(maskwright, folder: Path, tmp_path: Path):
    (folder / "notes.png").write_text("no picture")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    result = maskwright("texture", archive, "--out", tmp_path / "masks")
    assert result.returncode == 1
    assert "notes.png cannot be read" in result.stderr
    assert sorted(path.name for path in (tmp_path / "masks").rglob("*.png")) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["texture", "missing.png", "--out", "m.png"], "no file or folder missing.png"),
        (["texture", "deep", "--out", "m"], "no picture"),
        (["texture", "a.png", "a.jpg", "--out", "m"], "would have the same name"),
        (["texture", "a.png"], "nothing to write"),
        (["nobody", "a.png", "--out", "m"], "There is no model “nobody”"),
        (["texture", "a.png", "--out", "m", "--url", "http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_what_cannot_be_done_is_said(maskwright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(picture(1, 20, 20))
    result = maskwright(*arguments)
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
