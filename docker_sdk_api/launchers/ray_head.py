"""Asks the head of a Ray cluster over HTTP: its Jobs API, and what its nodes have. Ray itself need not be installed here."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import requests

from contracts.errors import Unavailable

PATIENCE = (4.0, 20.0)
"""Seconds in which the head's machine has to be reached, and the head to answer."""
SILENCE = 2.0
"""Seconds after which a head that did not answer is asked again: a page asks about many jobs, and is not to wait for each."""
SECONDS_BETWEEN_LOOKS = 2.0
"""At the nodes: a list of jobs asks for each of them."""
ONE_BY_ONE = 8
"""Questions in a second for single jobs, above which all are asked for at once: the head remembers ended ones too, for long."""
SHARE = 0.05
"""Of the head's time, what such lists may take: they become slower with every job that it has run."""
ADDRESS = "RAY_ADDRESS has to name its dashboard, such as http://10.0.0.1:8265."
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
        self._looking = threading.Lock()
        self._nodes: tuple[float, list[Node]] = (0.0, [])
        self._asked: deque[float] = deque(maxlen=ONE_BY_ONE)
        self._listed: dict[str, dict[str, Any]] = {}
        self._listed_until = 0.0
        self._silent: tuple[float, Unavailable | None] = (0.0, None)

    def submit(self, request: dict[str, Any]) -> None:
        """A job, as the body of `POST /api/jobs/` describes it. Raises Unavailable."""
        self._ask("POST", "/api/jobs/", json=request)
        self._listed[request["submission_id"]] = {**request, "status": "PENDING"}

    def job(self, submission: str, now: bool = False) -> dict[str, Any] | None:
        """What Ray knows of a submission, None where it knows none; as of some seconds ago where many are asked about, unless it
        matters how it is `now`."""
        found = None if now else self._recent().get(submission)
        return found or self._ask("GET", f"/api/jobs/{submission}")

    def _recent(self) -> dict[str, dict[str, Any]]:
        """All submissions, where many are asked about."""
        at = time.monotonic()
        many = len(self._asked) == ONE_BY_ONE and at - self._asked[0] < 1
        self._asked.append(at)
        if many and at > self._listed_until and self._looking.acquire(blocking=False):
            try:
                self._listed = {job["submission_id"]: job for job in self.jobs()}
                took = time.monotonic() - at
                self._listed_until = at + took + max(1.0, took / SHARE)
            finally:
                self._looking.release()
        return self._listed if at <= self._listed_until else {}

    def jobs(self) -> list[dict[str, Any]]:
        """All submissions that Ray remembers."""
        return [job for job in self._ask("GET", "/api/jobs/") or [] if job.get("submission_id")]

    def stop(self, submission: str) -> None:
        self._ask("POST", f"/api/jobs/{submission}/stop")

    def logs(self, submission: str) -> str:
        """What the submission printed before its task began."""
        return (self._ask("GET", f"/api/jobs/{submission}/logs") or {}).get("logs", "")

    def nodes(self, now: bool = False) -> list[Node]:
        """Every node, dead ones too; as of some seconds ago, unless it matters how they are `now`."""
        at, found = self._nodes
        if now or time.monotonic() - at > SECONDS_BETWEEN_LOOKS or not at:
            answer = self._ask("GET", "/api/v0/nodes?detail=true&limit=10000")
            try:
                found = [_node(row) for row in answer["data"]["result"]["result"]]
            except (TypeError, KeyError) as error:
                raise self._is_no_head() from error
            self._nodes = (time.monotonic(), found)
        return found

    def devices(self) -> dict[str, list[dict[str, Any]]]:
        """What every node's agent measures of its GPUs, by the node's id: `name`, and in MB `memoryTotal` and `memoryUsed`."""
        rows = self._ask("GET", "/nodes?view=summary")["data"]["summary"]
        return {row["raylet"]["nodeId"]: row.get("gpus") or [] for row in rows if "nodeId" in row.get("raylet", {})}

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer's JSON; None where there is no such thing. Raises Unavailable."""
        until, problem = self._silent
        if problem is not None and time.monotonic() < until:
            raise Unavailable(problem.cause, problem.cure)
        try:
            answer = self._session.request(method, self.address + path, timeout=PATIENCE, **more)
        except requests.RequestException as error:
            problem = Unavailable(
                f"Ray does not answer at {self.address} ({type(error).__name__}).",
                f"See that its head runs (run/cluster.sh head). {ADDRESS}",
            )
            self._silent = (time.monotonic() + SILENCE, problem)
            raise problem from error
        if answer.status_code == 404:
            return None
        if not answer.ok:
            said = answer.text.strip().splitlines()[-1:] or [answer.reason]
            raise Unavailable(f"Ray refused: {said[0][:300].rstrip('.')}.", "Its dashboard and the logs of its head say more.")
        try:
            return answer.json()
        except requests.JSONDecodeError as error:
            raise self._is_no_head() from error

    def _is_no_head(self) -> Unavailable:
        return Unavailable(f"What answers at {self.address} is not a head of Ray.", ADDRESS)


def _node(row: dict[str, Any]) -> Node:
    offers = row.get("resources_total") or {}
    kind = next((name.partition(":")[2] for name in offers if name.startswith("accelerator_type:")), "")
    alive, memory = row["state"] == "ALIVE", float(offers.get("memory", 0))
    return Node(row["node_id"], row["node_ip"], alive, float(offers.get("CPU", 0)), int(offers.get("GPU", 0)), memory, kind)
