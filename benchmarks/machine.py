"""What every benchmark prints: a table for people, the machine it ran on, and last one line of JSON."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path


def report(columns: Iterable[str], rows: Iterable[Iterable[object]], figures: Mapping[str, object]) -> None:
    """Print rows under columns, then the machine, then the figures as the last line."""
    table = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"on {describe()}")
    print(json.dumps(figures))


def describe() -> str:
    """The machine in a line: processor, cores, the wide instructions that it has, memory, Python."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in cpuinfo]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores ({', '.join(wide)}), {memory:.0f} GiB, Python {platform.python_version()}"
