"""What Maskwright adds to Ray: ./run/bench.sh cluster [--jobs 200] [--turns 2]

Three Ray nodes on this machine, each a process with an address of its own. In turns, now one first and now the other, so many tiny
jobs are started over docker_sdk_api (LAUNCHER=ray), and as many of the very same commands are submitted to Ray directly; the time
from the first submission until the last has ended is taken. `overhead_vs_bare_ray` is the quotient (aim: at most 1.15), `jobs_lost`
counts jobs of docker_sdk_api that did not finish with a model (aim: 0).
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from machine import report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from contracts.job_folder import JobFolder
from docker_sdk_api.launchers.ray_head import ENDED, Head
from tests.cluster import Cluster, cluster, free_port
from tests.waits import ROOT, wait_for

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
QUICK = {"engine": "majority", "network": "majority", "backbone": "none", "dataset": "plates", "hyperparameters": {"epochs": 2}}
PICTURES = 6
WARM = "warm"
BETWEEN = 0.5
"""Seconds between two looks at all jobs, the same on both sides."""


@contextmanager
def service(ray: Cluster, home: Path) -> Iterator[httpx.Client]:
    """docker_sdk_api over the cluster, as it is started for people."""
    port = free_port()
    folders = {"DATASETS": str(home / "datasets"), "CHECKPOINTS": str(home / "checkpoints")}
    own = {"SDK_PORT": str(port), "LAUNCHER": "ray", "RAY_ADDRESS": ray.address, "TASK_PYTHON": sys.executable, "RAY_CPUS": "1"}
    with open(home / "docker_sdk_api.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "docker_sdk_api"], env={**os.environ, **folders, **own}, cwd=ROOT, stdout=log, stderr=log
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
    try:
        wait_for(lambda: _answers(client), 60)
        yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/v1/health").is_success
    except httpx.TransportError:
        return False


def through_maskwright(client: httpx.Client, names: list[str]) -> float:
    """Seconds from the first request to the last job's end."""
    begun = time.monotonic()
    for name in names:
        answer = client.post("/v1/jobs", json={"name": name, **QUICK})
        if answer.status_code != 201:
            print(f"{name} was refused: {answer.text}", file=sys.stderr)
    left = set(names)
    while left:
        time.sleep(BETWEEN)
        views = client.get("/v1/jobs?brief=true").json()
        left -= {view["job"]["name"] for view in views if view["status"]["state"] in ("finished", "stopped", "failed")}
        left &= {view["job"]["name"] for view in views}
    return time.monotonic() - begun


def through_ray(head: Head, folders: list[JobFolder]) -> float:
    """The same for the jobs' commands alone."""
    begun = time.monotonic()
    for folder in folders:
        command = shlex.join([sys.executable, "-m", "training_api", str(folder.path)])
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        log = shlex.quote(str(folder.log_file))
        request = {"submission_id": folder.name, "entrypoint_num_cpus": 1, "runtime_env": {"env_vars": variables}}
        head.submit({**request, "entrypoint": f"exec {command} >>{log} 2>&1"})
    names = {folder.name for folder in folders}
    while True:
        time.sleep(BETWEEN)
        if all(job["status"] in ENDED for job in head.jobs() if job["submission_id"] in names):
            return time.monotonic() - begun


def copies(home: Path, names: list[str]) -> list[JobFolder]:
    """Fresh folders with the job.json of a job that docker_sdk_api has run."""
    found = []
    for name in names:
        folder = JobFolder(home / "bare" / f"bare-{name}")
        folder.path.mkdir(parents=True)
        shutil.copy(home / "checkpoints" / WARM / "job.json", folder.job_file)
        found.append(folder)
    return found


def bare(ray: Cluster, home: Path, names: list[str]) -> float:
    folders = copies(home, names)
    seconds = through_ray(Head(ray.address), folders)
    if not all(map(finished, folders)):
        sys.exit("A command that was submitted to Ray directly did not finish: there is nothing to compare with.")
    return seconds


def finished(folder: JobFolder) -> bool:
    return (folder.model / "model.json").exists() and folder.events()[-1].event == "finished"


def draw(home: Path) -> None:
    dataset = home / "datasets" / "plates"
    for kind in ("images", "labels"):
        (dataset / kind).mkdir(parents=True)
        for file in sorted((ROOT / "datasets" / "dummy_dataset" / kind).iterdir())[:PICTURES]:
            shutil.copy(file, dataset / kind)
    shutil.copy(ROOT / "datasets" / "dummy_dataset" / "objectclasses.json", dataset)
    (home / "checkpoints").mkdir()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jobs", type=int, default=200, help="on either side, in all turns together")
    arguments.add_argument("--turns", type=int, default=2)
    asked = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no node is left behind
    ours, alone, lost = [], [], 0
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, cluster(*HOSTS) as ray:
        home = Path(folder)
        draw(home)
        with service(ray, home) as client:
            through_maskwright(client, [WARM])
            for turn in range(asked.turns):
                names = [f"job-{turn}-{number:03d}" for number in range(asked.jobs // asked.turns)]
                if turn % 2:
                    alone.append(bare(ray, home, names))
                ours.append(through_maskwright(client, names))
                lost += sum(not finished(JobFolder(home / "checkpoints" / name)) for name in names)
                if not turn % 2:
                    alone.append(bare(ray, home, names))
                print(f"turn {turn + 1}: {ours[-1]:.1f} s, Ray alone {alone[-1]:.1f} s, {lost} lost so far", file=sys.stderr)
    turns = enumerate(zip(ours, alone, strict=True), 1)
    rows = [(number, f"{one:.1f}", f"{other:.1f}", f"{one / other:.3f}") for number, (one, other) in turns]
    figures = {"jobs": asked.jobs, "overhead_vs_bare_ray": round(sum(ours) / sum(alone), 3), "jobs_lost": lost}
    report(["turn", "Maskwright, s", "Ray alone, s", "quotient"], rows, figures)


if __name__ == "__main__":
    main()
