"""The confusion matrix, and every score that follows from it. One for all engines, so that scores compare."""

import numpy as np

from annotations.dataset import IGNORE


class ConfusionMatrix:
    """Pixels counted by true class (row) and predicted class (column) over whole pictures; ignored pixels never count."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one picture: two uint8 (height, width) of class ids."""
        known = truth != IGNORE
        cells = truth[known].astype(np.int64) * self.classes + prediction[known]
        self.counts += np.bincount(cells, minlength=self.classes**2).reshape(self.classes, self.classes)

    def iou(self) -> list[float | None]:
        """Intersection over union per class; None for a class of which there is no true pixel: nothing can be said."""
        hits = np.diag(self.counts)
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        return [float(hit / (t + p - hit)) if t else None for hit, t, p in zip(hits, true, predicted, strict=True)]

    def mean_iou(self) -> float | None:
        """The mean over the classes that have true pixels; None where no pixel counted."""
        known = [value for value in self.iou() if value is not None]
        return sum(known) / len(known) if known else None

    def pixel_accuracy(self) -> float | None:
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else None

    def predicted_classes(self) -> list[int]:
        """The classes that were predicted anywhere."""
        return [int(index) for index in np.flatnonzero(self.counts.sum(axis=0))]
