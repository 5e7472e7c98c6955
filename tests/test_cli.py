"""The command line: the same work from a terminal, with exit codes that a script can trust."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from annotations.dataset import read_mask, read_picture
from tests.conftest import ROOT


@pytest.fixture
def maskwright(tmp_path: Path):
    environment = {**os.environ, "CHECKPOINTS": str(tmp_path / "checkpoints"), "TASK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *map(str, arguments)]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_train_then_list_then_predict(maskwright, dataset: Path, tmp_path: Path):
    result = maskwright("train", dataset, "--engine", "majority", "--name", "one", "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert set(figures) == {"job", "model", "mean_iou", "pixel_accuracy", "iou_per_class", "epochs", "seconds"}
    assert figures["model"] == "one"
    assert "one" in maskwright("models").stdout
    out, overlay = tmp_path / "mask.png", tmp_path / "overlay.png"
    result = maskwright("predict", "one", dataset / "images" / "p0.png", "--out", out, "--overlay", overlay)
    assert result.returncode == 0, result.stderr
    assert read_mask(out).max() == 0
    assert read_picture(overlay).shape == (48, 64, 3)


def test_check_names_what_is_wrong_and_fails(maskwright, dataset: Path):
    assert maskwright("check", dataset).returncode == 0
    (dataset / "labels" / "p1.png").unlink()
    result = maskwright("check", dataset)
    assert result.returncode == 1
    assert "images/p1.png" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--set", "epochs"], "has no “=”"),
        (["--set", "epochs=many"], "epochs cannot be 'many'"),
        (["--engine", "keras"], "There is no network keras"),
        (["--network", "vgg"], "There is no network majority/vgg"),
        (["--weights", "from_checkpoint", "--weights-from", "x"], "no weights from_checkpoint for majority"),
    ],
)
def test_train_refuses_with_a_sentence(maskwright, dataset: Path, arguments: list[str], word: str):
    engine = [] if "--engine" in arguments else ["--engine", "majority"]
    result = maskwright("train", dataset, *engine, *arguments)
    assert result.returncode != 0
    assert word in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_up_says_which_port_is_taken_and_what_to_do(maskwright):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = maskwright("up", SDK_PORT=str(port))
    assert result.returncode == 2
    said = " ".join(result.stderr.split())
    assert f"Port {port}" in said
    assert "SDK_PORT=" in said


def test_a_dataset_is_taken_elsewhere(maskwright, dataset: Path, tmp_path: Path):
    for format, file in (("index_masks", "labels/p0.png"), ("coco", "annotations.json")):
        result = maskwright("export", dataset, "--to", tmp_path / format, "--format", format)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / format / file).exists()
    again = maskwright("export", dataset, "--to", tmp_path / "coco")
    assert again.returncode == 2
    assert "There is something at coco already." in " ".join(again.stderr.split())


def test_a_seed_below_nothing_is_refused(maskwright, dataset: Path):
    result = maskwright("train", dataset, "--engine", "majority", "--seed", "-1")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
