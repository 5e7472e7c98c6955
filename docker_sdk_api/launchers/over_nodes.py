"""One job over several nodes of a Ray cluster: a placement group finds the nodes, and on each of them on_node.py stands by one part.

`python -I over_nodes.py JOB_FOLDER SUBMISSION NODES CPUS GPUS`, on the head, with Ray's Python. Every part is the same
`python -m training_api FOLDER`, which torchrun's arguments (TORCHRUN, docs/parallel.md) make one process group. No part says how the
job ended: one whose neighbour's node is gone only sees that it does not answer. Each leaves its end (pulse-N.json) and its last words
(words-N.json) in the folder, and this writes down what they come to: that a node was lost, and the job may go on on others, or why it
failed.
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
NOTICED = 60.0
"""Seconds in which Ray notices that a node is gone, or the others end by themselves, once one part has failed."""
WORDS = "MASKWRIGHT_WORDS"
"""The environment variable with the file into which a part writes why it fails (training_api/__main__.py)."""


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
    except ray.exceptions.RayError as error:
        return lose(folder, submission, error)
    finally:
        remove_placement_group(group)


def wanted(folder: str, submission: str) -> bool:
    """Whether the job still waits for this submission."""
    told = order(folder)
    return told.get("submission") == submission and "grace" not in told


def order(folder: str) -> dict[str, Any]:
    """What task.json says, empty where there is none."""
    try:
        told: dict[str, Any] = json.loads((Path(folder) / "task.json").read_bytes())
    except FileNotFoundError:
        return {}
    return told


def learn(folder: str, submission: str, group: Any, nodes: int, cpus: float, gpus: int) -> int:
    """Run all parts to their end: the exit code. Raises RayError where one is lost."""
    for rank in range(nodes):  # of an earlier submission
        words_of(folder, rank).unlink(missing_ok=True)
        (Path(folder) / f"pulse-{rank}.json").unlink(missing_ok=True)

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
    until = float("inf")
    try:
        while parts and time.monotonic() < until:
            for one in ray.wait(list(parts), timeout=LOOK)[0]:
                parts.discard(one)
                rank, code = ray.get(one)
                codes[rank] = code
                if code:
                    until = min(until, time.monotonic() + NOTICED)
    finally:
        end_all(parts)
    return tell(folder, submission, codes)


def end_all(parts: set[Any]) -> None:
    """Each is ended with the process that stands by it, and writes nothing any more."""
    for part in parts:
        ray.cancel(part, force=True)
    if parts:
        ray.wait(list(parts), num_returns=len(parts), timeout=PATIENCE)


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
    environment = {**os.environ, **told, WORDS: str(words_of(folder, rank))}
    if loopback:
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return rank, subprocess.run([sys.executable, "-I", ON_NODE, folder, submission], env=environment, check=False).returncode


def words_of(folder: str, rank: int) -> Path:
    return Path(folder) / f"words-{rank}.json"


def lose(folder: str, submission: str, error: Exception) -> int:
    """A part is gone with its node or its worker: write that down as the job's end, for the launcher to read."""
    end: dict[str, Any] = {"submission": submission, "node": "", "exit_code": None, "at": time.time()}
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        end["out_of_memory"] = True
    else:
        end["lost"] = f"One of the nodes on which it ran was lost ({type(error).__name__})."
    if order(folder).get("submission") == submission:
        write(folder, end)
    return 1


def tell(folder: str, submission: str, codes: dict[int, int]) -> int:
    """Write down what all parts' ends come to: the exit code. A part that failed without a word went first, and the others noticed it."""
    failed = {rank for rank, code in codes.items() if code}
    said = {rank: words_of(folder, rank).read_text() for rank in failed if words_of(folder, rank).exists()}
    rank = 0 if codes.get(0) == 0 else min(failed - set(said) or failed)
    if order(folder).get("submission") != submission:
        return codes[rank]
    if rank in said:
        first = min(said.values(), key=lambda words: str(json.loads(words)["at"]))
        with open(Path(folder) / "events.jsonl", "a") as events:
            events.write(first.strip() + "\n")
            events.flush()
            os.fsync(events.fileno())
    end = Path(folder) / f"pulse-{rank}.json"
    write(folder, json.loads(end.read_bytes()) if end.exists() else {"submission": submission, "node": "", "exit_code": codes[rank]})
    return codes[rank]


def write(folder: str, end: dict[str, Any]) -> None:
    aside = Path(folder) / f".pulse.json.{os.getpid()}"
    aside.write_text(json.dumps(end))
    aside.replace(Path(folder) / "pulse.json")


if __name__ == "__main__":
    sys.exit(main())
