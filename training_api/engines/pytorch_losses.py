"""What the pytorch engine minimises. Scores are before the softmax; pixels whose class nobody knows never count.

Every loss is made of sums, and divided last: where several processes learn together, `total` makes each sum that of all
processes (pytorch_parallel.py). Nothing here asks the device for a number, so that it never has to wait.
Shapes throughout: scores (n, classes, h, w), masks (n, h, w) of class ids or IGNORE.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from annotations.dataset import IGNORE

Total = Callable[[Tensor], Tensor]


def identity(sums: Tensor) -> Tensor:
    """The total of one process."""
    return sums


def known_weight(masks: Tensor, weights: Tensor) -> Tensor:
    """The known pixels, counted by the weight of their class: what a cross-entropy is divided by."""
    known = masks != IGNORE
    return (weights[masks.where(known, 0)] * known).sum()


def cross_entropy(
    scores: Tensor,
    masks: Tensor,
    weights: Tensor,
    whole: Tensor,
    total: Total = identity,
    smoothing: float = 0.0,
    focal: float = 0.0,
) -> Tensor:
    """Cross-entropy of the known pixels, mean by the weight of their class; 0 where no pixel is known.

    `whole`: the known_weight of the batch that this is a part of, over all processes, so that the losses of its parts add up
    to the batch's. `smoothing`: share of the truth that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567). `focal`: a
    pixel counts by (1 - the probability of its class) to this power (Lin et al. 2017, arXiv 1708.02002).
    """
    classes = masks.where(masks != IGNORE, 0)
    # Weighed here by the true class. PyTorch weighs what is spread by the class that it falls to: then a rare one is taught everywhere.
    pixels = functional.cross_entropy(scores, masks, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing) * weights[classes]
    if focal:
        true = scores.softmax(1).gather(1, classes.unsqueeze(1)).squeeze(1)
        pixels = pixels * (1 - true).clamp_min(1e-6) ** focal
    return total(pixels.sum()) / whole.clamp_min(1e-6)


def dice_loss(scores: Tensor, masks: Tensor, total: Total = identity) -> Tensor:
    """One minus the soft Dice of each class present in the batch, mean over those (Milletari et al. 2016, arXiv 1606.04797)."""
    truth = _truth(masks, scores.shape[1])
    probabilities = scores.softmax(1) * (masks != IGNORE).unsqueeze(1)
    area = truth.sum((0, 2, 3), dtype=scores.dtype)
    overlap, size, area = total(torch.stack([(probabilities * truth).sum((0, 2, 3)), probabilities.sum((0, 2, 3)) + area, area]))
    present = area > 0
    return ((1 - (2 * overlap + 1) / (size + 1)) * present).sum() / present.sum().clamp_min(1)


def lovasz_loss(scores: Tensor, masks: Tensor, total: Total = identity) -> Tensor:
    """The Lovász extension of one minus the IoU of each class present in a crop, mean over those of all crops (Berman et al.
    2018, arXiv 1705.08790). By crop, not by batch: then it is a mean, which parts and processes can add up to."""
    truth = _truth(masks, scores.shape[1]).flatten(2)
    known = (masks != IGNORE).unsqueeze(1).flatten(2)
    errors = (truth.to(scores.dtype) - scores.softmax(1).flatten(2)).abs()
    order = errors.where(known, -1.0).argsort(2, descending=True)  # pixels that nobody knows come last, and cost nothing there
    positive = truth.gather(2, order).to(scores.dtype)
    area = positive.sum(2, keepdim=True)
    iou = (area - positive.cumsum(2)) / (area + (1 - positive).cumsum(2))
    steps = torch.cat([1 - iou[..., :1], iou[..., :-1] - iou[..., 1:]], 2)
    losses = ((errors * known).gather(2, order) * steps).sum(2)
    present = area.squeeze(2) > 0
    loss, count = total(torch.stack([(losses * present).sum(), present.sum(dtype=scores.dtype)]))
    return loss / count.clamp_min(1)


def _truth(masks: Tensor, classes: int) -> Tensor:
    """Whether a pixel is of a class: bool (n, classes, h, w)."""
    return masks.unsqueeze(1) == torch.arange(classes, device=masks.device).view(1, -1, 1, 1)
