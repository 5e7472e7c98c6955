"""Everything that is wrong with a dataset folder, file by file: what, where, and the cure. A gate before training.

findings of files here; those that need the whole dataset in remarks.py; cures in cures.py; how files are read in checking.py.
"""

import os
from collections import Counter
from pathlib import Path

from annotations.dataset import IGNORE, PICTURE_ENDINGS, Dataset, is_picture_name, open_dataset, picture_files
from annotations.doctor.checking import Checker, Progress
from annotations.doctor.cure_table import TITLES, offered
from annotations.doctor.duplicates import group_alike
from annotations.doctor.examine import Facts
from annotations.doctor.findings import Finding, Offer, PairView, Report
from annotations.doctor.fingerprint import fingerprint, stored_split
from annotations.doctor.recode import all_white, colour_ids, deep_masks, renumbering
from annotations.doctor.remarks import remark
from annotations.split import read_split
from contracts.errors import Invalid

__all__ = ["Finding", "Offer", "PairView", "Report", "check_dataset"]
PASSED_OVER = {"thumbs.db", "desktop.ini"}


def check_dataset(folder: Path, progress: Progress = lambda _done, _total: None, processes: int | None = None) -> Report:
    """Read every picture and every mask of a dataset and say all that is wrong. Never raises for what it finds.

    `progress` is told the pairs that are done, and all. Files that have not changed since the last check are not read again.
    """
    report = Report(dataset=folder.name)
    try:
        dataset = open_dataset(folder)
        report.split = read_split(folder)
    except Invalid as problem:
        report.findings.append(Finding(code="structure", file=f"{folder.name}/", what=problem.cause, cure=problem.cure))
        report.counts = {"structure": 1}
        return report
    report.classes = dataset.classes
    facts = Checker(dataset, processes).examine(progress)
    report.findings = _pairing(folder)
    found = PairFindings(dataset, facts)
    by_pair = [found.of(pair) for pair in facts]
    report.findings += [finding for findings in by_pair for finding in findings]
    sound = [pair for pair, findings in zip(facts, by_pair, strict=True) if not findings]
    _count(report, sound)
    alike = _alike(facts)
    report.findings += remark(folder, report, sound, alike)
    _conclude(report, folder, facts, alike)
    return report


def _count(report: Report, sound: list[Facts]) -> None:
    """What the sound pairs hold."""
    report.pictures = len(sound)
    report.sizes = dict(Counter(f"{pair.picture.width} × {pair.picture.height}" for pair in sound).most_common())
    report.class_pixels, report.class_pictures = [0] * len(report.classes), [0] * len(report.classes)
    for pair in sound:
        for value, count in pair.values().items():
            if value == IGNORE:
                report.ignored_pixels += count
            else:
                report.class_pixels[value] += count
                report.class_pictures[value] += 1


def _alike(facts: list[Facts]) -> dict[str, str]:
    """For every stem the first stem that looks the same."""
    seen = [pair for pair in facts if not pair.picture.trouble]
    places = group_alike([pair.look for pair in seen], [pair.picture.digest for pair in seen])
    return {**{pair.stem: pair.stem for pair in facts}, **{pair.stem: seen[place].stem for pair, place in zip(seen, places, strict=True)}}


def _conclude(report: Report, folder: Path, facts: list[Facts], alike: dict[str, str]) -> None:
    """Counts, cures on offer, fingerprint and the view of every pair."""
    report.counts = dict(Counter(finding.code for finding in report.findings))
    files: dict[str, set[str]] = {}
    codes: dict[str, list[str]] = {}
    for finding in report.findings:
        for code in offered(finding.cure_code, len(report.classes)):
            files.setdefault(code, set()).add(finding.file)
        codes.setdefault(finding.file, []).append(finding.code)
    report.cures = [Offer(code=code, title=TITLES[code], files=len(names)) for code, names in files.items()]
    rows = [(pair.stem, pair.picture.digest, pair.mask.digest) for pair in facts]
    report.fingerprint = fingerprint(report.classes, stored_split(folder), rows)
    for pair in facts:
        report.pairs.append(
            PairView(
                stem=pair.stem,
                width=pair.picture.width,
                height=pair.picture.height,
                classes=[value for value in pair.values() if value < len(report.classes)],
                findings=codes.get(f"images/{pair.picture.name}", []) + codes.get(f"labels/{pair.mask.name}", []),
                alike=alike[pair.stem],
            )
        )


class PairFindings:
    """What is wrong with single pairs, and which cure helps, given all others: what a value means shows in the whole."""

    def __init__(self, dataset: Dataset, facts: list[Facts]) -> None:
        self.classes = dataset.classes
        self.white = all_white(facts)
        self.renumber = renumbering(facts, len(dataset.classes))
        self.colours = colour_ids(dataset.folder, dataset.classes, facts)
        self.deep = {pair.stem for pair in deep_masks(facts)}

    def of(self, pair: Facts) -> list[Finding]:
        picture, mask = f"images/{pair.picture.name}", f"labels/{pair.mask.name}"
        if Path(pair.mask.name).suffix.lower() in (".jpg", ".jpeg"):
            what = "Is a JPEG: its compression changes the pixel values at every edge, so class ids are lost."
            return [Finding(code="jpeg_mask", file=mask, what=what, cure="Export the masks again as PNG.")]
        findings = [_unreadable(name, side.trouble) for name, side in ((picture, pair.picture), (mask, pair.mask)) if side.trouble]
        if pair.mask.trouble:
            return findings
        if not pair.picture.trouble:
            findings += self._size(pair, mask)
        return findings + (self._values(pair, mask) if pair.is_index else [self._mode(pair, mask)])

    def _size(self, pair: Facts, name: str) -> list[Finding]:
        picture, mask = pair.picture, pair.mask
        if (picture.width, picture.height) == (mask.width, mask.height):
            return []
        what = f"Is {mask.width} × {mask.height} pixels, but its picture is {picture.width} × {picture.height}."
        if (picture.width, picture.height) != (mask.height, mask.width):
            return [Finding(code="size", file=name, what=what, cure="Export the mask again in the size of its picture.")]
        if picture.turn >= 5 and mask.turn == 1:
            what += f" The camera turned the picture (EXIF orientation {picture.turn}), and the mask was not turned with it."
            return [Finding(code="turned", file=name, what=what, cure="Turn the mask as its picture is.", cure_code="turn_masks")]
        what += " It lies on its side."
        cure = "Turn the mask to the left and compare it with its picture; undo that and turn it to the right if it does not fit."
        return [Finding(code="turned", file=name, what=what, cure=cure, cure_code="turn_masks_left")]

    def _mode(self, pair: Facts, name: str) -> Finding:
        if pair.counts is None:
            what = "Holds more than 256 colours: it is a photograph, or was smoothed or compressed, so its classes cannot be told."
            return Finding(code="mask_mode", file=name, what=what, cure="Export the mask again as a PNG without smoothing.")
        value, count = next(iter(pair.counts.items()))
        known = {"value": value, "share": count / _size_of(pair), "place": pair.places.get(value, (0, 0))}
        if pair.stem in self.deep:
            what = f"Holds its class ids in the mode {pair.mask.mode}, not in 8 bits."
            return Finding(code="mask_mode", file=name, what=what, cure="Write it with 8 bits.", cure_code="to_eight_bits", **known)
        if value[0] != "#":
            largest = max(pair.values())
            what = f"Holds values up to {largest} in the mode {pair.mask.mode}; class ids end at 254."
            return Finding(code="mask_mode", file=name, what=what, cure="Export it with one class id a pixel, 8 bits.", **known)
        what = f"Holds {pair.mask.mode} colours, not class ids: {_colours(pair)}."
        if self.colours and pair.is_lossless:
            return Finding(code="mask_mode", file=name, what=what, cure="Map its colours.", cure_code="map_colours", **known)
        cure = (
            "Save masks as 8-bit PNGs whose pixel value is the class id; or say which class has which colour: write labelmap.txt into "
            f"the dataset's folder, a line a class such as {self.classes[-1]}:255,0,0, and check again."
        )
        return Finding(code="mask_mode", file=name, what=what, cure=cure, **known)

    def _values(self, pair: Facts, name: str) -> list[Finding]:
        values, pixels = pair.values(), _size_of(pair)
        last = len(self.classes) - 1
        if self.white and IGNORE in values:
            x, y = pair.places.get(str(IGNORE), (0, 0))
            what = (
                f"Holds {'0 and 255 only' if 0 in values else '255 only'}, first 255 at x {x}, y {y} ({values[IGNORE] / pixels:.2%} of its "
                "pixels), as do all masks. 255 means “ignore”, so there is nothing to learn."
            )
            found = {"value": IGNORE, "share": values[IGNORE] / pixels, "place": (x, y)}
            if last == 1:
                cure = f"Treat 255 as {self.classes[1]}."
                return [Finding(code="white", file=name, what=what, cure=cure, cure_code="white_foreground", **found)]
            return [Finding(code="white", file=name, what=what, cure="Write the class id into the masks, or name two classes.", **found)]
        beyond = [value for value in values if value > last and value != IGNORE]
        if not beyond:
            return []
        x, y = pair.places[str(beyond[0])]
        share = sum(values[value] for value in beyond) / pixels
        what = (
            f"Holds the value {', '.join(map(str, beyond[:5]))}, first at x {x}, y {y} ({share:.2%} of its pixels), "
            f"but the classes end at {last}."
        )
        cure = "Name the missing classes in objectclasses.json, or renumber the mask; 255 means “ignore”."
        if self.renumber:
            cure = f"Renumber: {', '.join(f'{old} → {new}' for old, new in self.renumber.items() if old != new)}, in all masks."
        code = "renumber" if self.renumber else ""
        return [Finding(code="value", file=name, what=what, cure=cure, value=beyond[0], share=share, place=(x, y), cure_code=code)]


def _size_of(pair: Facts) -> int:
    return max(1, pair.mask.width * pair.mask.height)


def _colours(pair: Facts) -> str:
    """The commonest colours with their place and share."""
    counts, shown = pair.counts or {}, []
    for colour in list(counts)[:4]:
        x, y = pair.places[colour]
        shown.append(f"{colour} first at x {x}, y {y} ({counts[colour] / _size_of(pair):.1%})")
    return ", ".join(shown) + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")


def _unreadable(name: str, trouble: str) -> Finding:
    return Finding(code="unreadable", file=name, what=f"Cannot be read as a picture ({trouble}).", cure="Copy or export the file again.")


def _pairing(folder: Path) -> list[Finding]:
    findings = []
    pictures, masks = picture_files(folder / "images"), picture_files(folder / "labels")
    for place, files, others, other in (("images", pictures, masks, "labels"), ("labels", masks, pictures, "images")):
        stems = Counter(path.stem for path in files)
        partners = {path.stem for path in others}
        kind, partner = ("picture", "mask") if place == "images" else ("mask", "picture")
        for path in files:
            name = f"{place}/{path.name}"
            if stems[path.stem] > 1:
                twins = ", ".join(twin.name for twin in files if twin.stem == path.stem and twin != path)
                what = f"Shares its name with {twins}, so its {partner} is not certain."
                findings.append(Finding(code="same_stem", file=name, what=what, cure="Rename one of them, with its partner."))
            if path.stem not in partners:
                what = f"The {kind} has no {partner} named {path.stem} in {other}/.{_similar(path.stem, partners - stems.keys())}"
                cure = f"Add {other}/{path.stem}.png, or remove the {kind}."
                findings.append(Finding(code=f"no_{partner}", file=name, what=what, cure=cure, cure_code="set_unpaired_aside"))
        findings += _passed_over(folder / place)
    return findings


def _similar(stem: str, others: set[str]) -> str:
    """A hint at a partner whose name is almost right, such as p1_mask for p1. Looked for among few names only."""
    near = (
        [other for other in sorted(others) if stem.casefold() in other.casefold() or other.casefold() in stem.casefold()]
        if len(others) < 500
        else []
    )
    return f" There is {near[0]}, though." if near else ""


def _passed_over(folder: Path) -> list[Finding]:
    """Files and folders that are no pictures by their ending, so that nobody reads them."""
    findings = []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "." and not (is_picture_name(entry.name) and entry.is_file())]
    for path in (folder / name for name in sorted(names) if name.lower() not in PASSED_OVER):
        what = "Is a folder, and is not looked into." if path.is_dir() else "Is not read: its ending is none of a picture."
        cure = (
            f"Move pictures out of it into {folder.name}/."
            if path.is_dir()
            else f"Remove it, or convert it to one of {', '.join(sorted(PICTURE_ENDINGS))}."
        )
        findings.append(Finding(severity="warning", code="not_read", file=f"{folder.name}/{path.name}", what=what, cure=cure))
    return findings
