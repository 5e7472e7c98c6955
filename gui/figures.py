"""Numbers, times and sizes as people read them: the templates' filters. What does not apply is an en dash."""

from collections.abc import Sequence
from datetime import datetime, timezone

NONE = "–"
THIN = "\u202f"  # a narrow space that does not break
SPACE = "\u00a0"


def score(value: float | None) -> str:
    """0.8931 → 0.893"""
    return NONE if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """0.0283 → 2.8 %"""
    if value is None:
        return NONE
    if 0 < value < 0.0005:
        return f"<{THIN}0.1{SPACE}%"
    return f"{value * 100:.1f}{SPACE}%"


def nearly(value: float | None) -> str:
    """A share that is nearly all, with the digits that tell it from all: 0.99998 → 99.998 %"""
    if value is None:
        return NONE
    rest = 100 - value * 100
    digits = next((digits for digits in (1, 2, 3, 4) if round(rest, digits)), 0)
    return f"{100 - rest:.{digits}f}{SPACE}%"


def milliseconds(seconds: float | None) -> str:
    """0.0274 → 27 ms, 1.93 → 1.9 s"""
    if seconds is None:
        return NONE
    return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f}{SPACE}ms" if seconds < 1 else f"{seconds:.1f}{SPACE}s"


def count(value: int | None) -> str:
    """12345 → 12 345"""
    return NONE if value is None else f"{value:,}".replace(",", THIN)


def size(value: float | None) -> str:
    """Bytes: 128000000 → 128 MB"""
    if value is None:
        return NONE
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    unit = units[0]
    digits = 1 if unit in ("GB", "TB") and value < 10 else 0
    return f"{value:.{digits}f}{SPACE}{unit}"


def duration(seconds: float | None) -> str:
    """190 → 3 min"""
    if seconds is None:
        return NONE
    if seconds < 90:
        return f"{max(1, round(seconds))}{SPACE}s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes}{SPACE}min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{SPACE}h" + (f" {minutes}{SPACE}min" if minutes and hours < 10 else "")
    days, hours = divmod(hours, 24)
    return f"{days}{SPACE}d" + (f" {hours}{SPACE}h" if hours and days < 10 else "")


def ago(moment: datetime | None) -> str:
    """How long since, in words; the exact moment belongs beside it."""
    if moment is None:
        return NONE
    seconds = (datetime.now(timezone.utc) - moment).total_seconds()
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"


def ahead(moment: datetime) -> str:
    """How long until, in words; the exact moment belongs beside it."""
    seconds = (moment - datetime.now(timezone.utc)).total_seconds()
    return "any moment" if seconds < 5 else f"in {duration(seconds)}"


def exact(moment: datetime | None) -> str:
    """2026-11-21 14:03:20 in the server's own time zone"""
    return NONE if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(value: float | None) -> str:
    """With two digits that mean something: 0.268 → 0.27, 33.04 → 33"""
    return NONE if value is None else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def setting(value: object) -> str:
    """A setting's value as it is typed: 0.0020 → 0.002, True → true"""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def colour(rgb: Sequence[int]) -> str:
    """(230, 159, 0) → rgb(230 159 0)"""
    return f"rgb({' '.join(map(str, rgb))})"


def polyline(values: Sequence[float | None], width: float = 100, height: float = 24, top: float | None = None) -> str:
    """Points of an SVG polyline through the values, the first at the left; what is None is passed over."""
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    if not known:
        return ""
    highest = top or max(value for _, value in known) or 1
    step = width / max(1, len(values) - 1)
    return " ".join(f"{index * step:.1f},{height - min(1, value / highest) * height:.1f}" for index, value in known)


FILTERS = {
    "score": score, "share": share, "count": count, "size": size, "duration": duration, "ago": ago, "ahead": ahead, "exact": exact,
    "nearly": nearly, "milliseconds": milliseconds, "short": short, "setting": setting, "colour": colour, "polyline": polyline,
}  # fmt: skip
