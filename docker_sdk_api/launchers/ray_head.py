"""Asks the head of a Ray cluster over HTTP: its Jobs API, and what its nodes have. Ray itself need not be installed here."""

import time
from dataclasses import dataclass
from typing import Any

import requests

from contracts.errors import Unavailable

PATIENCE = 20.0
"""Seconds that the head has to answer."""
SECONDS_BETWEEN_LOOKS = 2.0
"""At the nodes: a list of jobs asks for each of them."""
ONE_BY_ONE = 8
"""Questions in a second for single jobs, above which all are asked for at once: the head remembers ended ones too, for long."""
ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster and what it offers in all; memory in bytes."""

    id: str
    address: str
    alive: bool
    cpus: float
    gpus: int
    memory: float
    gpu_kind: str = ""


class Head:
    """The head at an address such as http://10.0.0.1:8265."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a cluster is on one's own network
        self._nodes: tuple[float, list[Node]] = (0.0, [])
        self._asked: list[float] = []
        self._listed: tuple[float, dict[str, dict[str, Any]]] = (0.0, {})

    def submit(self, request: dict[str, Any]) -> None:
        """A job, as the body of `POST /api/jobs/` describes it. Raises Unavailable."""
        self._ask("POST", "/api/jobs/", json=request)

    def job(self, submission: str) -> dict[str, Any] | None:
        """What Ray knows of a submission, as of a second ago where many are asked about; None where it knows none."""
        now = time.monotonic()
        if submission not in self._listed[1] or now - self._listed[0] > 1:
            self._asked = [*(at for at in self._asked if now - at < 1), now]
            if len(self._asked) > ONE_BY_ONE:
                self._listed = (now, {job["submission_id"]: job for job in self.jobs()})
            else:
                self._listed = (0.0, {})
        found: dict[str, Any] | None = self._listed[1].get(submission) or self._ask("GET", f"/api/jobs/{submission}")
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """All submissions that Ray remembers."""
        return [job for job in self._ask("GET", "/api/jobs/") or [] if job.get("submission_id")]

    def stop(self, submission: str) -> None:
        self._ask("POST", f"/api/jobs/{submission}/stop")

    def delete(self, submission: str) -> None:
        self._ask("DELETE", f"/api/jobs/{submission}")

    def logs(self, submission: str) -> str:
        """What the submission printed before its task began."""
        return (self._ask("GET", f"/api/jobs/{submission}/logs") or {}).get("logs", "")

    def nodes(self, now: bool = False) -> list[Node]:
        """Every node, dead ones too; as of some seconds ago, unless it matters how they are `now`."""
        at, found = self._nodes
        if now or time.monotonic() - at > SECONDS_BETWEEN_LOOKS or not at:
            answer = self._ask("GET", "/api/v0/nodes?detail=true&limit=10000")
            found = [_node(row) for row in answer["data"]["result"]["result"]]
            self._nodes = (time.monotonic(), found)
        return found

    def devices(self) -> dict[str, list[dict[str, Any]]]:
        """What every node's agent measures of its GPUs, by the node's id: `name`, and in MB `memoryTotal` and `memoryUsed`."""
        rows = self._ask("GET", "/nodes?view=summary")["data"]["summary"]
        return {row["raylet"]["nodeId"]: row.get("gpus") or [] for row in rows if "nodeId" in row.get("raylet", {})}

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer's JSON; None where there is no such thing. Raises Unavailable."""
        try:
            answer = self._session.request(method, self.address + path, timeout=PATIENCE, **more)
        except requests.RequestException as error:
            raise Unavailable(
                f"Ray does not answer at {self.address} ({type(error).__name__}).",
                "See that its head runs (run/cluster.sh head) and that RAY_ADDRESS names its dashboard, such as http://10.0.0.1:8265.",
            ) from error
        if answer.status_code == 404:
            return None
        if not answer.ok:
            said = answer.text.strip().splitlines()[-1:] or [answer.reason]
            raise Unavailable(f"Ray refused: {said[0][:300].rstrip('.')}.", "Its dashboard and the logs of its head say more.")
        return answer.json()


def _node(row: dict[str, Any]) -> Node:
    offers = row.get("resources_total") or {}
    kind = next((name.partition(":")[2] for name in offers if name.startswith("accelerator_type:")), "")
    alive, memory = row["state"] == "ALIVE", float(offers.get("memory", 0))
    return Node(row["node_id"], row["node_ip"], alive, float(offers.get("CPU", 0)), int(offers.get("GPU", 0)), memory, kind)
