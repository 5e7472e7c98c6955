"""Which folder of the host a path means, when this process itself may run in a container.

The engine mounts folders of its host, whoever asks. A docker_sdk_api in a container knows its folders under the paths at which
they were mounted into it, and must name them to the engine as the host does; it reads its own mounts from the engine.
"""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from contracts.errors import Invalid

MARKERS = (Path("/.dockerenv"), Path("/run/.containerenv"))  # left by Docker and by Podman in every container
_CONTAINER_ID = re.compile(r"containers/([0-9a-f]{64})/")


def own_mounts(client: "docker.DockerClient", mountinfo: Path = Path("/proc/self/mountinfo")) -> dict[Path, Path] | None:
    """Where each folder mounted into this container lies on the engine's host. None: this is no container of that engine."""
    container = own_container(client, mountinfo)
    return None if container is None else read_mounts(container.attrs)


def own_container(client: "docker.DockerClient", mountinfo: Path = Path("/proc/self/mountinfo")) -> Container | None:
    """The container that this process runs in. None: it is no container of that engine."""
    if not any(marker.exists() for marker in MARKERS):
        return None
    # The engine mounts /etc/hostname from a folder named after the container; the host name can be set to anything.
    found = _CONTAINER_ID.search(mountinfo.read_text())
    try:
        return client.containers.get(found.group(1) if found else socket.gethostname())
    except NotFound:
        return None


def read_mounts(inspected: dict[str, Any]) -> dict[Path, Path]:
    """The folders of the host that an inspected container sees, by their place in the container."""
    return {Path(mount["Destination"]): Path(mount["Source"]) for mount in inspected["Mounts"] if mount.get("Source")}


def host_paths(mounts: dict[Path, Path] | None) -> Callable[[Path], Path]:
    """A function from this process's paths to the host's. Of nested mounts the innermost one counts.

    It raises Invalid for a path that is in none of the mounts: the host does not have it.
    """

    def host_path(path: Path) -> Path:
        if mounts is None:
            return path.absolute()
        for place in (path, *path.parents):
            if place in mounts:
                return mounts[place] / path.relative_to(place)
        raise Invalid(
            f"The folder {path} exists only inside this container, so no training container can see it.",
            "Add it to the volumes of docker_sdk_api in the compose file.",
        )

    return host_path
