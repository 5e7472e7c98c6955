"""Whether a batch fits into memory: tried before the first epoch, and in how many parts it fits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from contracts.errors import Invalid
from training_api.memory import forget_peak, free_memory, held_memory, peak_memory

Attempt = Callable[[int, tuple[int, int]], None]
"""A whole step of learning from so many crops of a size (height, width), that changes nothing of the training."""
SMALL = 128
"""Longest side in pixels of what is measured on the processor: memory grows with the pixels, and this much is there everywhere."""
FEW, MORE = 2, 8
"""Crops that are measured: far enough apart that chance, some ten megabytes, does not count."""
SPARE = 0.2
"""Share of the free memory that stays free: pictures, previews and the rest of the machine need some too."""


@dataclass(frozen=True)
class Fit:
    """`crops`: how many of those that were asked for one step can hold. Bytes: `free` ones, and of those a step needs `fixed` and
    `each` for a crop; 0 where that is not measured."""

    crops: int
    free: int
    fixed: int = 0
    each: int = 0

    def need(self, crops: int) -> int:
        return self.fixed + crops * self.each


def find_fit(attempt: Attempt, crops: int, size: tuple[int, int], place: torch.device, processes: int) -> Fit | None:
    """How many of the crops one step can hold; None where nothing says how much memory there is. `processes` share this machine's
    memory; each has a GPU of its own."""
    return _on_gpu(attempt, crops, size, place) if place.type == "cuda" else _on_processor(attempt, crops, size, processes)


def _on_gpu(attempt: Attempt, crops: int, size: tuple[int, int], place: torch.device) -> Fit:
    """By trying: all crops, then by halves to the most that fit."""
    free, total = torch.cuda.mem_get_info(place)
    reserved = torch.empty(total // 50, dtype=torch.uint8, device=place)
    fits, fails = (crops, crops + 1) if _fits(attempt, crops, size) else (0, crops)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _fits(attempt, middle, size) else (fits, middle)
    del reserved
    torch.cuda.empty_cache()
    return Fit(fits, free)


def _fits(attempt: Attempt, crops: int, size: tuple[int, int]) -> bool:
    try:
        attempt(crops, size)
    except torch.OutOfMemoryError:
        fitted = False
    else:
        fitted = True
    torch.cuda.empty_cache()  # not before the error is gone: it holds on to what was allocated
    return fitted


def _on_processor(attempt: Attempt, crops: int, size: tuple[int, int], processes: int) -> Fit | None:
    """By measuring a few small crops: a processor that runs out of memory ends the process, so it must not be tried."""
    small = (min(size[0], SMALL), min(size[1], SMALL))
    attempt(FEW, small)  # the optimiser's state, the kernels
    few, more = _growth(attempt, FEW, small), _growth(attempt, MORE, small)
    forget_peak()
    free = free_memory()
    if few is None or more is None or free is None:
        return None
    free = max(0, int(free * (1 - SPARE))) // processes
    crop = max(1, (more - few) // (MORE - FEW))
    each = crop * size[0] * size[1] // (small[0] * small[1])
    fixed = max(0, few - FEW * crop)
    return Fit(max(0, min(crops, (free - fixed) // each)), free, fixed, each)


def _growth(attempt: Attempt, crops: int, size: tuple[int, int]) -> int | None:
    """By how many bytes this process grows for a step."""
    forget_peak()
    before = held_memory()
    attempt(crops, size)
    peak = peak_memory()
    return None if peak is None or before is None else peak - before


def parts_that_fit(fit: Fit, crops: int, size: tuple[int, int], wish: int, may_split: bool, processes: int) -> int:
    """In how many parts a process's share of `crops` goes through the network. Raises Invalid where they do not fit in as many
    as were wished for and may not be split further, and where not even one crop fits."""
    at_once = -(-crops // wish)
    if fit.crops >= at_once:
        return wish
    if fit.crops and may_split:
        return -(-crops // fit.crops)
    need = f"need about {_gigabytes(fit.need(at_once))} of memory" if fit.each else "do not fit into the memory"
    cause = f"{at_once} crops of {size[1]} × {size[0]} pixels at once {need}, and {_gigabytes(fit.free)} are free."
    if not fit.crops:
        raise Invalid(cause, "Not even one fits: choose a smaller crop or a lighter network.")
    largest = fit.crops * wish * processes
    raise Invalid(cause, f"A batch size of {largest} fits. Or set fit_memory: then the batch is taken in parts, one after the other.")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
