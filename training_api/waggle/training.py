"""The product's loop for a Waggle run: other batches, another step, the plugin's results beside the job's own."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from annotations.colours import voc_palette
from annotations.dataset import IGNORE, Pair
from contracts.errors import Invalid
from contracts.events import Warned
from contracts.job import EpochScores
from contracts.job_folder import write_aside
from contracts.waggle import WaggleConfig, WaggleRun
from training_api.data import Crops
from training_api.engines import FROM_SCRATCH, Engine, Plan, Start, Step
from training_api.figures import sound_loss
from training_api.metrics import ConfusionMatrix
from training_api.train import Training
from training_api.waggle.checkpoint import BEST, FILE, read_checkpoint
from training_api.waggle.engine import WaggleEngine, WaggleStep
from training_api.waggle.pictures import WholePictures
from training_api.waggle.results import Results
from training_api.waggle.tiles import Tile
from training_api.weights import Roots


class WaggleTraining(Training):
    """Between two validations lies what the product calls an epoch."""

    calmer = "Choose a smaller lr in config.list. The loss is a sum over all pixels, so a picture of a megapixel needs about 1e-9."
    results: Results | None = None

    @property
    def run(self) -> WaggleRun:
        assert self.job.waggle is not None
        return self.job.waggle

    @property
    def config(self) -> WaggleConfig:
        return self.run.config

    @property
    def waggle(self) -> WaggleEngine:
        assert isinstance(self.engine, WaggleEngine)
        return self.engine

    def _start(self) -> Start:
        """Nothing yet: the engine takes the plugin's checkpoints in by itself."""
        return FROM_SCRATCH

    def _took(self, file: Path) -> None:
        """Write down where the weights came from, for the model card."""
        name = str(file.relative_to(self.run.folder))
        roots = Roots(name=name, licence=f"that of {name}, which does not say", file=file.name)
        write_aside(self.folder.weights_file, roots.model_dump_json(indent=1))

    def _crops(self, pairs: list[Pair], multiple_of: int) -> Crops:
        return WholePictures(pairs, self.config, self.job.seed, multiple_of)

    def _engine(self, plan: Plan) -> Engine:
        self.epochs = self.config.rounds
        engine = WaggleEngine(plan, self.config)
        file = self.run.pretrained
        if file is not None and self.config.mode == "train" and not self._goes_on():
            if untrained := engine.start_from(file):
                self.events.say(Warned(message=f"{file.name} has no weights for {', '.join(untrained)}: they start from random numbers."))
            self._took(file)
        return engine

    def _go_on(self) -> int:
        """After the job's own last validation; else after the one that the output folder keeps; else from the beginning."""
        done = super()._go_on()
        if self.config.mode == "test":
            self._take_checkpoint_to_test()
        elif not done and (self.run.output / FILE).exists():
            done = self._take_over()
        if self.folder.weights_file.exists():
            self.job = self.job.model_copy(update={"weights": "from_checkpoint"})
        self.results = Results(self.run, self.waggle.step, self.folder.split_file)
        return done

    def _take_over(self) -> int:
        """Go on from checkpoint.pth.tar of another job, or of the plugin. Its best model is scored first, so that this job's
        best is the best of all."""
        print(f"going on from {self.run.output.name}/{FILE}")
        best, last = self.run.output / BEST, self.run.output / FILE
        self._took(last)
        files = [last]
        if best.exists() and read_checkpoint(best).iteration != read_checkpoint(last).iteration:
            files = [best, last]
        for file in files:
            self.waggle.go_on_from(file)
            if self.waggle.step >= self.config.max_iteration:
                cure = "Raise max_iteration to go on from there, or choose another output_dir to begin anew."
                raise Invalid(f"{self.run.output.name}/{file.name} has {self.waggle.step} iterations, all that were asked for.", cure)
            epoch = self.waggle.step // self.config.interval_validate
            shutil.rmtree(self.folder.last, ignore_errors=True)  # only from the last one the job itself may go on
            self._score_as_it_is(epoch)
        return epoch

    def _score_as_it_is(self, epoch: int) -> None:
        """A scoring before which nothing was learnt: its loss is that of the validation, 0 where that is not known."""
        started = time.monotonic()
        scores = self._score(EpochScores(epoch=epoch, loss=0.0, learning_rate=self.config.lr, seconds=0))
        scores.loss, scores.seconds = self._validation_loss() or 0.0, round(time.monotonic() - started, 2)
        self._end_epoch(scores)

    def _take_checkpoint_to_test(self) -> None:
        known = (self.run.pretrained, self.run.output / BEST, self.run.output / FILE)
        file = next((file for file in known if file is not None and file.exists()), None)
        if file is None:
            cure = "Name one in pretrained_net, or train with this output_dir first."
            raise Invalid(f"There is no checkpoint to test: {self.run.output.name} has none, and pretrained_net names none.", cure)
        self.waggle.go_on_from(file)
        self._took(file)
        print(f"testing {file.name}, iteration {self.waggle.step}")

    def _learn(self) -> bool:
        if self.config.mode == "test":
            self._score_as_it_is(epoch=1)
            return True
        went_on = super()._learn()
        if self.results:
            self.results.flush()
        return went_on

    def _heed(self, step: Step) -> None:
        assert isinstance(step, WaggleStep)
        assert self.results is not None
        self.results.step(step.iteration // self.waggle.pictures.iterations_a_pass, step)

    def _read(self, pairs: list[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """As ever, and adds each picture to the tile and to the validation loss on its way."""
        for picture, truth, estimate in super()._read(pairs):
            self.tile.add(picture, truth, estimate)
            self.losses.append(self._loss(truth))
            yield picture, truth, estimate

    def _score(self, scores: EpochScores) -> EpochScores:
        self.tile, self.losses = Tile(self._colours()), list[float | None]()
        scores = super()._score(scores)
        self.waggle.best_mean_iu = max(scores.mean_iou or 0.0, (self.best.mean_iou or 0.0) if self.best else 0.0)
        return scores

    def _fill(self, scores: EpochScores, matrix: ConfusionMatrix) -> None:
        super()._fill(scores, matrix)
        if self.results and self.losses:
            step = self.waggle.step
            turn = step // self.waggle.pictures.iterations_a_pass
            self.results.validated(turn, step, self._validation_loss(), matrix, self.tile)

    def _validation_loss(self) -> float | None:
        """The mean, over the pictures whose loss is known, of the sum over their pixels; None where there is none. Raises Invalid."""
        known = [loss for loss in self.losses if loss is not None]
        return sound_loss(sum(known) / len(known), "the validation pictures", self.calmer) if known else None

    def _end_epoch(self, scores: EpochScores) -> None:
        super()._end_epoch(scores)
        if self.results and self.config.mode == "train":
            self.results.keep(self.folder.last / FILE, scores.best)

    def score_test(self) -> None:
        """Pictures in a folder test/ are no part of what the plugin logs."""
        self.tile, self.losses = Tile(), []
        results, self.results = self.results, None
        super().score_test()
        self.results = results

    def _loss(self, truth: np.ndarray) -> float | None:
        """The cross-entropy of the picture that was read last, summed over its pixels; None of one that was shrunk, or read in tiles."""
        seen = self.waggle.seen
        height, width = truth.shape
        if seen is None or seen.shape[2] < height or seen.shape[3] < width:
            return None
        scores = seen[0, :, :height, :width].astype(np.float64)
        highest = scores.max(axis=0)
        total = np.log(np.exp(scores - highest).sum(axis=0)) + highest
        known = truth != IGNORE
        true = np.take_along_axis(scores, np.where(known, truth, 0)[None].astype(np.int64), axis=0)[0]
        return float((total - true)[known].sum())

    def _colours(self) -> np.ndarray:
        """Pascal VOC's colours, or those of class_colors.list, a line a class such as 0,128,255."""
        colours = voc_palette()
        file = self.run.folder / "class_colors.list"
        if file.is_file():
            rows = [re.findall(r"\d+", line) for line in file.read_text(errors="replace").splitlines() if line.strip()]
            if len(rows) == len(self.dataset.classes) and all(len(row) == 3 and max(map(int, row)) <= 255 for row in rows):
                colours[: len(rows)] = np.array(rows, np.uint8)
        return colours
