"""How long a training will take on a CPU: a guess to choose by, made of the catalogue's measured step time."""

from contracts.hyperparameters import Hyperparameters
from contracts.networks import Network
from gui.answers import Machine

MEASURED_SIDE = 256
MEASURED_CORES = 2
ONLY_FORWARD = 1 / 3
"""Share of a training step that scoring the same pixels takes."""
ASPECT = 4 / 3
MORE_CORES = 0.8
"""Twice the cores are two to this power as fast: a network does not fill all of them all the time."""
BFLOAT16 = 0.5
"""Of the time that a step takes where pytorch can multiply in bfloat16 on the CPU."""


def step_seconds(network: Network, machine: Machine) -> float:
    """Seconds of one training step on one crop of 256 × 256 pixels on this machine's processor, about."""
    cores = (MEASURED_CORES / max(1, machine.cores)) ** MORE_CORES
    return network.seconds * cores * (BFLOAT16 if machine.bfloat16 and network.engine == "pytorch" else 1)


def training_seconds(network: Network, machine: Machine, settings: Hyperparameters, training: int, validation: int) -> float:
    """Seconds for a training with this many pictures on each side of the split, on this machine's processor, about."""
    per_pixel = step_seconds(network, machine) / MEASURED_SIDE**2
    learning = training * settings.crops_per_picture * settings.crop**2 * per_pixel
    scoring = validation * settings.short_side**2 * ASPECT * per_pixel * ONLY_FORWARD
    return settings.epochs * (learning + scoring / settings.validate_every)
