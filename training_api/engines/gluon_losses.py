"""What the gluon engine minimises: sums over each device's share of a batch first, quotients of all devices' sums last."""

import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from mxnet import gluon


class SegmentationLoss:
    """Cross-entropy over the known pixels, plus `dice` times one minus the soft Dice of each class present in the batch, mean
    over those (Milletari et al. 2016, arXiv 1606.04797).

    A list of scores (n, classes, h, w) before the softmax and one of masks float32 (n, h, w) of class ids, one of each a device →
    (1,) on the first of them: what the whole batch on one device would cost. A mask value that is no class, such as IGNORE, has no
    part in any sum. `weights`: of each class in the cross-entropy.
    """

    def __init__(self, weights: np.ndarray, dice: float, places: list[Any]) -> None:
        self.sums, self.quotients = _Sums(weights, bool(dice)), _Quotients(len(weights), dice)
        self.sums.initialize(ctx=places)
        for block in (self.sums, self.quotients):
            block.hybridize(static_alloc=True)

    def __call__(self, scores: list[Any], masks: list[Any]) -> Any:
        total, *others = (self.sums(*share) for share in zip(scores, masks, strict=True))
        for sums in others:
            total = total + sums.as_in_context(total.context)
        return self.quotients(total)


class _Sums(gluon.HybridBlock):  # type: ignore[misc]  # MXNet has no types
    """Scores and masks → (2,), or (2 + 3 · classes,) with Dice: cross-entropy and weight of the known pixels; overlap, truth and
    both together of each class."""

    def __init__(self, weights: np.ndarray, dice: bool) -> None:
        super().__init__()
        self.dice = dice
        with self.name_scope():
            self.ids = self.params.get_constant("ids", np.arange(len(weights), dtype=np.float32).reshape(1, -1, 1, 1))
            self.weights = self.params.get_constant("weights", weights.astype(np.float32).reshape(1, -1, 1, 1))

    def hybrid_forward(self, F: Any, scores: Any, masks: Any, ids: Any, weights: Any) -> Any:
        truth = F.broadcast_equal(F.expand_dims(masks, axis=1), ids)
        weighted = F.broadcast_mul(truth, weights)
        logarithms = F.log_softmax(scores, axis=1)
        entropy = -F.sum(weighted * logarithms), F.sum(weighted)
        return F.concat(*entropy, *(self._overlaps(F, F.exp(logarithms), truth) if self.dice else ()), dim=0)

    @staticmethod
    def _overlaps(F: Any, probabilities: Any, truth: Any) -> tuple[Any, Any, Any]:
        probabilities = F.broadcast_mul(probabilities, F.sum(truth, axis=1, keepdims=True))
        overlap = F.sum(probabilities * truth, axis=(0, 2, 3))
        pixels = F.sum(truth, axis=(0, 2, 3))
        return overlap, pixels, F.sum(probabilities, axis=(0, 2, 3)) + pixels


class _Quotients(gluon.HybridBlock):  # type: ignore[misc]
    """The sums of a whole batch → its loss (1,)."""

    def __init__(self, classes: int, dice: float) -> None:
        super().__init__()
        self.classes, self.dice = classes, dice

    def hybrid_forward(self, F: Any, sums: Any) -> Any:
        def part(start: int, length: int = 1) -> Any:
            return F.slice_axis(sums, axis=0, begin=start, end=start + length)

        entropy = part(0) / F.maximum(part(1), 1e-6)
        if not self.dice:
            return entropy
        overlap, pixels, both = (part(2 + place * self.classes, self.classes) for place in range(3))
        present = pixels > 0
        return entropy + self.dice * F.sum(present * (1 - (2 * overlap + 1) / (both + 1))) / F.maximum(F.sum(present), 1)
