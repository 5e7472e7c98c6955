"""What a job's confusion matrix says: how classes are taken for one another, and whether the model has given up on all but one."""

from dataclasses import dataclass

from contracts.job import Confusion, Counts, Job

MANY = 20
"""Of more classes a table of all pairs tells a reader nothing; the worst pairs still do."""
PAIRS = 8
LOPSIDED = 0.9


@dataclass(frozen=True)
class Mixed:
    """Pixels of a class that are taken for another one, and which share of the class they are."""

    true: str
    taken: str
    pixels: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """`rows`: for each true class the share of its pixels by estimate, None where no pixel of it is shown. `worst`: of all mistakes."""

    epoch: int
    classes: list[str]
    rows: list[list[float] | None]
    pixels: list[int]
    worst: list[Mixed]


@dataclass(frozen=True)
class Verdict:
    """A sentence on what is the matter, and the likely causes, each with what helps."""

    cause: str
    likely: list[str]


def matrix_of(confusion: Confusion | None) -> Matrix | None:
    """Of the best epoch, which is the model's; of the latest one where none was good."""
    chosen = (confusion.best or confusion.latest) if confusion else None
    if confusion is None or chosen is None:
        return None
    pixels = [sum(row) for row in chosen.counts]
    rows = [[count / total for count in row] if total else None for row, total in zip(chosen.counts, pixels, strict=True)]
    mixed = [
        Mixed(confusion.classes[true], confusion.classes[taken], count, count / pixels[true])
        for true, row in enumerate(chosen.counts)
        for taken, count in enumerate(row)
        if taken != true and count
    ]
    worst = sorted(mixed, key=lambda pair: pair.pixels, reverse=True)[:PAIRS]
    return Matrix(chosen.epoch, confusion.classes, rows if len(rows) <= MANY else [], pixels, worst)


def one_class_only(confusion: Confusion | None, job: Job, ended: bool) -> Verdict | None:
    """Where the model answers one class everywhere although the validation pictures show several, or did so lately. None: it does not."""
    if confusion is None or confusion.latest is None:
        return None
    best, latest = confusion.best, confusion.latest
    if best and _only_class(best) is None and (late := _only_class(latest)) is not None:
        lately = f"{'Its last epochs' if ended else f'Epoch {latest.epoch}'} answered “{confusion.classes[late]}” only"
        rate = f"The learning rate, {job.hyperparameters.learning_rate:g}, may be too high for what it had learnt: try a third of it."
        return Verdict(f"{lately}; the model is that of epoch {best.epoch}.", [rate])
    kept = best or latest if ended else latest
    found = _only_class(kept)
    if found is None:
        return None
    only, shown = confusion.classes[found], [sum(row) for row in kept.counts]
    cause = f"The model answers “{only}” everywhere{'' if ended else f' so far (epoch {latest.epoch})'}: it has learnt no other class."
    return Verdict(cause, _likely(job, latest, shown[found] / sum(shown), only, ended))


def _only_class(counts: Counts) -> int | None:
    """The class that every pixel is taken for although pixels of others are shown."""
    taken = counts.predicted_classes()
    if len(taken) != 1 or sum(counts.counts[taken[0]]) == sum(map(sum, counts.counts)):
        return None
    return taken[0]


def _likely(job: Job, latest: Counts, share: float, only: str, ended: bool) -> list[str]:
    """The likely causes, the likeliest first."""
    settings = job.hyperparameters
    if job.engine == "majority":
        return ["The engine majority always does, and so shows what “no better than nothing” scores. Choose another engine to learn."]
    causes = []
    if latest.epoch <= 3 and not ended:
        causes.append("It has only begun: the first epochs often look like this.")
    if share > LOPSIDED:
        causes.append(
            f"“{only}” is {share * 100:.0f} % of all pixels, so that answering it is nearly always right. "
            "Raise rare class share, Dice or balance, or cut larger crops around the other classes."
        )
    if settings.learning_rate > 0.01 and settings.optimizer == "adamw":
        causes.append(f"The learning rate, {settings.learning_rate:g}, is high for AdamW: try 0.001.")
    elif settings.learning_rate < 0.0001:
        causes.append(f"The learning rate, {settings.learning_rate:g}, is low: try 0.001.")
    if ended and settings.epochs < 10:
        causes.append(f"{settings.epochs} epochs are few: train for 20 or more.")
    causes.append("The masks may not show the other classes where the pictures do: look at them on the dataset's page.")
    return causes
