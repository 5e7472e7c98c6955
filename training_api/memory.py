"""How much memory this process may still take: what the machine, its control groups and its own limit leave, in bytes."""

import ctypes
import os
import re
import sys
from pathlib import Path

ROOT = Path("/")


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that can still be had before something ends this process; None where nobody says. Under `root` lie proc and sys."""
    return min((left for left in (_machine(root), _groups(root), _own_limit(root)) if left is not None), default=None)


def peak_memory() -> int | None:
    """The most bytes of memory that this process held at once since forget_peak; None where nobody says."""
    return _kilobytes(ROOT / "proc/self/status", "VmHWM")


def held_memory() -> int | None:
    return _kilobytes(ROOT / "proc/self/status", "VmRSS")


def forget_peak() -> None:
    """Count the peak anew, and from what is in use: C's library keeps what was freed. Where that is not allowed it stays that of
    the whole process."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # musl keeps less, and has none
        libc.malloc_trim(0)
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def _machine(root: Path) -> int | None:
    return _kilobytes(root / "proc/meminfo", "MemAvailable")


def _own_limit(root: Path) -> int | None:
    """What `ulimit -v` leaves, as queues of clusters set it."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    held = _kilobytes(root / "proc/self/status", "VmSize")
    return None if limit == resource.RLIM_INFINITY or held is None else limit - held


def _groups(root: Path) -> int | None:
    """The least that a control group of this process, or one around it, leaves: of a container, a service, a queue."""
    table = root / "proc/self/cgroup"
    left = []
    for line in table.read_text().splitlines() if table.exists() else []:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            left += _up(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            left += _up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return min(left, default=None)


def _up(base: Path, path: str, limit: str, used: str, reclaimable: str) -> list[int]:
    """What a group and all those around it leave. Inside a container the path is the host's: what is there then is the base."""
    group = base / path.strip("/")
    found = []
    for folder in [group, *group.parents]:
        if folder.is_relative_to(base) and (folder / limit).exists() and (folder / used).exists():
            most = (folder / limit).read_text().strip()
            if most != "max":
                cache = re.search(rf"^{reclaimable} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
                found.append(int(most) - int((folder / used).read_text()) + (int(cache[1]) if cache else 0))
    return found


def _kilobytes(file: Path, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE) if file.exists() else None
    return int(match[1]) * 1024 if match else None
