"""What the check found, as people read it: of one kind together, under a title, with the cures of one click."""

from collections import Counter
from typing import Any

from annotations.doctor.cure_table import offered
from annotations.doctor.findings import Finding, PairView
from gui.answers import DatasetReport


def group_findings(report: DatasetReport) -> list[dict[str, Any]]:
    """Findings of one kind together, errors first, so that fifty masks with one fault read as one fault.

    `cure` is what they have in common, said once, empty where each has its own; `offers` are the cures of one click.
    """
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in report.findings:
        apart = finding.cure if finding.code == "structure" else ""
        groups.setdefault((finding.severity, finding.code, finding.cure_code, apart), []).append(finding)
    rows = []
    for (severity, code, cure_code, _), group in groups.items():
        cures = {finding.cure for finding in group}
        cure = cures.pop() if len(cures) == 1 else ""
        offers = [offer for offer in report.cures if offer.code in offered(cure_code, len(report.classes))]
        rows.append({"severity": severity, "code": code, "title": title_of(code), "findings": group, "cure": cure, "offers": offers})
    return sorted(rows, key=lambda row: row["severity"] != "error")


def finding_choices(rows: list[PairView]) -> list[tuple[str, str, int]]:
    """Each code that a picture has, its title and how many pictures have it."""
    counts = Counter(code for row in rows for code in set(row.findings))
    return [(code, title_of(code), pictures) for code, pictures in counts.most_common()]


def title_of(code: str) -> str:
    return TITLES.get(code) or code.replace("_", " ").capitalize()


TITLES = {
    "structure": "The folder is not laid out as a dataset",
    "no_mask": "Pictures without a mask",
    "no_picture": "Masks without a picture",
    "same_stem": "Files that share a name",
    "jpeg_mask": "Masks saved as JPEG",
    "unreadable": "Files that cannot be read",
    "mask_mode": "Masks that hold colours instead of class ids",
    "size": "Masks that differ in size from their picture",
    "value": "Masks with values beyond the classes",
    "white": "Masks of nothing but 0 and 255",
    "white_some": "Some masks hold nothing but 0 and 255",
    "turned": "Masks that lie on their side",
    "maybe_turned": "Pictures that the camera turned",
    "frames": "Files that hold several pictures",
    "nothing_to_learn": "There is nothing to tell apart",
    "tiny_class": "Classes with very few pixels",
    "vanishes": "Things too small to be seen in training",
    "all_ignored": "Masks that are ignored altogether",
    "all_background": "Pictures that show nothing but background",
    "not_read": "Files that are passed over",
    "duplicate": "Pictures that are there twice",
    "duplicate_across_split": "The same picture on both sides of the split",
    "near_duplicate_across_split": "Look-alikes on both sides of the split",
    "only_in_training": "Classes that are never scored",
    "not_in_training": "Classes that are never taught",
    "not_in_split": "Pictures on no side of the split",
    "split_stem": "The split names pictures that are not there",
    "split_twice": "The split names pictures twice",
    "split_empty": "A side of the split is empty",
    "too_few": "Too few pictures",
    "absent_class": "Classes that no mask shows",
}
