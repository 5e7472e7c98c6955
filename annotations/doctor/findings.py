"""What a check says of a dataset: findings file by file, the cures on offer, and what its pairs hold."""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, Field

from annotations.split import Picture, Split, complete_split, draw_split
from contracts.errors import Invalid


class Finding(BaseModel):
    """One thing that is wrong with one file. An error keeps the dataset from training, a warning does not.

    `value` is what was found there (a pixel value, or a colour as #rrggbb), `share` its part of the file's pixels (0…1),
    `place` (x, y) the first pixel that has it, upright; each only where there is such a thing. `cure_code` is the name of
    a cure that one click does (annotations.doctor.cures), or empty.
    """

    severity: Literal["error", "warning"] = "error"
    code: str
    file: str
    what: str
    cure: str
    value: int | str | None = None
    share: float | None = None
    place: tuple[int, int] | None = None
    cure_code: str = ""


class Offer(BaseModel):
    """A cure that one click does, and how many files have the fault that it cures."""

    code: str
    title: str
    files: int


class PairView(BaseModel):
    """A pair as the check saw it. `classes` are the ids that its mask shows, `findings` the codes of what is wrong with it.

    `alike` is the stem of the first picture that looks the same, its own where none does.
    """

    stem: str
    width: int
    height: int
    classes: list[int]
    findings: list[str]
    alike: str


class Report(BaseModel):
    """The state of a dataset: its findings, and what its sound pairs hold. Shares are of the pixels that are not ignored.

    `split` is the split that came with the dataset or was stored with it, None where it is drawn for every job.
    """

    dataset: str
    classes: list[str] = []
    pictures: int = 0
    sizes: dict[str, int] = {}
    class_pixels: list[int] = []
    class_pictures: list[int] = []
    ignored_pixels: int = 0
    fingerprint: str = ""
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    cures: list[Offer] = []
    split: Split | None = None
    pairs: list[PairView] = Field([], exclude=True)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    def refuse_errors(self) -> None:
        """Raises Invalid, naming the first files, where the dataset is not fit to train on."""
        if not self.errors:
            return self.refuse_few()
        first = self.errors[0]
        more = f" And {len(self.errors) - 1} more: open the dataset to see all." if len(self.errors) > 1 else ""
        raise Invalid(f"The dataset {self.dataset} cannot be trained on. {first.file}: {first.what}", first.cure + more)

    def refuse_few(self) -> None:
        """Raises Invalid where there are fewer pairs of picture and mask than a split has sides."""
        if len(self.pairs) < 2:
            pairs = f"{len(self.pairs)} pairs of picture and mask"
            raise Invalid(f"The dataset {self.dataset} has {pairs}.", "Add more: one teaches, one scores.")

    def split_for(self, validation_share: float, seed: int, test_share: float = 0.0) -> Split:
        """The split of a job: the one that lies with the dataset, or one drawn by seed. Fewer than two pairs: ValueError."""
        if self.split is not None:
            return complete_split(self.split, [pair.stem for pair in self.pairs])
        pictures = [Picture(pair.stem, frozenset(pair.classes), pair.alike) for pair in self.pairs]
        return draw_split(pictures, validation_share, seed, test_share)

    def sentences(self, each: int = 3) -> list[str]:
        """The findings as lines for a log: of every kind the first few, and how many more there are."""
        lines, seen = [], Counter[str]()
        for finding in self.findings:
            seen[finding.code] += 1
            if seen[finding.code] <= each:
                lines.append(f"{finding.file}: {finding.what} {finding.cure}")
        lines += [f"{count - each} more of the kind “{code.replace('_', ' ')}”." for code, count in seen.items() if count > each]
        return lines
