"""What the pytorch engine asks of a device: the numbers to learn in, and whether the network is compiled for it."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from contracts.errors import Invalid

LONG = 20 * 60
"""Seconds of training below which compiling is not even tried of itself: it takes a minute or two."""
PAYS = 0.95
"""Share of the plain step's time that a compiled step must stay below."""


def choose_precision(place: torch.device, wish: str) -> torch.dtype | None:
    """The narrower numbers to learn in, None for float32; by itself those that pay. Raises Invalid for what cannot be learnt in.

    Without hardware for it bfloat16 is ten times slower on a processor.
    """
    if wish == "float16" and place.type != "cuda":
        raise Invalid("float16 needs a GPU: a processor cannot learn in it.", "Set precision to auto, bfloat16 or float32.")
    if wish == "float32":
        return None
    if wish != "auto":
        return torch.bfloat16 if wish == "bfloat16" else torch.float16
    if place.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else None


def describe(place: torch.device, precision: torch.dtype | None, processes: int) -> str:
    numbers = str(precision or torch.float32).removeprefix("torch.")
    name = torch.cuda.get_device_name() if place.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{f'{processes} × ' if processes > 1 else ''}{name}, {numbers}"


def compiling_pays(network: nn.Module, learn: Callable[[nn.Module], None], wish: str, place: torch.device, steps: int) -> bool:
    """Whether to learn with torch.compile(network): tried where it is asked for, and on a GPU where the training is long.

    `learn` makes a step with a network, and changes nothing of the training.
    """
    if wish == "off" or (wish == "auto" and place.type != "cuda"):
        return False
    learn(network)  # the first step is not like the others
    plain = _seconds(learn, network, place)
    if wish == "auto" and plain * steps < LONG:
        return False
    from torch._dynamo.exc import TorchDynamoException

    fast: nn.Module = torch.compile(network, dynamic=False)  # type: ignore[assignment]  # it is a module, of a hidden class
    try:
        learn(fast)
        compiled = _seconds(learn, fast, place)
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"compiling does not work here ({type(error).__name__}: {reason}); the training goes on without")
        return False
    pays = wish == "on" or compiled < PAYS * plain
    print(f"compiled, a step takes {compiled:.3f} s instead of {plain:.3f} s: {'taken' if pays else 'not taken'}")
    return pays


def _seconds(learn: Callable[[nn.Module], None], network: nn.Module, place: torch.device) -> float:
    """The shortest of three steps."""
    return min(_one(learn, network, place) for _ in range(3))


def _one(learn: Callable[[nn.Module], None], network: nn.Module, place: torch.device) -> float:
    started = time.monotonic()
    learn(network)
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.monotonic() - started
