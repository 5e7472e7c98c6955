"""One job over several nodes of a Ray cluster: a placement group finds the nodes, and on each of them on_node.py stands by one part.

`python -I over_nodes.py JOB_FOLDER SUBMISSION NODES CPUS GPUS`, on the head, with Ray's Python. Every part is the same
`python -m training_api FOLDER`, which torchrun's arguments (TORCHRUN, docs/parallel.md) make one process group. Where a part is lost,
the others are ended, and pulse.json says so: the job may go on on other nodes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ray  # type: ignore[import-not-found,import-untyped,unused-ignore]
from ray.util.placement_group import placement_group, remove_placement_group  # type: ignore[import-not-found,import-untyped,unused-ignore]
from ray.util.scheduling_strategies import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    PlacementGroupSchedulingStrategy,
)

ON_NODE = str(Path(__file__).with_name("on_node.py"))
LOOK = 1.0
PATIENCE = 20.0
"""Seconds in which Ray ends what was cancelled."""


def main() -> int:
    folder, submission = sys.argv[1:3]
    nodes, cpus, gpus = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    signal.signal(signal.SIGTERM, lambda *_: None)  # the parts read in task.json that they are to stop, and this waits for them
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="warning")
    group = placement_group([{"CPU": cpus, **({"GPU": gpus} if gpus else {})}] * nodes, strategy="STRICT_SPREAD")
    while not ray.wait([group.ready()], timeout=LOOK)[0]:
        if not wanted(folder, submission):
            return 0
    try:
        return learn(folder, submission, group, nodes, cpus, gpus)
    finally:
        remove_placement_group(group)


def wanted(folder: str, submission: str) -> bool:
    """Whether the job still waits for this submission."""
    try:
        told = json.loads((Path(folder) / "task.json").read_bytes())
    except FileNotFoundError:
        return False
    return bool(told["submission"] == submission) and "grace" not in told


def learn(folder: str, submission: str, group: Any, nodes: int, cpus: float, gpus: int) -> int:
    """Run all parts to their end: the first one's exit code."""

    def on(place: int) -> Any:
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)

    first = {"num_cpus": 0, "max_retries": 0}  # what a part takes is set aside by its bundle already
    address, port, network = ray.get(ray.remote(meeting_place).options(**first, scheduling_strategy=on(0)).remote())
    torchrun = f"--nnodes={nodes} --rdzv-endpoint={address}:{port}"
    takes = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
    remote = ray.remote(run_part)
    parts = {
        remote.options(**takes, scheduling_strategy=on(rank)).remote(folder, submission, rank, f"{torchrun} --node-rank={rank}", network)
        for rank in range(nodes)
    }
    codes: dict[int, int] = {}
    while parts:
        ended, _ = ray.wait(list(parts), timeout=LOOK)
        for one in ended:
            parts.discard(one)
            try:
                rank, code = ray.get(one)
            except ray.exceptions.RayError as error:
                for part in parts:  # each is ended with the process that stands by it, and writes nothing any more
                    ray.cancel(part, force=True)
                ray.wait(list(parts), num_returns=len(parts), timeout=PATIENCE) if parts else None
                return lose(folder, submission, error)
            codes[rank] = code
    return codes[0]


def meeting_place() -> tuple[str, int, bool]:
    """Where the parts find one another: the first node's address and a free port; whether that address is this machine's loopback."""
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1], address.startswith("127.")


def run_part(folder: str, submission: str, rank: int, torchrun: str, loopback: bool) -> tuple[int, int]:
    """On a node: stand by its part of the job. Its rank and exit code."""
    address = ray.util.get_node_ip_address()
    told = {"TORCHRUN": f"{torchrun} --local-addr={address}", "MASKWRIGHT_NODE": str(rank), "MASKWRIGHT_ADDRESS": address}
    environment = {**os.environ, **told}
    if loopback:
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return rank, subprocess.run([sys.executable, "-I", ON_NODE, folder, submission], env=environment, check=False).returncode


def lose(folder: str, submission: str, error: Exception) -> int:
    """A part is gone with its node or its worker: write that down as the job's end, for the launcher to read."""
    if wanted(folder, submission):
        note = f"One of the nodes on which it ran was lost ({type(error).__name__})."
        end = {"submission": submission, "node": "", "exit_code": None, "lost": note, "at": time.time()}
        aside = Path(folder) / f".pulse.json.{os.getpid()}"
        aside.write_text(json.dumps(end))
        aside.replace(Path(folder) / "pulse.json")
    return 1


if __name__ == "__main__":
    sys.exit(main())
