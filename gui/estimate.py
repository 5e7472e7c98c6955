"""How long a training will take on a CPU: a guess to choose by, made of the catalogue's measured step time."""

from contracts.hyperparameters import Hyperparameters
from contracts.networks import Network

MEASURED_SIDE = 256
ONLY_FORWARD = 1 / 3
"""Share of a training step that scoring the same pixels takes."""
ASPECT = 4 / 3


def training_seconds(network: Network, settings: Hyperparameters, training: int, validation: int) -> float:
    """Seconds for a training with this many pictures on each side of the split, on two AVX2 cores."""
    per_pixel = network.seconds / MEASURED_SIDE**2
    learning = training * settings.crops_per_picture * settings.crop**2 * per_pixel
    scoring = validation * settings.short_side**2 * ASPECT * per_pixel * ONLY_FORWARD
    return settings.epochs * (learning + scoring / settings.validate_every)
