"""The recommended preset: a network and its settings for one dataset on one machine, each with its reason as a sentence.

Rules of thumb, not a search (docs/recommended.md). They start from the network's own defaults, which were tuned on 41
training photographs of 768 × 1024 pixels without a GPU, and move only what a dataset or a machine gives a reason to move.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from annotations.doctor.findings import Report
from contracts.answers import Machine, Recommended
from contracts.hyperparameters import Hyperparameters, heeded_by, read_hyperparameters
from contracts.networks import Network

TUNED_ON = 41
"""Training pictures that the defaults were tuned on."""
REDUCED = 3 / 8
"""Pictures are reduced to no less than this share of their size, as far as the largest working size allows."""
LARGEST = 2
"""Times the network's own short side, at most."""
GPU_CROP = 256
GPU_WORK = 4
"""Times as many crops are learnt where a GPU does it, and as many of them at once."""
MOST_EPOCHS = 100
CLOSE = 0.15
"""A number of epochs that is so close to the network's own, as a share, stays the network's own."""
VERY_RARE = 0.001
"""Share of the pixels below which a class needs more help than the defaults give it."""
USED = 0.5
"""Share of the free memory that a batch may take: other things run too, and pictures are kept in memory."""
FLOAT32, NARROW = 1.2, 0.7
"""Bytes that a process grows by for every byte that a crop keeps, with float32 and with bfloat16 or float16 (docs/recommended.md)."""
CROP_BYTES = 300e6
"""Of a crop of 256 × 256 pixels where nobody counted what the network keeps: what a large one does."""
WEIGHT_BYTES = 20
"""Bytes a parameter: itself, its gradient, two averages of AdamW's and the running average of the weights."""
MANY_PICTURES, VERY_MANY = 200, 2000
"""From so many training pictures on, a larger network and the largest of the recommended ones find enough to learn from."""
STEP = 32
"""Crops are multiples of this."""


@dataclass(frozen=True)
class Place:
    """Where a training would run. `memory`: bytes that are free there; `gpu`: its name, empty for the processor."""

    cores: int
    memory: int
    gpu: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """What the rules look at: training pictures, their median shorter side, and the rarest class with its share and pictures."""

    training: int
    side: int
    rarest: str
    share: float
    shown_by: int


def place_of(machine: Machine, gpus: Sequence[int] = ()) -> Place:
    """Where a training on these GPUs (ids; none: the processor) would run, on such a machine."""
    chosen = [gpu for gpu in machine.gpus if gpu.id in gpus]
    if not chosen:
        return Place(machine.cores, machine.memory_free)
    least = min(chosen, key=lambda gpu: gpu.memory_free)
    return Place(machine.cores, least.memory_free, least.name)


def recommend_network(report: Report, place: Place, networks: Sequence[Network], validation_share: float = 0.2) -> tuple[Network, str]:
    """Which of these networks, those that can be trained here in the catalogue's order, to take, and why. None: IndexError."""
    learning = [row for row in networks if row.engine != "majority"] or list(networks)
    first = learning[0]
    found = read_fingerprint(report, validation_share)
    if not place.gpu:
        return first, f"There is no GPU to train on, and {_count(found.training)} pictures teach: a light network learns most in the time."
    if found.training < MANY_PICTURES:
        return first, f"{_count(found.training)} pictures teach: a light network learns from few, and a GPU makes it quick."
    larger = [row for row in learning if "GPU" in row.recommended and largest_batch(row, place, GPU_CROP) >= 8]
    if not larger:
        return first, "None of the larger networks fits this GPU's free memory with eight crops at once."
    row = larger[-1 if found.training >= VERY_MANY else 0]
    return row, f"{_count(found.training)} pictures teach and the {place.gpu} has room: a larger network can use both."


def recommend(report: Report, place: Place, network: Network, validation_share: float = 0.2) -> list[Recommended]:
    """Settings to start with, each with its reason; what is not named stays the network's own. Nothing for `majority`."""
    if network.engine == "majority" or not report.pictures:
        return []
    usual = read_hyperparameters({}, network.defaults)
    found = read_fingerprint(report, validation_share)
    side, why_side = _short_side(found, place, usual)
    crop, why_crop = _crop(min(side, found.side), place, usual, network.smallest_crop)
    batch = _batch_size(network, place, usual, crop)
    visits, epochs = _visits(found, place, usual)
    why_visits, why_epochs = _why_visits(found, visits, epochs, usual)
    rows = [
        ("epochs", epochs, why_epochs),
        *batch,
        ("learning_rate", *_learning_rate(usual, batch[0][1])),
        ("short_side", side, why_side),
        ("crop", crop, why_crop),
        ("crops_per_picture", visits, why_visits),
        *_rare_classes(found, usual),
        ("turns", usual.turns, "Only you know whether your pictures have an up: switch it on where they have none, as under a microscope."),
    ]
    if place.gpu:
        workers = min(8, max(usual.workers, place.cores - 1))
        rows.append(("workers", workers, f"A GPU learns faster than two threads prepare crops; this machine has {place.cores} cores."))
    return [Recommended(setting=name, value=value, usual=getattr(usual, name), reason=reason) for name, value, reason in rows]


def read_fingerprint(report: Report, validation_share: float) -> Fingerprint:
    """What of a dataset the rules look at. A split that lies with the dataset counts as it is."""
    sizes = sorted((min(map(int, size.split(" × "))), count) for size, count in report.sizes.items())
    sides = [side for side, count in sizes for _ in range(count)] or [0]
    drawn = report.pictures - max(1, round(report.pictures * validation_share))
    training = len(report.split.training) if report.split and report.split.training else drawn
    labelled = sum(report.class_pixels) or 1
    shown = [
        (pixels / labelled, name, pictures)
        for name, pixels, pictures in zip(report.classes, report.class_pixels, report.class_pictures, strict=True)
        if pixels
    ]
    share, rarest, shown_by = min(shown, default=(1.0, "", 0))
    return Fingerprint(max(1, training), sides[len(sides) // 2], rarest, share, shown_by)


def largest_batch(network: Network, place: Place, crop: int) -> int:
    """How many crops of this side can be learnt from at once in half of the free memory, in float32."""
    return int(max(0, place.memory * USED - step_bytes(network, crop, 0)) // (step_bytes(network, crop, 1) - step_bytes(network, crop, 0)))


def step_bytes(network: Network, crop: int, crops: int, narrow: bool = False) -> float:
    """Memory that learning from so many crops of a side at once takes, about, without the pictures; `narrow`: in 16 bits."""
    kept = network.kept * 1e6 * (NARROW if narrow else FLOAT32) if network.kept else CROP_BYTES
    return network.parameters * 1e6 * WEIGHT_BYTES + crops * kept * (crop / 256) ** 2


def _short_side(found: Fingerprint, place: Place, usual: Hyperparameters) -> tuple[int, str]:
    own, they_are = usual.short_side, f"The pictures are {found.side} pixels on their shorter side"
    if found.side < own:
        return max(32, found.side), f"{they_are}, and are never enlarged: that adds no detail."
    if place.gpu and found.side >= own + STEP:
        value = min(found.side // STEP * STEP, own * LARGEST)
        return value, f"{they_are}, and a GPU has the time to look closer: small things show at {value}."
    if found.side * REDUCED > own:
        value = min(round(found.side * REDUCED / STEP) * STEP, own * LARGEST)
        return value, f"{they_are}; at {own} small things in them would be gone."
    return own, f"{they_are}: so reduced they are quick to learn from, and small things still show."


def _crop(side: int, place: Place, usual: Hyperparameters, smallest: int) -> tuple[int, str]:
    largest = max(STEP, smallest, side // STEP * STEP)
    wanted = max(usual.crop, GPU_CROP) if place.gpu else usual.crop
    if largest < wanted:
        return largest, f"A crop cannot show more than the picture, whose shorter side has {side} pixels."
    if wanted > usual.crop:
        return wanted, "A GPU learns from larger crops in the same time, and they show more of what is around things."
    return wanted, "Small crops where something is: many steps in the time that whole pictures would take for few."


def _batch_size(network: Network, place: Place, usual: Hyperparameters, crop: int) -> list[tuple[str, Any, str]]:
    """The batch that suits the free memory: larger on a GPU, in parts where it does not fit as a whole and the engine can do that."""
    fits = max(2, largest_batch(network, place, crop))
    own, where = usual.batch_size, f"the {place.memory / 1e9:.1f} GB that are free on {f'the {place.gpu}' if place.gpu else 'this machine'}"
    guess = "How much fits is a guess: where it is wrong, the batch is taken in parts instead of ending with an error."
    if fits < own and network.engine not in heeded_by("accumulate"):
        return [("batch_size", fits, f"About as many crops as fit into half of {where}.")]
    if fits < own:
        parts = f"All {own} crops at once might not fit into half of {where}; in parts they teach the same."
        keep = "What the network learns well with; to fit into memory, a batch is taken in parts."
        return [("batch_size", own, keep), ("accumulate", -(-own // fits), parts), ("fit_memory", True, guess)]
    if not place.gpu:
        return [("batch_size", own, f"What the network learns well with; it fits into {where}.")]
    value = own
    while value * 2 <= min(fits, own * GPU_WORK):
        value *= 2
    rows = [("batch_size", value, f"Keeps a GPU busy, and fits into half of {where}.")]
    return [*rows, ("fit_memory", True, guess)] if network.engine in heeded_by("fit_memory") else rows


def _learning_rate(usual: Hyperparameters, batch: int) -> tuple[float, str]:
    own = usual.learning_rate
    if batch == usual.batch_size:
        return own, "What the network learns well with at this batch size."
    ratio = batch / usual.batch_size
    value = float(f"{own * (ratio if usual.optimizer == 'sgd' else sqrt(ratio)):.2g}")
    how = "in step with" if usual.optimizer == "sgd" else "with the square root of"
    return value, f"Goes {how} the batch size: {own:g} is for {usual.batch_size} crops, this is for {batch}."


def _visits(found: Fingerprint, place: Place, usual: Hyperparameters) -> tuple[int, int]:
    """Crops per picture and epochs: so many crops in all as the network's own recipe learns from, more by the square root
    where there are more pictures, and more where a GPU learns them. Crops per picture fall before epochs do."""
    own = usual.epochs * usual.crops_per_picture * TUNED_ON
    wanted = own * max(1.0, sqrt(found.training / TUNED_ON)) * (GPU_WORK if place.gpu else 1)
    visits = max(1, min(usual.crops_per_picture, round(wanted / found.training / usual.epochs)))
    epochs = min(MOST_EPOCHS, max(2, round(wanted / found.training / visits)))
    return visits, usual.epochs if abs(epochs - usual.epochs) <= usual.epochs * CLOSE else epochs


def _why_visits(found: Fingerprint, visits: int, epochs: int, usual: Hyperparameters) -> tuple[str, str]:
    teach = f"{_count(found.training)} pictures teach"
    total = f"{_count(found.training * visits * epochs)} crops in all"
    crops = "Makes the most of every picture that is read."
    if visits < usual.crops_per_picture:
        crops = f"{teach}: with so many, other pictures teach more than the same again."
    if epochs > usual.epochs:
        return crops, f"{teach}: few, so each is visited more often, for {total}; a network needs its number of steps."
    if epochs < usual.epochs:
        return crops, f"{teach}: so many that fewer rounds are enough, {total}."
    return crops, f"{teach}: for {total}, about what so many pictures need."


def _rare_classes(found: Fingerprint, usual: Hyperparameters) -> list[tuple[str, Any, str]]:
    percent = f"{found.share * 100:.2g} %"
    if found.share >= VERY_RARE:
        why = f"The rarest class, {found.rarest}, has {percent} of the pixels: crops that are centred on it do more than weights would."
        dice = "Counts every class alike, however few its pixels: what mIoU scores by."
        rare = "Most crops show something; the rest lie anywhere, against seeing things where there are none."
        return [("rare_class_share", usual.rare_class_share, rare), ("balance", usual.balance, why), ("dice", usual.dice, dice)]
    few = f" Only {found.shown_by} pictures show it: labelling more of it helps most." if found.shown_by < 10 else ""
    why = f"{found.rarest} has only {percent} of the pixels: more crops are centred on what is rare.{few}"
    return [
        ("rare_class_share", max(usual.rare_class_share, 0.8), why),
        ("balance", max(usual.balance, 0.3), f"{found.rarest} has only {percent} of the pixels: missing one of them costs more."),
        ("dice", max(usual.dice, 1.0), "Counts every class alike, however few its pixels."),
    ]


def _count(number: int) -> str:
    """12345 → 12 345"""
    return f"{number:,}".replace(",", "\u202f")
