"""The engine that learns nothing: it counts classes and always answers the commonest. No framework, honest scores."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from annotations.whole_picture import IMAGENET
from contracts.model import Geometry
from training_api.engines import Plan, Step

STATE = "majority.json"


class MajorityEngine:
    device = "CPU"
    normalisation = IMAGENET

    def __init__(self, plan: Plan) -> None:
        self.geometry = Geometry(short_side=plan.settings.short_side, multiple_of=1)
        self.crops = plan.crops
        self.remarks: list[str] = []
        self.counts: np.ndarray = np.zeros(plan.classes, np.int64)

    def train_epoch(self, epoch: int) -> Iterator[Step]:
        for batch in self.crops.epoch(epoch):
            self.counts += np.bincount(batch.masks.ravel(), minlength=256)[: len(self.counts)]
            wrong = 1 - self.counts.max() / max(1, self.counts.sum())
            yield Step(loss=float(wrong), crops=len(batch.masks), learning_rate=0.0)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        shares = np.log((self.counts + 1) / (self.counts + 1).sum())
        scores = np.empty((len(batch), len(self.counts), *batch.shape[2:]), np.float32)
        scores[:] = shares[:, None, None]
        return scores

    def save(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps({"pixels_per_class": self.counts.tolist()}))

    def load(self, folder: Path) -> None:
        self.counts = np.array(json.loads((folder / STATE).read_bytes())["pixels_per_class"], np.int64)

    def export(self, folder: Path) -> None:
        self.save(folder)


def create(plan: Plan) -> MajorityEngine:
    return MajorityEngine(plan)
