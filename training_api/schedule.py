"""How the learning rate and the running average of the weights go over a training; steps are counted from 0."""

import math

from contracts.hyperparameters import Hyperparameters

LAST = 0.01
"""Share of the full learning rate at the end of one cycle."""


def learning_rate(settings: Hyperparameters, step: int, steps: int) -> float:
    """The rate of a step of `steps`: a linear rise over the warm-up, then a cosine (one_cycle; Loshchilov & Hutter 2017,
    arXiv 1608.03983) or a power of 0.9 (poly; Chen et al. 2018, arXiv 1606.00915)."""
    rise = settings.warm_up * steps
    if step < rise:
        return settings.learning_rate * (step + 1) / (rise + 1)
    share = (step - rise) / max(1.0, steps - rise)
    if settings.schedule == "poly":
        return settings.learning_rate * max(0.0, 1 - share) ** 0.9
    return settings.learning_rate * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * share)))


def average_decay(settings: Hyperparameters, step: int) -> float:
    """How much of the running average is kept at a step: little at first, when the weights still travel far."""
    return min(settings.average, (1 + step) / (10 + step))
