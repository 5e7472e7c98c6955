"""What only Ray knows of a job, in words: for what it waits, and why it is gone."""

import signal
from typing import Any

from docker_sdk_api.launchers import Pulse
from docker_sdk_api.launchers.ray_head import Node

MEMORY = ("out-of-memory", "out of memory", "oom", "memory pressure")
DIED = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "JOB_SUPERVISOR_ACTOR_START_FAILURE")
LATE = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


def waits_for(asked: dict[str, float], nodes: list[Node], count: int = 1) -> str:
    """For what a job waits that Ray has not placed yet, on so many nodes; where there never were as many, that it waits for them.
    `asked`: of each node."""
    cpus, gpus = asked.get("entrypoint_num_cpus", 0), asked.get("entrypoint_num_gpus", 0)
    memory = asked.get("entrypoint_memory", 0)
    wants = _and([_count(gpus, "GPU"), _count(cpus, "processor"), f"{memory / 1e9:.1f} GB of memory" if memory else ""])
    living = [node for node in nodes if node.alive]
    if not wants:
        return "waiting for Ray to start it"
    able = sum(node.cpus >= cpus and node.gpus >= gpus and node.memory >= memory for node in living)
    if count > 1 and able < count:
        return f"waiting for {count} nodes with {wants} each: {able or 'none'} of the {len(living)} that live {_have(able)} so much"
    if count > 1:
        return f"waiting until {count} of {len(living)} nodes have {wants} free at the same time"
    if not able:
        return f"waiting for a node with {wants}: none of the {len(living)} that live has so much"
    return f"waiting until {'the one node' if len(living) == 1 else f'one of {len(living)} nodes'} has {wants} free"


def end_of(job: dict[str, Any], nodes: list[Node]) -> Pulse:
    """How a job ended of which its node left no word."""
    if job["status"] == "SUCCEEDED":
        return Pulse(alive=False, exit_code=0)
    if job["status"] == "STOPPED":  # before its node could read that it is to stop
        return Pulse(alive=False, exit_code=-signal.SIGTERM)
    said, kind = (job.get("message") or "").casefold(), job.get("error_type") or ""
    if job.get("driver_exit_code") is not None:
        note = "Its node could not start it: Ray's own Python or Maskwright is not there under the paths of this machine."
        return Pulse(alive=False, exit_code=job["driver_exit_code"], note=note)
    if kind == LATE:
        note = "Ray gave up waiting for room for it (RAY_JOB_START_TIMEOUT_SECONDS of Ray's head, which run/cluster.sh sets)."
        return Pulse(alive=False, note=note, lost=True)
    if kind not in DIED:
        return Pulse(alive=False)
    node = next((node for node in nodes if node.id == job.get("driver_node_id")), None)
    where = f"The node {node.address}" if node else "A node"
    if node is not None and node.alive and any(words in said for words in MEMORY):
        return Pulse(alive=False, out_of_memory=True, note=f"{where} ran out of memory, and Ray ended the training to save the node.")
    if node is not None and node.alive:
        return Pulse(alive=False, note=f"{where} put the training out: Ray's process that stood by it has ended.", lost=True)
    return Pulse(alive=False, note=f"{where} on which it ran was lost.", lost=True)


def _have(number: int) -> str:
    return "have" if number > 1 else "has"


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}" if number else ""


def _and(parts: list[str]) -> str:
    found = [part for part in parts if part]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
