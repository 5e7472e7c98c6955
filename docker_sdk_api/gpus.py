"""NVIDIA's GPUs: what there is, and which engine's build knows which of them.

`python -m docker_sdk_api.gpus` prints them as JSON: the container launcher runs that in a container that was given all GPUs, as
docker_sdk_api's own container has none.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pynvml

from contracts.answers import Gpu


class Gpus(NamedTuple):
    """The GPUs that jobs can be given. `note`: why there is none, and what would change that, or which of them fails."""

    found: list[Gpu]
    note: str = ""


class Build(NamedTuple):
    """An engine's GPU build and the compute capabilities that its wheel holds machine code for, as read out of the wheel.

    Such code runs on GPUs of the same first number with the same or a larger second one: that of 8.6 also on 8.9. Neither wheel
    holds any that a driver could translate for others.
    """

    name: str
    code_for: tuple[str, ...]

    def knows(self, capability: str) -> bool:
        first, second = _numbers(capability)
        return any(first == code[0] and second >= code[1] for code in map(_numbers, self.code_for))


BUILDS = {
    "gluon": Build("MXNet 1.9.1 for CUDA 11.7", ("5.0", "6.0", "7.0", "8.0", "8.6")),
    "pytorch": Build("PyTorch 2.13 for CUDA 13", ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")),
}
CUDA_SIGNS = {"pytorch": ("torch/version.py", "torch/lib/libtorch_cuda.so"), "gluon": ("mxnet/libinfo.py", "mxnet_cu*.dist-info")}
"""In an environment's packages: what an engine's package has, and what it has only where it was built for GPUs."""


def read_gpus() -> Gpus:
    """As NVIDIA's driver tells."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus([], f"No NVIDIA driver answers ({error}): jobs run on the CPU.")
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        rows = [_described(index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return Gpus([], f"The NVIDIA driver fails ({error}): see nvidia-smi. Jobs run on the CPU.")
    finally:
        pynvml.nvmlShutdown()
    troubles = " ".join(row for row in rows if isinstance(row, str))
    return Gpus([row for row in rows if isinstance(row, Gpu)], troubles if rows else "The NVIDIA driver finds no GPU: jobs run on the CPU.")


def read_printed(text: str) -> Gpus:
    """What this module printed somewhere else."""
    told = json.loads(text)
    return Gpus([Gpu.model_validate(gpu) for gpu in told["found"]], told["note"])


def refusal(engine: str, capability: str) -> str:
    """Why the GPU build of an engine cannot use a GPU of this compute capability, such as "9.0"; empty where it can."""
    build = BUILDS.get(engine)
    if build is None:
        return f"The engine {engine} learns on the CPU alone."
    if not capability or build.knows(capability):
        return ""
    return f"{build.name} was built for compute capability {', '.join(build.code_for)}, and this one has {capability}."


def cpu_build(python: Path, engine: str) -> str:
    """Why the engine in this interpreter's environment cannot use any GPU; empty where it can, or where that cannot be seen."""
    has, cuda = CUDA_SIGNS.get(engine, ("", ""))
    for packages in python.parent.parent.glob("lib/python*/site-packages"):
        if has and (packages / has).exists() and not any(packages.glob(cuda)):
            return f"The {engine} of {python.parent.parent.name} was built for the CPU alone."
    return ""


def _numbers(capability: str) -> tuple[int, int]:
    first, _, second = capability.partition(".")
    return int(first), int(second or 0)


def _described(index: int, driver: str) -> Gpu | str:
    """A GPU, or why it cannot be used: the others can all the same."""
    try:
        return _describe(index, driver)
    except pynvml.NVMLError as error:
        return f"GPU {index} fails ({error}): see nvidia-smi."


def _describe(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    total = free = 0
    with suppress(pynvml.NVMLError_NotSupported):  # those that share the processor's memory
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    load = None
    with suppress(pynvml.NVMLError):  # some GPUs, shared ones above all, do not tell it
        load = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    return Gpu(
        id=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_total=total,
        memory_free=free,
        load=load,
        driver=driver,
        compute_capability="{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
    )


if __name__ == "__main__":
    gpus = read_gpus()
    print(json.dumps({"found": [gpu.model_dump() for gpu in gpus.found], "note": gpus.note}))
