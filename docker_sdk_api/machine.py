"""What this machine has: cores, memory, disk, GPUs, and which engines can run on it, or why not."""

import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import pynvml

from contracts.errors import Unavailable
from contracts.networks import ENGINES
from docker_sdk_api.launchers import Launcher
from docker_sdk_api.settings import Settings

VERSION = "0.1.0"
PACKAGES = {"pytorch": "torch, segmentation_models_pytorch", "gluon": "mxnet, gluoncv", "majority": "numpy"}
CURES = {
    "pytorch": "Start with ./run/local.sh, which installs it; its last lines say what went wrong.",
    "gluon": "Install Python 3.10 or 3.11 beside this one and start ./run/local.sh again: MXNet has no packages for newer Pythons.",
    "majority": "Start with ./run/local.sh, which installs it.",
}


@dataclass(frozen=True)
class EngineState:
    """Whether an engine can run here; if not, why and what helps."""

    engine: str
    about: str
    available: bool
    cause: str = ""
    cure: str = ""


def describe_machine(settings: Settings, launcher: Launcher) -> dict[str, Any]:
    """The machine page's facts; memory and disk in bytes."""
    memory = psutil.virtual_memory()
    return {
        "cores": len(psutil.Process().cpu_affinity() or []) or psutil.cpu_count() or 1,
        "processor": _processor(),
        "bfloat16": _has_bfloat16(),
        "memory_total": memory.total,
        "memory_free": memory.available,
        "disk_free": shutil.disk_usage(settings.checkpoints).free,
        "gpus": list_gpus(),
        "engines": [asdict(state) for state in list_engines(settings, launcher)],
        "launcher": settings.launcher,
        "version": VERSION,
    }


def list_gpus() -> list[dict[str, Any]]:
    """NVIDIA's GPUs: id, name, memory_total and memory_free in bytes. None without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_describe_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _describe_gpu(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {"id": index, "name": str(pynvml.nvmlDeviceGetName(handle)), "memory_total": int(memory.total), "memory_free": int(memory.free)}


def list_engines(settings: Settings, launcher: Launcher) -> list[EngineState]:
    """Every engine and whether jobs can run with it, as this service's launcher would start them."""
    look = _image_state if settings.launcher == "container" else _environment_state
    return [look(settings, launcher, engine, about) for engine, about in ENGINES.items()]


def _image_state(_: Settings, launcher: Launcher, engine: str, about: str) -> EngineState:
    try:
        launcher.require(engine)
    except Unavailable as problem:
        return EngineState(engine, about, available=False, cause=problem.cause, cure=problem.cure)
    return EngineState(engine, about, available=True)


def _environment_state(settings: Settings, _: Launcher, engine: str, about: str) -> EngineState:
    python = engine_python(settings, engine)
    cause = _missing(python, PACKAGES[engine], python.stat().st_mtime_ns if python.exists() else 0)
    return EngineState(engine, about, available=not cause, cause=cause, cure=CURES[engine] if cause else "")


def engine_python(settings: Settings, engine: str) -> Path:
    return settings.gluon_task_python if engine == "gluon" else settings.task_python


@lru_cache
def _missing(python: Path, packages: str, _changed: int) -> str:
    """Why an engine cannot run, or "". Packages are looked for, not imported: an import takes seconds."""
    if not python.exists():
        return f"Its environment {python.parent.parent.name} is not installed."
    names = packages.split(", ")
    probe = f"import importlib.util as u, sys; sys.exit(' and '.join(n for n in {names!r} if u.find_spec(n) is None) or 0)"
    result = subprocess.run([python, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    return f"Its environment {python.parent.parent.name} lacks {result.stderr.strip()}." if result.returncode else ""


def _has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16: pytorch is then about twice as fast on it."""
    flags = Path("/proc/cpuinfo").read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16"))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
