"""GPUs: found and described, refused where an engine's build does not know them, and the reason where there is none."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from contracts.answers import Gpu
from contracts.errors import Invalid
from docker_sdk_api.gpus import Gpus, cpu_build, read_printed, refusal
from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.container import container_request, create_container_launcher
from docker_sdk_api.launchers.container_gpus import ask_gpus, gpu_request, printed_by
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.machine import list_gpus, refuse_gpus
from docker_sdk_api.settings import Settings
from tests.conftest import ROOT
from tests.engine import engine, image

TWO_GPUS = """
/* A driver library with two GPUs, an A100 at work and one that does not tell its load, as shared ones do not. */
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } load;
int nvmlInitWithFlags(unsigned flags) { return FAILS; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned n) { strncpy(text, "580.95.05", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(index + 1UL); return index == LOST ? 15 : 0; }
int nvmlDeviceGetName(void *handle, char *text, unsigned n) {
    strncpy(text, handle == (void *)1 ? "NVIDIA A100-SXM4-40GB" : "NVIDIA H200", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, memory *m) { m->total = 40000000000ULL; m->free = 30000000000ULL; return 0; }
int nvmlDeviceGetUtilizationRates(void *handle, load *l) { l->gpu = 75; l->memory = 10; return handle == (void *)1 ? 0 : 3; }
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    *major = handle == (void *)1 ? 8 : 9; *minor = 0; return 0; }
"""


def printed_with_driver(folder: Path, fails: int = 0, lost: int = -1) -> Gpus:
    """What the module prints on a machine whose driver library is that one: read by the same pynvml as a real one's."""
    if shutil.which("gcc") is None:
        pytest.skip("a driver library cannot be made here: there is no gcc")
    (folder / "driver.c").write_text(TWO_GPUS)
    library = str(folder / "libnvidia-ml.so.1")
    facts = (f"-DFAILS={fails}", f"-DLOST={lost}")
    subprocess.run(["gcc", "-shared", "-fPIC", *facts, "-o", library, folder / "driver.c"], check=True, timeout=60)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-m", "docker_sdk_api.gpus"]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return read_printed(told.stdout)


def test_gpus_are_told_with_name_memory_load_driver_and_compute_capability(tmp_path: Path) -> None:
    first, second = printed_with_driver(tmp_path).found
    same = {"memory_total": 40_000_000_000, "memory_free": 30_000_000_000, "driver": "580.95.05"}
    assert first == Gpu(id=0, name="NVIDIA A100-SXM4-40GB", load=75, compute_capability="8.0", **same)
    assert second == Gpu(id=1, name="NVIDIA H200", load=None, compute_capability="9.0", **same)


def test_a_driver_that_does_not_answer_is_a_note_and_no_failure(tmp_path: Path) -> None:
    told = printed_with_driver(tmp_path, fails=18)
    assert told.found == []
    assert "No NVIDIA driver answers (RM has detected an NVML/RM version mismatch.): jobs run on the CPU." in told.note


def test_a_gpu_that_fails_is_named_and_takes_no_other_with_it(tmp_path: Path) -> None:
    told = printed_with_driver(tmp_path, lost=0)
    assert [gpu.name for gpu in told.found] == ["NVIDIA H200"]
    assert told.note == "GPU 0 fails (GPU is lost): see nvidia-smi."


@pytest.mark.parametrize(
    ("trainer", "capability", "reason"),
    [
        ("gluon", "3.5", "built for compute capability 5.0, 6.0, 7.0, 8.0, 8.6, and this one has 3.5"),
        ("gluon", "5.0", ""),
        ("gluon", "8.6", ""),
        ("gluon", "8.9", ""),
        ("gluon", "9.0", "this one has 9.0"),
        ("gluon", "12.0", "this one has 12.0"),
        ("pytorch", "7.0", "this one has 7.0"),
        ("pytorch", "7.5", ""),
        ("pytorch", "10.3", ""),
        ("pytorch", "12.1", ""),
        ("pytorch", "13.0", "this one has 13.0"),
        ("pytorch", "", ""),
        ("majority", "8.0", "CPU alone"),
    ],
)
def test_a_gpu_that_a_build_does_not_know_is_refused_with_the_reason(trainer: str, capability: str, reason: str) -> None:
    said = refusal(trainer, capability)
    assert (reason in said) if reason else said == ""


@dataclass
class TwoGpuMachine(ProcessLauncher):
    """A machine with an A100 and an H200."""

    checkpoints: Path
    pythons: dict[str, Path] = field(default_factory=dict)

    def gpus(self) -> Gpus:
        a100 = Gpu(id=0, name="A100", memory_total=1, memory_free=1, compute_capability="8.0")
        return Gpus([a100, Gpu(id=1, name="H200", memory_total=1, memory_free=1, compute_capability="9.0")])


def test_a_job_is_refused_before_its_start_where_its_engine_does_not_know_the_gpu(tmp_path: Path) -> None:
    settings = Settings(launcher="container", checkpoints=tmp_path)
    machine = TwoGpuMachine(tmp_path)
    refuse_gpus("gluon", [0], settings, machine)
    refuse_gpus("pytorch", [0, 1], settings, machine)
    with pytest.raises(Invalid, match=r"gluon cannot use GPU 1 \(H200\).*8\.6, and this one has 9\.0.*another engine"):
        refuse_gpus("gluon", [0, 1], settings, machine)
    with pytest.raises(Invalid, match=r"There is no GPU 2, 7 \(there is: 0, 1\)"):
        refuse_gpus("pytorch", [0, 2, 7], settings, machine)
    assert [list(gpu.refused) for gpu in list_gpus(settings, machine)] == [[], ["gluon"]]


def test_an_environment_with_a_cpu_build_is_told_apart_from_one_for_gpus(tmp_path: Path) -> None:
    packages = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    python = tmp_path / "env" / "bin" / "python"
    (packages / "mxnet").mkdir(parents=True)
    assert cpu_build(python, "gluon") == ""  # not installed: said elsewhere
    (packages / "mxnet" / "libinfo.py").touch()
    assert cpu_build(python, "gluon") == "The gluon of env was built for the CPU alone."
    (packages / "mxnet_cu117-1.9.1.dist-info").mkdir()
    assert cpu_build(python, "gluon") == ""


def test_images_for_the_cpu_are_the_reason_why_there_is_no_gpu(tmp_path: Path) -> None:
    with engine() as client:
        launcher = create_container_launcher(tmp_path, "cpu")
        launcher._connect = lambda: client  # its own would be left open
        assert launcher.gpus().found == []
        assert "built for the CPU" in launcher.gpus().note


def test_an_engine_without_nvidias_toolkit_is_a_note_that_says_what_to_do(tmp_path: Path) -> None:
    """The real engine's own refusal, from a container like docker_sdk_api's; where it has a toolkit, what it finds."""
    with engine() as client:
        request = gpu_request(image(client)) | {"entrypoint": ["python", "-c", "print()"]}
        ask = "from docker_sdk_api.launchers.container_gpus import ask_gpus; print(json.dumps(ask_gpus(docker.from_env())))"
        if any(name.startswith("nvidia") for name in client.info()["Runtimes"]):
            assert printed_by(client, request) == b"\n"
            return
        name = "maskwright_docker_sdk_api"
        if not client.images.list(name):
            pytest.skip(f"the image {name} is not built here")
        mounts = ["/var/run/docker.sock:/var/run/docker.sock", f"{ROOT}/docker_sdk_api:/opt/maskwright/docker_sdk_api:ro"]
        command = ["python", "-c", f"import docker, json; {ask}"]
        told = client.containers.run(name, entrypoint=command, command=[], volumes=mounts, user="0:0", remove=True)
        found, note = json.loads(told)
        assert found == []
        assert "container toolkit is missing. Jobs run on the CPU." in note
        assert "setup_solution_parameters.sh" in note


def test_a_container_is_given_the_gpus_of_its_job_and_no_other() -> None:
    asked = container_request(Task("a", "pytorch", [], Path("/c/a"), gpus=[1, 3]), "an_image", lambda path: path, "0:0")
    assert asked["device_requests"] == [{"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}]
    assert "runtime" not in asked
    assert "NVIDIA_VISIBLE_DEVICES" not in asked["environment"]


def test_outside_containers_the_driver_is_asked_itself() -> None:
    with engine() as client:
        told = ask_gpus(client)
        assert told.found or "jobs run on the CPU" in told.note
