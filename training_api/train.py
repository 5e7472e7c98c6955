"""Read this first: one training, from job.json to a published model, whatever the engine.

check the dataset → split → epochs (learn, score whole pictures, show, save) → publish

Everything a reader learns of it goes through the job folder (contracts/job_folder.py).
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from annotations.dataset import Dataset, Pair, open_dataset, read_mask, read_picture
from annotations.doctor.check import Report, check_dataset
from annotations.split import Split
from annotations.whole_picture import read_whole_picture
from contracts.events import EpochDone, Finished, Preview, Stage, Started, Stopped, TestScored, Warned
from contracts.job import EpochScores, Job
from contracts.job_folder import JobFolder, folder_aside, write_aside
from contracts.networks import find_network
from training_api.data import Crops
from training_api.engines import Engine, Plan, create_engine
from training_api.figures import Events, FiguresFile, StepLog, epoch_sentence
from training_api.metrics import ConfusionMatrix
from training_api.previews import PreviewSheet
from training_api.publish import publish

PROGRESS = "progress.json"


def train(folder: JobFolder, events: Events) -> None:
    """Run the job of a folder to its end. Raises contracts.errors.Problem with the cause and the cure where it cannot."""
    job = folder.job()
    _say(events, "starting", "checking the dataset")
    report = check_dataset(job.dataset_folder)
    report.refuse_errors()
    for sentence in report.sentences():
        events.say(Warned(message=sentence))
    training = Training(folder, job, report, events)
    if not training.learn():
        events.say(Stopped())
        print("stopped, without a model")
        return
    training.score_test()
    _say(events, "publishing", "publishing the model")
    publish(folder, job, training.engine, training.dataset.classes, training.validation, len(training.split.training))
    events.say(Finished())
    print("finished: the model is published")


class Training:
    """The state of one training: its engine, its split, and how far it is."""

    def __init__(self, folder: JobFolder, job: Job, report: Report, events: Events) -> None:
        self.folder, self.job, self.events = folder, job, events
        self.dataset = open_dataset(job.dataset_folder)
        self.split = _write_split(folder, job, report)
        self.validation = _pick(self.dataset, self.split.validation)
        self.figures = FiguresFile(folder, self.dataset.classes)
        self.epochs = job.hyperparameters.epochs
        _say(events, "starting", "building the network")
        pixels = max(1, sum(report.class_pixels))
        plan = Plan(
            network=find_network(job.engine, job.network, job.backbone),
            settings=job.hyperparameters,
            classes=len(self.dataset.classes),
            class_shares=[count / pixels for count in report.class_pixels],
            crops=Crops(_pick(self.dataset, self.split.training), job.hyperparameters, job.seed),
            gpus=job.gpus,
            seed=job.seed,
        )
        self.engine: Engine = create_engine(plan)
        self.steps = plan.crops.steps
        self.best: EpochScores | None = None
        self.done = self._go_on()
        events.say(Started(epochs=self.epochs, device=self.engine.device, from_epoch=self.done))
        learning, scoring = len(self.split.training), len(self.validation)
        print(f"{job.network} on {job.backbone}, {self.engine.device}; {learning} pictures teach, {scoring} score")

    def learn(self) -> bool:
        """Every epoch that is left. False: somebody asked to stop, and wants no model or there is none yet."""
        for epoch in range(self.done + 1, self.epochs + 1):
            _say(self.events, "training", "training")
            started = time.monotonic()
            log = StepLog(self.figures, self.events, epoch, self.epochs, self.steps)
            for step in self.engine.train_epoch(epoch):
                log.add(step)
                if self.folder.asked_to_stop():
                    return self._keep_best()
            loss, rate = log.finish()
            scores = EpochScores(epoch=epoch, loss=loss, learning_rate=rate, seconds=0)
            if epoch % self.job.hyperparameters.validate_every == 0 or epoch == self.epochs:
                scores = self._score(scores)
            scores.seconds = round(time.monotonic() - started, 2)
            self._end_epoch(scores)
            if self.folder.asked_to_stop() and epoch < self.epochs:
                return self._keep_best()
        return True

    def _score(self, scores: EpochScores) -> EpochScores:
        """The model against all validation pictures, whole, exactly as it would be served."""
        _say(self.events, "training", "scoring the validation pictures")
        matrix = ConfusionMatrix(len(self.dataset.classes))
        sheet = PreviewSheet(len(self.dataset.classes))
        for picture, truth, estimate in self._read(self.validation):
            matrix.add(truth, estimate)
            sheet.add(picture, truth, estimate)
        self._show(sheet, scores.epoch)
        self._fill(scores, matrix)
        scores.best = self.best is None or (scores.mean_iou or 0) > (self.best.mean_iou or 0)
        if scores.epoch == self.epochs and len(matrix.predicted_classes()) == 1:
            only = self.dataset.classes[matrix.predicted_classes()[0]]
            self.events.say(
                Warned(message=f"The model answers “{only}” everywhere. Train longer, or look whether the masks show the other classes.")
            )
        return scores

    def score_test(self) -> None:
        """The best weights against the pictures that the split keeps for the end, once; nothing where it keeps none."""
        if not self.split.test or self.best is None:
            return
        _say(self.events, "publishing", "scoring the test pictures")
        started = time.monotonic()
        self.engine.load(self.folder.best)
        matrix = ConfusionMatrix(len(self.dataset.classes))
        for _, truth, estimate in self._read(_pick(self.dataset, self.split.test)):
            matrix.add(truth, estimate)
        scores = self.best.model_copy(update={"seconds": round(time.monotonic() - started, 2)})
        self._fill(scores, matrix)
        self.events.say(TestScored(test_scores=scores))
        print(f"test: {len(self.split.test)} pictures, mIoU {'n/a' if scores.mean_iou is None else f'{scores.mean_iou:.3f}'}")

    def _read(self, pairs: list[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Picture uint8 (height, width, 3), its true classes and those that the model sees, uint8 (height, width)."""
        for pair in pairs:
            picture = read_picture(pair.picture)
            reading = read_whole_picture(picture, self.engine.geometry, self.engine.normalisation, self.engine.predict)
            yield picture, read_mask(pair.mask), reading.mask

    def _fill(self, scores: EpochScores, matrix: ConfusionMatrix) -> None:
        scores.mean_iou, scores.pixel_accuracy = matrix.mean_iou(), matrix.pixel_accuracy()
        scores.iou_per_class = dict(zip(self.dataset.classes, matrix.iou(), strict=True))

    def _show(self, sheet: PreviewSheet, epoch: int) -> None:
        self.folder.previews.mkdir(exist_ok=True)
        name = f"epoch-{epoch:04d}.jpg"
        sheet.save(self.folder.previews / name)
        self.events.say(Preview(epoch=epoch, file=name))

    def _end_epoch(self, scores: EpochScores) -> None:
        if scores.best:
            self.best = scores
            self._save(self.folder.best, scores.epoch)
        self._save(self.folder.last, scores.epoch)
        self.figures.epoch(scores)
        event = EpochDone(scores=scores)
        self.events.say(event)
        print(epoch_sentence(event, self.epochs))

    def _save(self, path: Path, epoch: int) -> None:
        with folder_aside(path) as aside:
            self.engine.save(aside)
            best = None if self.best is None else json.loads(self.best.model_dump_json())
            write_aside(aside / PROGRESS, json.dumps({"epoch": epoch, "best": best}))

    def _go_on(self) -> int:
        """The epoch after which a training that was broken off goes on; 0 for a new one."""
        if not (self.folder.last / PROGRESS).exists():
            return 0
        progress = json.loads((self.folder.last / PROGRESS).read_bytes())
        self.engine.load(self.folder.last)
        self.best = None if progress["best"] is None else EpochScores.model_validate(progress["best"])
        print(f"going on after epoch {progress['epoch']}")
        return int(progress["epoch"])

    def _keep_best(self) -> bool:
        wish = self.folder.asked_to_stop() or {}
        return bool(wish.get("keep_best")) and self.best is not None


def _write_split(folder: JobFolder, job: Job, report: Report) -> Split:
    """The split of the job, drawn once and written down."""
    if folder.split_file.exists():
        return Split.model_validate_json(folder.split_file.read_bytes())
    split = report.split_for(job.validation_share, job.seed)
    write_aside(folder.split_file, split.model_dump_json(indent=1))
    return split


def _pick(dataset: Dataset, stems: list[str]) -> list[Pair]:
    pairs = {pair.stem: pair for pair in dataset.pairs}
    return [pairs[stem] for stem in stems]


def _say(events: Events, state: str, stage: str) -> None:
    events.say(Stage.model_validate({"state": state, "stage": stage}))
