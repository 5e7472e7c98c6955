"""What every benchmark prints: a table for people, the machine it ran on, and last one line of JSON. And where to listen meanwhile."""

import json
import os
import platform
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(columns: Iterable[str], rows: Iterable[Iterable[object]], figures: Mapping[str, object]) -> None:
    """Print rows under columns, then the machine, then the figures as the last line."""
    print(table(columns, rows))
    print(f"on {describe()}")
    print(json.dumps(figures))


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Rows under columns, for people."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def describe() -> str:
    """The machine in a line: processor, cores, the wide instructions that it has, memory, Python."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in cpuinfo]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores ({', '.join(wide)}), {memory:.0f} GiB, Python {platform.python_version()}"
