"""Runs tasks as containers of a Docker engine, which remembers them: nothing about them is kept here.

What a container is asked for is plain data (`container_request`), tested without an engine. It carries the job's id and this
installation's checkpoints folder as labels; containers without both are never touched.

The task's shell writes train.log itself: no follower that could lose lines or repeat them when docker_sdk_api restarts. What the
engine's own log holds is only what went wrong before the log could be opened: the pulse's note tells it.

Exit codes are the engine's: 0 well, 1…127 the task's own, 128 + n ended by signal n (a process says -n).
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from requests.exceptions import ConnectionError as EngineConnectionError
from requests.exceptions import Timeout as EngineTimeout

from contracts.errors import Taken, Unavailable
from contracts.job_folder import JobFolder
from contracts.plain import is_plain
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.launchers import Pulse, Task, Usage
from docker_sdk_api.launchers.alike import common_environment, log_lines
from docker_sdk_api.launchers.container_gpus import ContainerGpus
from docker_sdk_api.launchers.host_paths import host_paths, own_mounts

JOB = "maskwright.job"
INSTALLATION = "maskwright.checkpoints"
SHARED_MEMORY = "2g"  # PyTorch's and MXNet's workers pass pictures through /dev/shm; the engine's 64 MB end in a bus error
PROCESSES = 4096
ASKED_AT = 5253
"""The port inside a container at which a task is asked over HTTP."""
_INTO_LOG = 'exec "$@" >>"$0" 2>&1'  # the shell replaces itself: signals and exit code are the task's
_NEVER = "0001-01-01T00:00:00Z"  # the engine's way to say that a container has not ended


IMAGES = {
    "pytorch": "pytorch_semantic_segmentation_training_api",
    "gluon": "gluoncv_semantic_segmentation_training_api",
    "majority": "pytorch_semantic_segmentation_training_api",  # it needs numpy alone: the image that is always there
}


def training_images(arch: str) -> dict[str, str]:
    """The image of every engine. `arch` is how they were built: cpu, cpu_mkl, gpu or gpu_mkl.

    With or without MKL is a question to MXNet alone: PyTorch's own builds always have it.
    """
    return {engine: f"{name}_{arch if engine == 'gluon' else arch.removesuffix('_mkl')}" for engine, name in IMAGES.items()}


def create_container_launcher(checkpoints: Path, arch: str) -> "ContainerLauncher":
    """The launcher as docker_sdk_api uses it: this machine's engine, the project's images."""
    return ContainerLauncher(checkpoints, training_images(arch), arch=arch)


def _arch(image: str) -> str:
    """Which build file makes an image."""
    return next((arch for arch in ("gpu_mkl", "gpu", "cpu_mkl") if image.endswith(f"_{arch}")), "cpu")


def _not_built(image: str) -> Unavailable:
    return Unavailable(f"The image {image} is not on this machine.", f"Build it: docker-compose -f build/build_{_arch(image)}.yml build")


def container_name(job_id: str) -> str:
    return f"maskwright-{job_id}"


def container_request(task: Task, image: str, host_path: Callable[[Path], Path], user: str) -> dict[str, Any]:
    """What the engine is asked for: the keyword arguments of docker's `containers.create`.

    `host_path` says what a path is called on the engine's host; `user` ("uid:gid") will own what the task writes.
    """
    mounts = [*((folder, False) for folder in (task.folder, *task.writable)), *((folder, True) for folder in task.read_only)]
    files = JobFolder(task.folder)
    # What was asked decides what a resume mounts; an old client's job writes job.json itself, and is held to asked.json.
    not_its_own = [*([files.job_file] if task.port is None else []), files.asked_file, files.task_file, files.pulse_file]
    mounts += [(file, True) for file in not_its_own if is_plain(file)]
    request: dict[str, Any] = {
        "image": image,
        "entrypoint": ["/bin/sh", "-c", _INTO_LOG, str(JobFolder(task.folder).log_file)],
        "command": ["python", *task.arguments],
        "name": container_name(task.job_id),
        "labels": {JOB: task.job_id, INSTALLATION: str(host_path(task.folder).parent)},
        "mounts": [
            {"Type": "bind", "Source": str(host_path(folder)), "Target": str(folder), "ReadOnly": read_only} for folder, read_only in mounts
        ],
        "environment": {**_environment(task), **task.environment},
        "working_dir": str(task.folder),
        "user": user,
        "init": True,  # reaps and passes signals on: a program that is number 1 itself ignores SIGTERM
        "network_mode": "bridge" if task.network or task.port is not None else "none",  # without a network, nothing can be published
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": PROCESSES,
        "shm_size": SHARED_MEMORY,
        "log_config": {"type": "json-file", "config": {"max-size": "1m", "max-file": "1"}},  # all but the shell's own words is in train.log
    }
    if task.port is not None:
        request["ports"] = {f"{ASKED_AT}/tcp": ("127.0.0.1", task.port)}
        request["environment"]["LISTEN"] = f"0.0.0.0:{ASKED_AT}"
    if task.gpus:
        request["device_requests"] = [{"Driver": "nvidia", "DeviceIDs": [str(gpu) for gpu in task.gpus], "Capabilities": [["gpu"]]}]
    if task.limits.memory_bytes is not None:
        request |= {"mem_limit": task.limits.memory_bytes, "memswap_limit": task.limits.memory_bytes}
    if task.limits.cpus is not None:
        request["nano_cpus"] = int(task.limits.cpus * 1e9)
    return request


def _environment(task: Task) -> dict[str, str]:
    # The user has no entry in the image's /etc/passwd, hence no home to keep caches in.
    settings = {"HOME": "/tmp", **common_environment(task)}
    if not task.gpus:  # engines set up for GPUs may hand out all of them unasked
        settings |= {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
    return settings


class ContainerLauncher:
    """Tasks as containers. `images` names the image of every runtime; a task's folder is `checkpoints`/<job id>.

    `connect` gives the engine's client; it is called when the engine is first needed, and may fail until then.
    """

    def __init__(
        self, checkpoints: Path, images: dict[str, str], connect: Callable[[], "docker.DockerClient"] = docker.from_env, arch: str = "cpu"
    ) -> None:
        self.checkpoints = checkpoints.absolute()
        self.images = images
        self._connect = connect
        self._gpus = ContainerGpus(arch)
        self._client: docker.DockerClient | None = None
        self._host_path: Callable[[Path], Path] | None = None

    def require(self, runtime: str) -> None:
        image = self._image(runtime)
        with _engine():
            try:
                self.client.images.get(image)
            except ImageNotFound:
                raise _not_built(image) from None

    def launch(self, task: Task) -> None:
        if task.folder.absolute() != self.checkpoints / task.job_id:
            raise ValueError(f"the folder of task {task.job_id} must be {self.checkpoints / task.job_id}, not {task.folder}")
        image = self._image(task.runtime)
        with _engine():
            request = container_request(task, image, self.host_path, f"{os.getuid()}:{os.getgid()}")
            former = self._find(task.job_id)
            if former is not None and former.status in ("exited", "dead", "created"):
                _remove(former)
            self._start(self._create(request))

    def _image(self, runtime: str) -> str:
        if runtime not in self.images:
            raise Unavailable(f"No image is known for the engine {runtime}.", "Choose another engine.")
        return self.images[runtime]

    def _create(self, request: dict[str, Any]) -> Container:
        try:
            return self.client.containers.create(**request)
        except ImageNotFound:
            raise _not_built(request["image"]) from None
        except APIError as error:
            if error.status_code != 409:
                raise
            raise Taken(
                f"There is a container named {request['name']} already, of this or of another installation.",
                f"Give the job another name, or remove that container: docker rm {request['name']}",
            ) from None

    def _start(self, container: Container) -> None:
        try:
            container.start()
        except (EngineConnectionError, EngineTimeout):  # it may run all the same, or in a moment
            container.remove(force=True)
            raise
        except APIError as error:
            container.remove(force=True)
            if "port is already allocated" in str(error.explanation):
                raise Taken("That port is used by another program.", "Choose another port.") from None
            raise

    def poll(self, job_id: str) -> Pulse:
        with _engine():
            container = self._find(job_id)
            if container is None:
                return Pulse(alive=False)
            pulse = read_pulse(container.attrs["State"])
            said = _own_words(container) if pulse.exit_code else ""
        return replace(pulse, note=f"Its container could not start it: {said}") if said else pulse

    def stop(self, job_id: str, grace: float) -> None:
        """Returns when the task has ended."""
        with _engine():
            container = self._find(job_id)
            if container is not None:
                with suppress(NotFound):
                    container.stop(timeout=math.ceil(grace))

    def remove(self, job_id: str) -> None:
        with _engine():
            container = self._find(job_id)
            if container is None:
                return
            if read_pulse(container.attrs["State"]).alive:
                raise Taken(f"The task {job_id} still runs.", "Stop it before removing it.")
            _remove(container)

    def logs(self, job_id: str) -> Iterator[str]:
        yield from log_lines(JobFolder(self.checkpoints / job_id))
        with _engine():
            container = self._find(job_id)
            if container is not None:
                yield from _printed(container)

    def usage(self, job_id: str) -> Usage | None:
        """As the engine counts it; files that the kernel keeps in memory for the task, and may drop, are left out."""
        with _engine():
            container = self._find(job_id)
            if container is None or container.status != "running":
                return None
            return read_usage(container.stats(stream=False, one_shot=True))

    def used_ports(self) -> set[int]:
        """Those that containers publish; a service in a container sees no other ones of its host."""
        with _engine():
            bindings = [container.ports.values() for container in self.client.containers.list(ignore_removed=True)]
        return {int(found["HostPort"]) for ports in bindings for published in ports for found in published or []}

    def gpus(self) -> Gpus:
        with _engine():
            return self._gpus.look(self.client, lambda: {str(container.id) for container in self._ours(JOB)})

    def nodes(self) -> int:
        return 1

    def running(self) -> set[str]:
        with _engine():
            return {container.labels[JOB] for container in self._ours(JOB)}

    def held(self) -> set[str]:
        with _engine():
            return {container.labels[JOB] for container in self._ours(JOB, status=["exited", "dead"])}

    @property
    def client(self) -> "docker.DockerClient":
        if self._client is None:
            self._client = self._connect()
        return self._client

    @property
    def host_path(self) -> Callable[[Path], Path]:
        if self._host_path is None:
            self._host_path = host_paths(own_mounts(self.client))
        return self._host_path

    def _find(self, job_id: str) -> Container | None:
        found = self._ours(f"{JOB}={job_id}", all=True)
        return found[0] if found else None

    def _ours(self, label: str, *, all: bool = False, **filters: list[str]) -> list[Container]:
        """Those that run, or of which a filter tells something else, or all."""
        labels = [label, f"{INSTALLATION}={self.host_path(self.checkpoints)}"]
        found: list[Container] = self.client.containers.list(all=all, ignore_removed=True, filters={"label": labels, **filters})
        return found


def _remove(container: Container) -> None:
    """One that another program removes, or has removed, is no error."""
    try:
        container.remove()
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409 or "in progress" not in str(error.explanation):
            raise


def _own_words(container: Container) -> str:
    """The last line that its shell printed, which only prints where it cannot start the task; empty where there is none."""
    lines = _printed(container, tail=1)
    return lines[-1] if lines else ""


def _printed(container: Container, **part: int) -> list[str]:
    """The lines in the engine's own log. Of a container that another program has removed meanwhile there are none."""
    try:
        lines: list[str] = container.logs(**part).decode(errors="replace").strip().splitlines()
    except NotFound:
        return []
    return lines


def read_pulse(state: dict[str, Any]) -> Pulse:
    """How a container is, from the `State` that the engine reports. One that was never started has no exit code."""
    if state["Running"] or state.get("Paused") or state.get("Restarting"):
        return Pulse(alive=True)
    if state["FinishedAt"] == _NEVER:
        return Pulse(alive=False)
    exit_code = int(state["ExitCode"])
    return Pulse(alive=False, exit_code=exit_code, out_of_memory=bool(state["OOMKilled"]) and exit_code != 0)


def read_usage(stats: dict[str, Any]) -> Usage | None:
    """What a container takes, from the engine's statistics; they are empty where it ended this moment."""
    memory, used = stats.get("memory_stats", {}), stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)
    if "usage" not in memory:
        return None
    return Usage(cpu_seconds=used / 1e9, memory_bytes=memory["usage"] - memory.get("stats", {}).get("inactive_file", 0))


@contextmanager
def _engine() -> Iterator[None]:
    """Say what can be done where the engine does not answer or refuses."""
    try:
        yield
    except APIError as error:
        raise Unavailable(
            f"The Docker engine refused: {str(error.explanation or error).rstrip('.')}.",
            "Look at the engine's own log, or run without Docker: run/local.sh.",
        ) from error
    except (DockerException, EngineConnectionError, EngineTimeout) as error:
        raise Unavailable(
            f"The Docker engine does not answer ({error}).",
            "Start it (systemctl start docker), see that this user may use its socket, or run without Docker: run/local.sh.",
        ) from error
