"""What this machine has: cores, memory, disk, GPUs, and which engines can run on it, or why not."""

import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import psutil

from contracts.answers import EngineState, Gpu, Machine
from contracts.errors import Invalid, Unavailable
from contracts.networks import ENGINES
from docker_sdk_api.gpus import BUILDS, cpu_build, refusal
from docker_sdk_api.launchers import Launcher
from docker_sdk_api.settings import Settings

VERSION = "0.1.0"
PACKAGES = {"pytorch": "torch, segmentation_models_pytorch", "gluon": "mxnet, gluoncv", "majority": "numpy"}
CURES = {
    "pytorch": "Start with ./run/local.sh, which installs it; its last lines say what went wrong.",
    "gluon": "Install Python 3.10 or 3.11 beside this one and start ./run/local.sh again: MXNet has no packages for newer Pythons.",
    "majority": "Start with ./run/local.sh, which installs it.",
}


def describe_machine(settings: Settings, launcher: Launcher) -> Machine:
    memory, disk, gpus = psutil.virtual_memory(), shutil.disk_usage(settings.checkpoints), launcher.gpus()
    return Machine(
        cores=count_cores(),
        processor=_processor(),
        bfloat16=_has_bfloat16(),
        memory_total=memory.total,
        memory_free=memory.available,
        disk_free=disk.free,
        disk_total=disk.total,
        gpus=_judged(gpus.found, settings),
        gpus_note=gpus.note,
        engines=list_engines(settings, launcher),
        launcher=settings.launcher,
        nodes=launcher.nodes(),
        version=VERSION,
    )


def count_cores() -> int:
    """Those that this process may use."""
    return len(psutil.Process().cpu_affinity() or []) or psutil.cpu_count() or 1


def describe_room() -> dict[str, int]:
    """What there is for a job to take: cores, and memory in bytes."""
    return {"cores": count_cores(), "memory_total": psutil.virtual_memory().total}


def list_gpus(settings: Settings, launcher: Launcher) -> list[Gpu]:
    """The GPUs that a job can be given, with why engines cannot use one."""
    return _judged(launcher.gpus().found, settings)


def _judged(gpus: list[Gpu], settings: Settings) -> list[Gpu]:
    return [gpu.model_copy(update={"refused": _refused(gpu, settings)}) for gpu in gpus]


def refuse_engine(engine: str, settings: Settings, launcher: Launcher, purpose: str = "") -> None:
    """Raises Invalid where an engine, wanted for such a purpose, cannot run here."""
    state = next(state for state in list_engines(settings, launcher) if state.engine == engine)
    if not state.available:
        raise Invalid(f"The engine {engine}{purpose and f', {purpose},'} is not available. {state.cause}", state.cure)


def refuse_gpus(engine: str, asked: list[int], settings: Settings, launcher: Launcher) -> None:
    """Raises Invalid where a GPU that is asked for is not there, or where the engine's build does not know it."""
    known = {gpu.id: gpu for gpu in list_gpus(settings, launcher)} if asked else {}
    if len(set(asked)) < len(asked):
        raise Invalid(f"A GPU is named twice: {', '.join(map(str, asked))}.", "Name each once.")
    if missing := sorted(set(asked) - set(known)):
        have = ", ".join(map(str, sorted(known))) or "none"
        note = launcher.gpus().note
        cause = f"There is no GPU {', '.join(map(str, missing))} (there is: {have}).{' ' if note else ''}{note}"
        raise Invalid(cause, "Choose the CPU or a GPU that is there.")
    for gpu in asked:
        if reason := known[gpu].refused.get(engine):
            cause = f"The engine {engine} cannot use GPU {gpu} ({known[gpu].name}). {reason}"
            raise Invalid(cause, "Choose another engine, or the CPU.")


def _refused(gpu: Gpu, settings: Settings) -> dict[str, str]:
    """Why each engine that cannot use a GPU cannot. In images it is the build that counts, in environments what is installed."""
    in_images = settings.launcher != "process"
    found = {}
    for engine in BUILDS:
        missing = "" if in_images else cpu_build(engine_python(settings, engine), engine)
        found[engine] = missing or refusal(engine, gpu.compute_capability)
    return {engine: reason for engine, reason in found.items() if reason}


def list_engines(settings: Settings, launcher: Launcher) -> list[EngineState]:
    """Every engine and whether jobs can run with it, as this service's launcher would start them."""
    look = _environment_state if settings.launcher == "process" else _image_state
    return [look(settings, launcher, engine, about) for engine, about in ENGINES.items()]


def _image_state(_: Settings, launcher: Launcher, engine: str, about: str) -> EngineState:
    try:
        launcher.require(engine)
    except Unavailable as problem:
        return EngineState(engine=engine, about=about, available=False, cause=problem.cause, cure=problem.cure)
    return EngineState(engine=engine, about=about, available=True)


def _environment_state(settings: Settings, _: Launcher, engine: str, about: str) -> EngineState:
    python = engine_python(settings, engine)
    cause = _missing(python, PACKAGES[engine], python.stat().st_mtime_ns if python.exists() else 0)
    return EngineState(engine=engine, about=about, available=not cause, cause=cause, cure=CURES[engine] if cause else "")


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
