"""The GPUs that a Docker engine can give to containers: asked for in a container that is given all of them, and gone a second later.

So docker_sdk_api needs no GPU itself, and a machine without NVIDIA's container toolkit starts all the same: on the CPU, with the reason.
"""

import time
from collections.abc import Callable
from typing import Any

import docker
from docker.errors import APIError, ContainerError
from requests.exceptions import ConnectionError, Timeout

from docker_sdk_api.gpus import Gpus, read_gpus, read_printed
from docker_sdk_api.launchers.host_paths import own_container

SECONDS_TO_LOOK = 60
SECONDS_KEPT = 20.0
"""How old what is known of the GPUs may be: a container for each look at a page would be a waste. It is looked at again once a task has
ended that ran at the last look: what that one held of a GPU would be taken for another program's."""
NO_TOOLKIT = (
    "The Docker engine cannot give GPUs to containers: NVIDIA's driver or its container toolkit is missing. Jobs run on the CPU. "
    "./setup_solution_parameters.sh --arch gpu says which, and the command that installs it."
)


def gpu_request(image: str) -> dict[str, Any]:
    """What the engine is asked for: the keyword arguments of docker's `containers.create`. It may look at all GPUs, and at nothing else."""
    return {
        "image": image,
        "entrypoint": ["python", "-m", "docker_sdk_api.gpus"],
        "command": [],
        "device_requests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu", "utility"]]}],
        "network_mode": "none",
        "user": "65534:65534",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
    }


class ContainerGpus:
    """What was found last, for a while. `images_arch`: how the training images were built."""

    def __init__(self, images_arch: str) -> None:
        self.images_arch = images_arch
        self._at = 0.0
        self._known = Gpus([])
        self._ran: set[str] = set()

    def look(self, client: "docker.DockerClient", running: Callable[[], set[str]]) -> Gpus:
        """`running`: the ids of all tasks that run now."""
        if not self.images_arch.startswith("gpu"):
            cure = "./setup_solution_parameters.sh --arch gpu says what a machine with one needs."
            return Gpus([], f"The training images in use were built for the CPU. {cure}")
        present = running()
        if not self._at or time.monotonic() - self._at > SECONDS_KEPT or self._ran - present:
            self._known = ask_gpus(client)
            self._at, self._ran = time.monotonic(), present
        return self._known


def ask_gpus(client: "docker.DockerClient") -> Gpus:
    """Outside containers the driver is asked right away."""
    here = own_container(client)
    if here is None:
        return read_gpus()
    try:
        printed = printed_by(client, gpu_request(here.image.id))
        return read_printed(printed.decode())
    except (APIError, ContainerError) as error:
        return Gpus([], _said(str(getattr(error, "explanation", None) or error)))
    except (TimeoutError, ValueError) as error:  # the latter: it printed something else
        return Gpus([], f"NVIDIA's driver could not be asked ({error}): see nvidia-smi. Jobs run on the CPU.")


def printed_by(client: "docker.DockerClient", request: dict[str, Any]) -> bytes:
    """What a container prints that ends by itself and is then removed, also where the engine refuses to start it.

    Raises APIError, ContainerError where its exit code is not 0, or TimeoutError.
    """
    container = client.containers.create(**request)
    try:
        container.start()
        code = _exit_code(container)
        if code:
            raise ContainerError(container, code, request["entrypoint"], request["image"], container.logs(stdout=False, stderr=True))
        printed: bytes = container.logs(stdout=True, stderr=False)
        return printed
    finally:
        container.remove(force=True)


def _exit_code(container: Any) -> int:
    try:
        return int(container.wait(timeout=SECONDS_TO_LOOK)["StatusCode"])
    except (Timeout, ConnectionError) as error:  # which of them it is depends on docker's version
        raise TimeoutError(f"no answer within {SECONDS_TO_LOOK} s") from error


def _said(refusal: str) -> str:
    if "nvidia" in refusal.casefold():  # could not select device driver "nvidia", nvidia-container-cli: initialization error, …
        return NO_TOOLKIT
    return f"The Docker engine gave no GPU to a container ({refusal.rstrip('.')}). Jobs run on the CPU."
