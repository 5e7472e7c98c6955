"""Turns what the GluonCV training GUI trained (contracts/artefact.py) into a model folder: the work of a job that imports a model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from annotations.colours import class_colours
from annotations.whole_picture import IMAGENET, resize_picture
from contracts.artefact import CONFIGURATION, FILES, PALETTE, WEIGHTS, Artefact, read_artefact, read_palette
from contracts.errors import Invalid, Unavailable
from contracts.events import Finished, Stage, now
from contracts.job import EpochScores, Job
from contracts.job_folder import JobFolder, folder_aside
from contracts.model import Geometry, Model, Parity
from training_api.figures import Events
from training_api.publish import GRAPH, compare

COMPARED = 3
"""So many drawn pictures are read by MXNet and by the exported graph: the artefact brings none of its own."""
SIZE = (360, 480)


def convert(folder: JobFolder, events: Events) -> None:
    """Publish the artefact of a job's folder. Raises Invalid or Broken, with the cure, where it cannot be."""
    job, source = folder.job(), folder.artefact
    events.say(Stage(state="publishing", stage="reading the weights"))
    artefact = read_artefact(source)
    network = ImportedNetwork(artefact, source / WEIGHTS)
    print(f"{artefact.network} on {artefact.backbone}, {artefact.num_classes} classes: {', '.join(artefact.classes_names)}")
    with folder_aside(folder.model) as aside:
        events.say(Stage(state="publishing", stage="writing it as ONNX"))
        network.export(aside)
        events.say(Stage(state="publishing", stage="comparing it with MXNet"))
        parity = compare(aside, network, _pictures(COMPARED))
        for name in FILES:
            shutil.copyfile(source / name, aside / name)
        model = _model(job, artefact, network.geometry, parity, read_palette(source, artefact.num_classes))
        model.write(aside)
        (aside / "README.md").write_text(_card(model))
    events.say(Finished())
    print("finished: the model is published")


class ImportedNetwork:
    """A GluonCV network with the artefact's weights. Pictures come to it as the original scores them: their shorter side at the
    size of a crop, read in squares of it."""

    normalisation = IMAGENET

    def __init__(self, artefact: Artefact, weights: Path) -> None:
        try:
            import mxnet as mx

            from training_api.engines.gluon_networks import RECIPES, build_network
            from training_api.engines.gluon_weights import head_names, read_arrays
        except ImportError as error:
            raise Unavailable(f"MXNet cannot start: {error}.", "Look at the machine page for the reason.") from error
        row = artefact.row
        recipe = RECIPES[row.network, row.backbone]
        side = min(recipe.largest_tile, -(-artefact.crop_size // row.multiple_of) * row.multiple_of)
        self.geometry = Geometry(short_side=side, tile=(side, side), multiple_of=row.multiple_of)
        self.array = mx.nd.array
        self.network = build_network(recipe, artefact.num_classes, (side, side), [mx.cpu()])
        heads = head_names(self.network, recipe.make(artefact.num_classes + 1, height=side, width=side, aux=False))
        self._take(read_arrays(weights), heads, artefact)

    def _take(self, arrays: dict[str, np.ndarray], heads: set[str], artefact: Artefact) -> None:
        """Every parameter from the file, which may hold more, such as an auxiliary head's."""
        wanted = self.network._collect_params_with_prefix()
        wrong = [name for name, value in wanted.items() if name not in arrays or arrays[name].shape != value.shape]
        if wrong and heads.issuperset(wrong) and all(name in arrays for name in wrong):
            classes = arrays[wrong[0]].shape[0]
            cause = f"{WEIGHTS} is of {classes} classes, and {CONFIGURATION} says {artefact.num_classes}."
            raise Invalid(cause, f"Name all {classes} in classes_names, in the order of their ids, and set num_classes.")
        if wrong:
            cause = f"{WEIGHTS} does not fit {artefact.network} on {artefact.backbone}: {len(wrong)} of its {len(wanted)} arrays are"
            raise Invalid(
                f"{cause} missing or have another shape, such as {wrong[0]}.",
                f"See that {CONFIGURATION} names the network and the backbone that were trained.",
            )
        for name, value in wanted.items():
            value.set_data(arrays[name])

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Scores of normalised pixels float32 (n, 3, side, side)."""
        scores: np.ndarray = self.network(self.array(batch))[0].asnumpy()
        return scores

    def export(self, folder: Path) -> None:
        from training_api.engines.gluon_onnx import write_onnx

        write_onnx(self.network, (1, 3, *(self.geometry.tile or (0, 0))), folder / GRAPH)


def _pictures(count: int) -> Iterator[np.ndarray]:
    """Fields of colour that drift into one another: uint8 (height, width, 3)."""
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
        yield resize_picture(coarse, SIZE)


def _model(job: Job, artefact: Artefact, geometry: Geometry, parity: Parity, palette: list[tuple[int, int, int]]) -> Model:
    return Model(
        name=job.name,
        job=job.name,
        created=now(),
        engine=job.engine,
        network=artefact.network,
        backbone=artefact.backbone,
        predictor="onnx_graph",
        classes=artefact.classes_names,
        palette=palette if len(set(palette)) == len(palette) else class_colours(artefact.num_classes),
        geometry=geometry,
        mean=IMAGENET.mean,
        deviation=IMAGENET.deviation,
        scores=EpochScores(epoch=artefact.epochs, loss=0, learning_rate=artefact.lr, seconds=0),
        parity=parity,
        dataset=job.dataset,
        weights="imported",
        weights_licence="not known: the model was brought along",
        train_pictures=0,
        validation_pictures=0,
        seconds=0,
    )


def _card(model: Model) -> str:
    return f"""# {model.name}

{model.network} on {model.backbone}, trained by the GluonCV training GUI and brought along on {model.created:%Y-%m-%d}: {WEIGHTS},
{PALETTE} and {CONFIGURATION} are its own files, as they were. What it was taught with, how good it is and under whose licence is not
known here. Classes: {", ".join(model.classes)}.

{GRAPH} was made of them, and compared with MXNet on {model.parity.pictures} drawn pictures: {model.parity.equal_pixels:.3%} of the pixels
have the same class.

To predict: resize a picture so that its shorter side is {model.geometry.short_side} pixels (never enlarge), scale its pixels to 0…1,
subtract the mean {model.mean} and divide by the deviation {model.deviation}, read it in tiles of {model.geometry.tile} pixels;
{GRAPH} turns `picture` into `scores` (1, {len(model.classes)}, height, width) before the softmax.
"""
