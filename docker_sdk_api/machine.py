"""What this machine has: cores, memory, disk, GPUs, and which engines can run on it, or why not."""

import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from contracts.errors import Invalid, Unavailable
from contracts.networks import ENGINES
from docker_sdk_api.gpus import BUILDS, Gpu, cpu_build, refusal
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
        "disk_total": shutil.disk_usage(settings.checkpoints).total,
        "gpus": list_gpus(settings, launcher),
        "gpus_note": launcher.gpus().note,
        "engines": [asdict(state) for state in list_engines(settings, launcher)],
        "launcher": settings.launcher,
        "version": VERSION,
    }


def describe_room() -> dict[str, int]:
    """What there is for a job to take: cores, and memory in bytes."""
    return {"cores": len(psutil.Process().cpu_affinity() or []) or psutil.cpu_count() or 1, "memory_total": psutil.virtual_memory().total}


def list_gpus(settings: Settings, launcher: Launcher) -> list[dict[str, Any]]:
    """The GPUs that a job can be given, as docker_sdk_api.gpus.Gpu tells them, with why engines cannot use one."""
    return [gpu.model_dump() | {"refused": _refused(gpu, settings)} for gpu in launcher.gpus().found]


def refuse_gpus(engine: str, asked: list[int], settings: Settings, launcher: Launcher) -> None:
    """Raises Invalid where a GPU that is asked for is not there, or where the engine's build does not know it."""
    known = {gpu["id"]: gpu for gpu in list_gpus(settings, launcher)} if asked else {}
    if missing := sorted(set(asked) - set(known)):
        have = ", ".join(map(str, sorted(known))) or "none"
        note = launcher.gpus().note
        cause = f"There is no GPU {', '.join(map(str, missing))} (there is: {have}).{' ' if note else ''}{note}"
        raise Invalid(cause, "Choose the CPU or a GPU that is there.")
    for gpu in asked:
        if reason := known[gpu]["refused"].get(engine):
            cause = f"The engine {engine} cannot use GPU {gpu} ({known[gpu]['name']}). {reason}"
            raise Invalid(cause, "Choose another engine, or the CPU.")


def _refused(gpu: Gpu, settings: Settings) -> dict[str, str]:
    """Why each engine that cannot use a GPU cannot. In images it is the build that counts, in environments what is installed."""
    in_images = settings.launcher == "container"
    found = {}
    for engine in BUILDS:
        missing = "" if in_images else cpu_build(engine_python(settings, engine), engine)
        found[engine] = missing or refusal(engine, gpu.compute_capability)
    return {engine: reason for engine, reason in found.items() if reason}


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
