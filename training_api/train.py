"""Read this first: one training, from job.json to a published model, whatever the engine.

check the dataset → split → epochs (learn, score whole pictures, show, save) → publish

Everything a reader learns of it goes through the job folder (contracts/job_folder.py).
"""

import time
from collections.abc import Iterator

import numpy as np

from annotations.dataset import Dataset, Pair, open_dataset, read_mask, read_picture
from annotations.doctor.check import Report, check_dataset
from annotations.split import Split
from annotations.whole_picture import read_whole_picture
from contracts.errors import Invalid
from contracts.events import EndedEarly, EpochDone, Finished, Preview, Stage, Started, Stopped, TestScored, Warned, boot_id
from contracts.job import Confusion, Counts, EpochScores, Job
from contracts.job_folder import JobFolder, write_aside
from contracts.networks import find_network
from contracts.room import needed, refuse_full, taken
from training_api.checkpoints import Checkpoints, Reached
from training_api.data import Crops
from training_api.engines import FROM_SCRATCH, Engine, Plan, Start, Step, create_engine
from training_api.figures import CALMER, Events, FiguresFile, StepLog, epoch_sentence
from training_api.group import ALONE, Group, share_out
from training_api.metrics import ConfusionMatrix
from training_api.previews import ROWS, PreviewSheet
from training_api.publish import publish
from training_api.trackers import open_trackers
from training_api.weights import Halted, prepare_start

ALOUD = 30.0
"""Seconds after which a long reading of pictures says how far it is: a job that says nothing for long is taken to hang."""


def train(folder: JobFolder, events: Events, group: Group = ALONE) -> None:
    """Run the job of a folder to its end. Raises contracts.errors.Problem with the cause and the cure where it cannot.

    Every process of a group runs this; only the first one writes into the folder, and publishes.
    """
    job = folder.job()
    if group.first:
        folder.keep_ballast()
    _say(events, "starting", "checking the dataset")
    with group.in_turn():
        report = check_dataset(job.dataset_folder)
    report.refuse_errors()
    for sentence in report.sentences():
        events.say(Warned(message=sentence))
    try:
        training = _kind(job)(folder, job, report, events, group)
    except Halted:
        events.say(Stopped())
        print("stopped before the training began")
        return
    published = False
    try:
        published = training.learn() and _publish(folder, training)
    finally:
        training.figures.close(published)
    if published:
        events.say(Finished())
        print("finished: the model is published")
    elif training.stopped:
        events.say(Stopped())
        print("stopped, without a model")


def _kind(job: Job) -> "type[Training]":
    """The training that goes through this loop; a run of a Waggle folder differs in its batches, its step and its results."""
    if job.waggle is None:
        return Training
    from training_api.waggle.training import WaggleTraining  # needs PyTorch

    return WaggleTraining


def _publish(folder: JobFolder, training: "Training") -> bool:
    """Score the test pictures and publish the best weights; only the first process of a group does, and says True."""
    training.score_test()
    training.group.leave()
    if not training.group.first:
        return False
    learnt = _pick(training.dataset, training.split.training)
    classes, stage = training.dataset.classes, lambda words: _say(training.events, "publishing", words)
    publish(folder, training.job, training.engine, classes, learnt, training.validation, stage)
    return True


class Training:
    """The state of one training: its engine, its split, and how far it is."""

    calmer = CALMER

    def __init__(self, folder: JobFolder, job: Job, report: Report, events: Events, group: Group = ALONE) -> None:
        self.folder, self.job, self.events, self.group = folder, job, events, group
        self.dataset = open_dataset(job.dataset_folder)
        self.checkpoints = Checkpoints(folder, self._warn)
        with group.in_turn():
            if group.first:
                self.checkpoints.settle()
            self.split = _write_split(folder, job, report)
            self._refuse_changed()
            start = FROM_SCRATCH if self._goes_on() else self._start()
        self.validation = _pick(self.dataset, self.split.validation)
        self.figures = FiguresFile(folder, self.dataset.classes, writes=group.first)
        self.epochs = job.hyperparameters.epochs
        _say(events, "starting", "building the network")
        pixels = max(1, sum(report.class_pixels))
        network = find_network(job.engine, job.network, job.backbone)
        if group.first:
            refuse_full(folder.path, needed(network, job.hyperparameters) - taken(folder.path))
        plan = Plan(
            network=network,
            settings=job.hyperparameters,
            classes=len(self.dataset.classes),
            class_shares=[count / pixels for count in report.class_pixels],
            crops=self._crops(_pick(self.dataset, self.split.training), network.multiple_of),
            gpus=job.gpus,
            seed=job.seed,
            group=group,
            start=start,
        )
        self.engine = self._engine(plan)
        self.steps = plan.crops.steps
        self.best: EpochScores | None = None
        self.reached: Reached | None = None
        self.done = self._go_on()
        self.figures.go_on_after(self.done, self.reached.scores if self.reached else None)
        if group.first:
            self.figures.trackers = open_trackers(folder, job, self.done * self.steps, lambda message: events.say(Warned(message=message)))
            self.figures.steps = self.steps
        events.say(Started(epochs=self.epochs, device=self.engine.device, from_epoch=self.done, boot=boot_id()))
        for remark in self.engine.remarks:
            events.say(Warned(message=remark))
            print(remark)
        learning, scoring = len(self.split.training), len(self.validation)
        print(f"{job.network} on {job.backbone}, {self.engine.device}; {learning} pictures teach, {scoring} score")
        if self.reached is not None:
            self._mend(self.reached)

    def _refuse_changed(self) -> None:
        """Raises Invalid where the dataset has not all that this job began with."""
        since = "since this job began"
        there = {pair.stem for pair in self.dataset.pairs}
        gone = [stem for side in self.split.sides().values() for stem in side if stem not in there]
        if gone:
            all_gone = f"{gone[0]} is" if len(gone) == 1 else f"{gone[0]} and {len(gone) - 1} more are"
            cure = f"Put {'it back with its mask' if len(gone) == 1 else 'them back with their masks'}, or start a new job."
            raise Invalid(f"The dataset has changed {since}: {all_gone} not there any more.", cure)
        scored = self.folder.confusion() if self._goes_on() else None
        if scored is not None and scored.classes != self.dataset.classes:
            cure = "Name them as they were, in that order, or start a new job."
            raise Invalid(f"The dataset's classes have changed {since}: they were {', '.join(scored.classes)}.", cure)

    def _start(self) -> Start:
        return prepare_start(self.folder, self.job, self.dataset.classes, self.events)

    def _crops(self, pairs: list[Pair], _multiple_of: int) -> Crops:
        return Crops(pairs, self.job.hyperparameters, self.job.seed, self.group)

    def _engine(self, plan: Plan) -> Engine:
        return create_engine(plan)

    def _heed(self, step: Step) -> None:
        """For a training that tells more of a step than the log does."""

    def learn(self) -> bool:
        """Every epoch that is left. False: somebody asked to stop, and wants no model or there is none yet."""
        self.stopped = not self._learn()
        return not self.stopped

    def _learn(self) -> bool:
        for epoch in range(self.done + 1, self.epochs + 1):
            if self._out_of_patience(epoch - 1):
                self._end_early(epoch - 1)
                return True
            _say(self.events, "training", "training")
            started = time.monotonic()
            log = StepLog(self.figures, self.events, epoch, self.epochs, self.steps, self.calmer)
            for step in self.engine.train_epoch(epoch):
                log.add(step)
                self._heed(step)
                if self._asked_to_stop():
                    return self._keep_best()
            loss, rate = log.finish()
            scores = EpochScores(epoch=epoch, loss=loss, learning_rate=rate, seconds=0)
            if epoch % self.job.hyperparameters.validate_every == 0 or epoch == self.epochs:
                scores = self._score(scores)
            scores.seconds = round(time.monotonic() - started, 2)
            self._end_epoch(scores)
            if self._asked_to_stop() and epoch < self.epochs:
                return self._keep_best()
        return True

    def _out_of_patience(self, epoch: int) -> bool:
        """Whether as many scorings as are waited for have passed since the best one, up to and with an epoch's."""
        settings = self.job.hyperparameters
        if not settings.patience or self.best is None:
            return False
        return epoch // settings.validate_every - self.best.epoch // settings.validate_every >= settings.patience

    def _end_early(self, epoch: int) -> None:
        assert self.best is not None
        patience = self.job.hyperparameters.patience
        waited = "the last scoring" if patience == 1 else f"the last {patience} scorings"
        message = f"Ended early, after epoch {epoch} of {self.epochs}: {waited} brought nothing better than epoch {self.best.epoch}."
        self.events.say(EndedEarly(epoch=epoch, message=message))
        print(message)

    def _score(self, scores: EpochScores) -> EpochScores:
        """The model against all validation pictures, whole, exactly as it would be served."""
        _say(self.events, "training", "scoring the validation pictures")
        matrix = ConfusionMatrix(len(self.dataset.classes))
        sheet = PreviewSheet(len(self.dataset.classes))
        for picture, truth, estimate in self._aloud("training", "scoring the validation pictures", self.validation):
            matrix.add(truth, estimate)
            sheet.add(picture, truth, estimate)
        matrix.counts = self.group.total(matrix.counts)
        self._fill(scores, matrix)
        scores.best = self.best is None or (scores.mean_iou or 0) > (self.best.mean_iou or 0)
        if self.group.first:
            self._show(sheet, scores.epoch)
            self._keep_counts(matrix, scores)
        last = scores.epoch == self.epochs or (not scores.best and self._out_of_patience(scores.epoch))
        if last and self.group.first and len(matrix.predicted_classes()) == 1:
            self._warn_of_one_class(self.dataset.classes[matrix.predicted_classes()[0]])
        return scores

    def _warn_of_one_class(self, only: str) -> None:
        """The last epoch answers one class everywhere; so does the model, unless an earlier epoch is better and knew more."""
        kept = self.folder.confusion()
        best = kept.best if kept else None
        if best and len(best.predicted_classes()) > 1:
            message = f"Its last epochs answered “{only}” only; the model is that of epoch {best.epoch}. Try a lower learning rate."
        else:
            message = f"The model answers “{only}” everywhere. Train longer, or look whether the masks show the other classes."
        self.events.say(Warned(message=message))

    def score_test(self) -> None:
        """The best weights against the pictures that the split keeps for the end, once; nothing where it keeps none."""
        if not self.split.test or self.best is None:
            return
        _say(self.events, "publishing", "scoring the test pictures")
        started = time.monotonic()
        self.engine.load(self.folder.best)
        matrix = ConfusionMatrix(len(self.dataset.classes))
        for _, truth, estimate in self._aloud("publishing", "scoring the test pictures", _pick(self.dataset, self.split.test)):
            matrix.add(truth, estimate)
        matrix.counts = self.group.total(matrix.counts)
        scores = self.best.model_copy(update={"seconds": round(time.monotonic() - started, 2)})
        self._fill(scores, matrix)
        self.events.say(TestScored(test_scores=scores))
        print(f"test: {len(self.split.test)} pictures, mIoU {'n/a' if scores.mean_iou is None else f'{scores.mean_iou:.3f}'}")

    def _aloud(self, state: str, stage: str, pairs: list[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Read pairs, and say now and then how far that is."""
        said = time.monotonic()
        for number, row in enumerate(self._read(pairs), start=1):
            yield row
            if time.monotonic() - said > ALOUD:
                _say(self.events, state, f"{stage}, {number * self.group.size} of {len(pairs)}")
                said = time.monotonic()

    def _read(self, pairs: list[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Picture uint8 (height, width, 3), its true classes and those that the model sees, uint8 (height, width).

        Of the pairs every process reads its share; the first ones, which are shown, fall to the first process.
        """
        for place in share_out(len(pairs), self.group, ROWS):
            pair = pairs[place]
            picture = read_picture(pair.picture)
            reading = read_whole_picture(picture, self.engine.geometry, self.engine.normalisation, self.engine.predict)
            if np.isnan(reading.confidence.max()):  # the last step may be the one too far: no loss tells of it any more
                raise Invalid(f"The network's scores of {pair.stem} are no numbers any more: the training has run away.", self.calmer)
            yield picture, read_mask(pair.mask), reading.mask

    def _fill(self, scores: EpochScores, matrix: ConfusionMatrix) -> None:
        scores.mean_iou, scores.pixel_accuracy = matrix.mean_iou(), matrix.pixel_accuracy()
        scores.iou_per_class = dict(zip(self.dataset.classes, matrix.iou(), strict=True))

    def _show(self, sheet: PreviewSheet, epoch: int) -> None:
        self.folder.previews.mkdir(exist_ok=True)
        name = f"epoch-{epoch:04d}.jpg"
        sheet.save(self.folder.previews / name)
        sheet.save_layers(self.folder.previews, name.removesuffix(".jpg"))
        for tracker in self.figures.trackers:
            tracker.preview(epoch * self.steps, self.folder.previews / name)
        self.events.say(Preview(epoch=epoch, file=name, pictures=[pair.stem for pair in self.validation[: len(sheet.layers)]]))

    def _keep_counts(self, matrix: ConfusionMatrix, scores: EpochScores) -> None:
        """Into confusion.json: of the best epoch and of the latest one only, because many classes squared are many numbers."""
        latest = Counts(epoch=scores.epoch, counts=matrix.counts.tolist())
        former = self.folder.confusion()
        best = latest if scores.best else former.best if former else None
        kept = Confusion(classes=self.dataset.classes, best=best, latest=latest)
        write_aside(self.folder.confusion_file, kept.model_dump_json())

    def _end_epoch(self, scores: EpochScores) -> None:
        if scores.best:
            self.best = scores
        if self.group.first:
            self.checkpoints.save(self.engine.save, Reached(epoch=scores.epoch, best=self.best, scores=scores))
        self.figures.epoch(scores)
        event = EpochDone(scores=scores)
        self.events.say(event)
        print(epoch_sentence(event, self.epochs))

    def _goes_on(self) -> bool:
        return self.checkpoints.newest() is not None

    def _go_on(self) -> int:
        """The epoch after which a training that was broken off goes on; 0 for a new one."""
        place = self.checkpoints.newest()
        if place is None:
            return 0
        self.reached = self.checkpoints.reached(place)
        self.engine.load(place)
        self.best = self.reached.best
        print(f"going on after epoch {self.reached.epoch}")
        return self.reached.epoch

    def _mend(self, reached: Reached) -> None:
        """Tell of an epoch that was saved and not told of any more; where best/ is damaged, what is scored now is the best."""
        told = self.folder.status().history
        if reached.scores is not None and (not told or told[-1].epoch < reached.epoch):
            self.events.say(EpochDone(scores=reached.scores))
        if reached.best is not None and self.group.first_says(not self.checkpoints.has_best()):
            former = reached.scores or EpochScores(epoch=reached.epoch, loss=0.0, learning_rate=0.0, seconds=0)
            self.best = None
            self._end_epoch(self._score(former))

    def _warn(self, message: str) -> None:
        self.events.say(Warned(message=message))
        print(message)

    def _asked_to_stop(self) -> bool:
        """Whether somebody did; one process looks, so that all stop after the same step."""
        return bool(self.group.first_says(self.folder.asked_to_stop() is not None))

    def _keep_best(self) -> bool:
        wish = self.folder.asked_to_stop() or {}
        return bool(self.group.first_says(bool(wish.get("keep_best")) and self.best is not None))


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
