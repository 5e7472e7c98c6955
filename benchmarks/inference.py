"""How fast a model answers: ./run/bench.sh inference [FOLDER] [--model NAME_OR_FOLDER] [--work FOLDER] [--minutes 10] [--quick]

FCN-ResNet50 of the gluon engine at 480², the same weights: MXNet's own forward pass (the way the original serves it) against the
runtime in float32, bfloat16 and int8, in turn, picture by picture; the HTTP service against a bare call on the decoded picture, for this
network and a light one; simultaneous callers with pictures of distinct sizes against sequential ones; the service's memory while
callers go on for --minutes.

FOLDER: a dataset of photographs, cut to squares of 480 pixels; without one it is the dummy dataset, enlarged. What is trained
on them (minutes) is kept in --work for the next time. --model: take this trained gluon fcn/resnet50 instead, a job's or a model's folder.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from loops.compare import ENVIRONMENT, ROOT, gluon_python, running
from loops.service import compare_http, endurance, median, served, simultaneous
from machine import report
from PIL import Image

from annotations.dataset import Pair, open_dataset, read_mask, read_picture
from annotations.split import Split
from annotations.whole_picture import IMAGENET
from contracts.job_folder import JobFolder
from contracts.model import MODEL_FILE, read_model
from docker_sdk_api.settings import Settings
from runtimes import choose, count_cores, look_around, open_graph
from training_api.metrics import ConfusionMatrix

SIDE = 480
ADAMW = ["--set", "optimizer=adamw", "--set", "schedule=cosine", "--set", "warm_up=0.15", "--set", "weight_decay=0.01"]
"""Learns something in so few epochs; the network's own defaults are those of the GluonCV training GUI."""
SCHOOL = {
    "fcn": ["--engine", "gluon", "--network", "fcn", "--backbone", "resnet50", "--epochs", "12", "--set", "crops_per_picture=2", *ADAMW],
    "light": ["--engine", "pytorch", "--network", "lraspp", "--backbone", "mobilenet_v3_large", "--epochs", "12"],
}
CALLERS = (12, 50, 200)
KEYS = ("float32_vs_mxnet", "bfloat16_vs_mxnet", "int8_vs_mxnet", "pixels_equal", "miou_drop_bfloat16", "miou_drop_int8")
"""None where this processor has no such numbers. A drop is in points of mIoU."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "datasets" / "dummy_dataset")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--quick", action="store_true", help="fewer pictures and callers: to see that it runs")
    asked = parser.parse_args()
    if not (asked.folder / "images").is_dir():
        parser.error(f"there is no dataset in {asked.folder}; give a folder with images/ and labels/, such as datasets/dummy_dataset")
    with tempfile.TemporaryDirectory() as scratch:
        work = (asked.work or Path(scratch)).resolve()
        pairs = squares(asked.folder, work / "squares")
        checkpoints = work / "checkpoints"
        if asked.model:
            take(asked.model, checkpoints / "fcn")
        for name in SCHOOL:
            train(checkpoints, name, work / "squares")
        seen = scored(checkpoints / "fcn", pairs)[: 3 if asked.quick else None]
        rows, figures = compare_forward(checkpoints / "fcn" / "model", seen, Path(scratch))
        with served(checkpoints) as (port, process):
            for name, key in (("fcn", "http_overhead"), ("light", "http_overhead_light")):
                row, figures[key] = compare_http(port, checkpoints / name / "model", pairs, 8 if asked.quick else 40)
                rows.append(row)
            found, figures["wrong_answers"], figures["throughput_vs_bare"] = simultaneous(
                port, checkpoints / "fcn" / "model", pairs, CALLERS[:1] if asked.quick else CALLERS
            )
            row, figures["memory_last_vs_first"] = endurance(port, process, checkpoints / "light" / "model", pairs, asked.minutes)
    report(("what", "by", "ms, median", "note"), [*rows, *found, row], figures)


def squares(source: Path, target: Path) -> list[Pair]:
    """The middle of every photograph, 480 pixels wide and high."""
    if not target.exists():
        for name in ("images", "labels"):
            (target / name).mkdir(parents=True)
        for pair in open_dataset(source).pairs:
            picture, mask = Image.fromarray(read_picture(pair.picture)), Image.fromarray(read_mask(pair.mask))
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            box = (left, top, left + side, top + side)
            picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box).save(target / "images" / f"{pair.stem}.jpg", quality=95)
            mask.resize((SIDE, SIDE), Image.Resampling.NEAREST, box).save(target / "labels" / f"{pair.stem}.png")
        (target / "objectclasses.json").write_bytes((source / "objectclasses.json").read_bytes())
    return open_dataset(target).pairs


def take(model: Path, place: Path) -> None:
    """Let a trained model stand where the benchmark's own would; a bare name is a job's."""
    folder = (model if model.exists() else Settings().checkpoints / model).resolve()
    job = folder.parent if (folder / MODEL_FILE).exists() else folder
    needed = job / "model" / "model_best.params"
    if not needed.exists():
        raise SystemExit(f"There is no {needed}. Give the folder of a job, or of its model, that the gluon engine trained (fcn/resnet50).")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        raise SystemExit(f"{place} is there already. Give another --work, or leave --model out to use it.")
    place.symlink_to(job)


def train(checkpoints: Path, name: str, dataset: Path) -> None:
    if (checkpoints / name / "model" / MODEL_FILE).exists():
        return
    print(f"training {name} for some minutes", file=sys.stderr)
    settings = ["--set", "crop=128", "--set", f"short_side={SIDE}", "--set", "batch_size=8", "--set", "validate_every=4"]
    command = [sys.executable, "-m", "cli", "train", str(dataset), "--name", name, *SCHOOL[name], *settings]
    subprocess.run(command, env={**ENVIRONMENT, "CHECKPOINTS": str(checkpoints)}, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def scored(job: Path, pairs: list[Pair]) -> list[Pair]:
    """The pictures that the model never learnt from; all, where that is not known."""
    files = JobFolder(job)
    if not files.split_file.exists():
        return pairs
    kept = set(Split.model_validate_json(files.split_file.read_bytes()).validation)
    return [pair for pair in pairs if pair.stem in kept] or pairs


def compare_forward(folder: Path, pairs: list[Pair], scratch: Path) -> tuple[list[list[object]], dict[str, object]]:
    """MXNet and every precision on the same arrays, in turn: seconds, masks and mIoU of each."""
    model = read_model(folder)
    runtime, _ = choose("auto", "float32", model.comparisons, look_around())
    graphs = {name: open_graph(folder, runtime, name) for name in look_around().precisions[runtime]}
    height, width = model.geometry.tile or (SIDE, SIDE)
    command = [gluon_python(), Path(__file__).parent / "loops" / "served_gluon.py", folder / "model_best.params"]
    seconds: dict[str, list[float]] = {name: [] for name in ("mxnet", *graphs)}
    seconds_on_all: list[float] = []
    matrices = {name: ConfusionMatrix(len(model.classes)) for name in seconds}
    equal: dict[str, list[float]] = {name: [] for name in graphs}
    file = scratch / "picture.npy"
    words = ["env", "--unset=OMP_NUM_THREADS", *(str(word) for word in (*command, len(model.classes), height, width))]
    # By itself MXNet takes half of the processors; what it does with all of them is told beside it.
    all_of_them = ["env", f"OMP_NUM_THREADS={count_cores()}", *words[2:]]
    with running(words, all_of_them) as (mxnet, mxnet_on_all):
        for number, pair in enumerate([pairs[0], *pairs]):
            batch = IMAGENET.apply(read_picture(pair.picture))[None]
            np.save(file, batch)
            took, masks = {"mxnet": mxnet.seconds(str(file))}, {"mxnet": np.load(file.with_suffix(".mask.npy"))}
            on_all = mxnet_on_all.seconds(str(file))
            for name, graph in graphs.items():
                started = time.perf_counter()
                scores = graph.predict(batch)
                took[name] = time.perf_counter() - started
                masks[name] = scores[0].argmax(0).astype(np.uint8)
            if number == 0:
                continue  # the first picture also builds everybody's graph
            seconds_on_all.append(on_all)
            for name, mask in masks.items():
                seconds[name].append(took[name])
                matrices[name].add(read_mask(pair.mask), mask)
            for name in graphs:
                equal[name].append(float((masks[name] == masks["mxnet"]).mean()))
    score = {name: matrix.mean_iou() or 0.0 for name, matrix in matrices.items()}
    rows: list[list[object]] = [["FCN-ResNet50, forward", "mxnet", median(seconds["mxnet"]), f"mIoU {score['mxnet']:.4f}"]]
    rows.append(["", f"mxnet, OMP_NUM_THREADS={count_cores()}", median(seconds_on_all), ""])
    for name, graph in graphs.items():
        rows.append(["", graph.describe, median(seconds[name]), f"mIoU {score[name]:.4f}, {np.mean(equal[name]):.3%} equal pixels"])
    figures: dict[str, object] = dict.fromkeys(KEYS)
    figures["pixels_equal"] = round(float(np.mean(equal["float32"])), 5)
    for name in graphs:
        figures[f"{name}_vs_mxnet"] = round(statistics.median(a / b for a, b in zip(seconds["mxnet"], seconds[name], strict=True)), 2)
        if name != "float32":
            figures[f"miou_drop_{name}"] = round(100 * (score["float32"] - score[name]), 3)
    return rows, figures


if __name__ == "__main__":
    main()
