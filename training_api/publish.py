"""Publish the best weights as a model folder, after comparing what will be served with what was trained."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from annotations.colours import class_colours, overlay, voc_palette
from annotations.dataset import Pair, read_picture
from annotations.whole_picture import Normalisation, read_whole_picture, resize_picture, working_size
from contracts.errors import Broken
from contracts.job import Job
from contracts.job_folder import JobFolder, folder_aside
from contracts.model import Comparison, Geometry, Model, Parity
from training_api.checkpoints import best_scores
from training_api.engines import Engine
from training_api.previews import CELL, TALLEST
from training_api.weights import read_roots

COMPARED = 4
"""So many validation pictures are read by both."""
EQUAL = 0.999
"""Share of their pixels that must have the same class."""
GRAPH = "model.onnx"


def publish(
    folder: JobFolder,
    job: Job,
    engine: Engine,
    classes: list[str],
    training: list[Pair],
    validation: list[Pair],
    say: Callable[[str], None],
) -> None:
    """Fill model/ from best/. Raises Broken where the exported graph does not see what the engine sees. `say` is told the stages."""
    say("publishing the model")
    scores, roots = best_scores(folder), read_roots(folder)
    if scores is None:
        raise Broken("No epoch of this job was scored.", "Train for one epoch at least.")
    engine.load(folder.best)
    with folder_aside(folder.model) as aside:
        engine.export(aside)
        predictor = "onnx_graph" if (aside / GRAPH).exists() else "majority"
        parity = compare(aside, engine, (read_picture(pair.picture) for pair in validation[:COMPARED]))
        seconds = sum(scores.seconds for scores in folder.status().history)  # not those in the queue, or while it was stopped
        comparisons = []
        if predictor == "onnx_graph":
            from training_api.precisions import compare_precisions  # needs the runtimes, which majority goes without

            say("comparing narrower numbers")
            comparisons = compare_precisions(aside, engine, len(classes), training, validation, seconds)
        model = Model(
            name=job.name,
            job=job.name,
            created=datetime.now(timezone.utc),
            engine=job.engine,
            network=job.network,
            backbone=job.backbone,
            predictor=predictor,
            classes=classes,
            palette=class_colours(len(classes)),
            geometry=engine.geometry,
            mean=engine.normalisation.mean,
            deviation=engine.normalisation.deviation,
            scores=scores,
            parity=parity,
            comparisons=comparisons,
            dataset=job.dataset,
            weights=job.weights,
            weights_from=roots.name,
            weights_licence=roots.licence,
            train_pictures=len(training),
            validation_pictures=len(validation),
            seconds=seconds,
        )
        model.write(aside)
        (aside / "palette.txt").write_text("\n".join(str(value) for value in voc_palette().ravel()) + "\n")
        (aside / "configuration.json").write_text(json.dumps(_configuration(job, classes), indent=2))
        (aside / "README.md").write_text(_card(model, job))
        _example(aside, engine, validation[0], classes)


class Reader(Protocol):
    """As much of an engine as reads pictures."""

    geometry: Geometry

    @property
    def normalisation(self) -> Normalisation: ...

    def predict(self, batch: np.ndarray) -> np.ndarray: ...


def compare(folder: Path, engine: Reader, pictures: Iterable[np.ndarray]) -> Parity:
    """The exported graph of a folder against the engine, over whole pictures uint8 (height, width, 3). Raises Broken."""
    if not (folder / GRAPH).exists():
        return Parity(pictures=0, equal_pixels=1.0, largest_difference=0.0)
    exported = _onnx_predict(folder / GRAPH)
    read, equal, pixels, largest = 0, 0, 0, 0.0
    for picture in pictures:
        ours = read_whole_picture(picture, engine.geometry, engine.normalisation, engine.predict)
        served = read_whole_picture(picture, engine.geometry, engine.normalisation, exported)
        equal += int((ours.mask == served.mask).sum())
        pixels += ours.mask.size
        read += 1
        largest = max(largest, float(np.abs(ours.confidence - served.confidence).max()))
    share = equal / pixels
    print(f"the exported graph agrees on {share:.4%} of {pixels} pixels")
    if share < EQUAL:
        raise Broken(
            f"The exported model gives another class than the trained one for {1 - share:.2%} of the pixels, so it was not published.",
            "The weights are kept in best/. Please report this with the network and its settings.",
        )
    return Parity(pictures=read, equal_pixels=share, largest_difference=largest)


def _onnx_predict(graph: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["scores"], {"picture": batch})[0]


def _configuration(job: Job, classes: list[str]) -> dict[str, object]:
    """configuration.json: the keys that clients of the GluonCV training GUI read."""
    settings = job.hyperparameters
    return {
        "inference_engine_name": "gluonsegmentation" if job.engine == "gluon" else "maskwright",
        "type": "semantic",
        "network": job.network,
        "backbone": job.backbone,
        "num_classes": len(classes),
        "classes_names": classes,
        "checkpoint_name": job.name,
        "batch_size": settings.batch_size,
        "epochs": settings.epochs,
        "lr": settings.learning_rate,
        "momentum": settings.momentum,
        "num_workers": settings.workers,
        "weight_decay": settings.weight_decay,
    }


def _card(model: Model, job: Job) -> str:
    """The model card: what it is, how good, and what it was made from."""
    rows = "\n".join(f"| {name} | {'n/a' if iou is None else f'{iou:.3f}'} |" for name, iou in model.scores.iou_per_class.items())
    mean_iou = "n/a" if model.scores.mean_iou is None else f"{model.scores.mean_iou:.3f}"
    accuracy = "n/a" if model.scores.pixel_accuracy is None else f"{model.scores.pixel_accuracy:.4f}"
    return f"""# {model.name}

{model.network} on {model.backbone}, trained by the engine {model.engine} on the dataset “{model.dataset}”
({model.train_pictures} pictures taught, {model.validation_pictures} scored), {model.created:%Y-%m-%d}. Starting weights: {model.weights}
{f"“{model.weights_from}” " if model.weights_from else ""}(licence: {model.weights_licence}).

Scored on whole validation pictures at their own size, read as they are served: mIoU {mean_iou}, pixel accuracy {accuracy}.

| class | IoU |
|---|---|
{rows}

The exported graph was compared with the trained network on {model.parity.pictures} pictures: {model.parity.equal_pixels:.3%} of the
pixels have the same class.
{_precisions(model)}
To predict: resize a picture so that its shorter side is {model.geometry.short_side} pixels (never enlarge), scale its pixels to 0…1,
subtract the mean {model.mean} and divide by the deviation {model.deviation}, pad to a multiple of {model.geometry.multiple_of};
`model.onnx` turns `picture` (n, 3, height, width) into `scores` (n, classes, height, width) before the softmax. Settings of the
training: `{json.dumps(job.hyperparameters.model_dump())}`.
"""


def _precisions(model: Model) -> str:
    """What each kind of numbers costs, as a table; nothing where there is nothing to compare."""
    if not model.comparisons:
        return ""
    rows = "\n".join(f"| {row.precision} | {row.note or _costs(row)} |" for row in model.comparisons)
    return f"""
Served in narrower numbers, on the same validation pictures, against ONNX Runtime in float32:

| numbers | mIoU, equal pixels, time of a picture on the machine of the training |
|---|---|
{rows}

What loses more than half a point of mIoU is served only to those who ask for it (PRECISION).
"""


def _costs(row: Comparison) -> str:
    score = "n/a" if row.mean_iou is None else f"{row.mean_iou:.3f}"
    return f"{score}, {row.equal_pixels:.3%}, {1000 * (row.seconds or 0):.0f} ms ({row.runtime}, {row.pictures} pictures)"


def _example(folder: Path, engine: Engine, pair: Pair, classes: list[str]) -> None:
    """example.jpg: a validation picture as the model sees it, for the list of models."""
    picture = read_picture(pair.picture)
    mask = read_whole_picture(picture, engine.geometry, engine.normalisation, engine.predict).mask
    seen = overlay(picture, mask, class_colours(len(classes)))
    small = Image.fromarray(resize_picture(seen, working_size(seen.shape, short_side=CELL)))
    small.thumbnail((TALLEST, TALLEST))
    small.save(folder / "example.jpg", quality=85)
