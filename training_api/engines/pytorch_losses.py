"""What the pytorch engine minimises. Scores are before the softmax; pixels whose class nobody knows never count."""

from torch import Tensor
from torch.nn import functional

from annotations.dataset import IGNORE


def dice_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """One minus the soft Dice of each class present in the batch, mean over those (Milletari et al. 2016, arXiv 1606.04797).

    scores (n, classes, h, w) before the softmax, masks (n, h, w) of class ids, IGNORE pixels left out.
    """
    known = (masks != IGNORE).unsqueeze(1)
    truth = functional.one_hot(masks.where(masks != IGNORE, 0), scores.shape[1]).permute(0, 3, 1, 2) * known
    probabilities = scores.softmax(1) * known
    overlap = (probabilities * truth).sum((0, 2, 3))
    size = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return 1 - ((2 * overlap + 1) / (size + 1))[present].mean() if present.any() else scores.sum() * 0
