"""How the learning rate, the momentum and the running average of the weights go over a training; steps are counted from 0."""

import math

from contracts.hyperparameters import Hyperparameters

LAST = {"cosine": 0.01, "one_cycle": 1e-4}
"""Share of the full learning rate at the end."""


def learning_rate(settings: Hyperparameters, step: int, steps: int) -> float:
    """The rate of a step of `steps`: a linear rise over the warm-up, then a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983;
    one_cycle ends orders of magnitude lower, as Smith 2018, arXiv 1803.09820, asks) or a power of 0.9 (poly; Chen et al. 2018,
    arXiv 1606.00915)."""
    rise = settings.warm_up * steps
    if step < rise:
        return settings.learning_rate * (step + 1) / (rise + 1)
    share = (step - rise) / max(1.0, steps - rise)
    if settings.schedule == "poly":
        return settings.learning_rate * max(0.0, 1 - share) ** 0.9
    last = LAST[settings.schedule]
    return settings.learning_rate * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * share)))


def momentum(settings: Hyperparameters, step: int, steps: int) -> float:
    """How much of the last steps a step keeps. In one_cycle it swings against the learning rate, between 0.95 and 0.85 for a
    momentum of 0.9 (Smith 2018, arXiv 1803.09820); else it stays."""
    if settings.schedule != "one_cycle":
        return settings.momentum
    swing = min(settings.momentum, 1 - settings.momentum) / 2
    return settings.momentum + swing * (1 - 2 * learning_rate(settings, step, steps) / settings.learning_rate)


def average_decay(settings: Hyperparameters, step: int) -> float:
    """How much of the running average is kept at a step: little at first, when the weights still travel far."""
    return min(settings.average, (1 + step) / (10 + step))
