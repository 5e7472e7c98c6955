"""The three services, each in a process of its own, over a folder with a small dataset: started, asked, killed, looked at."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from machine import free_port

from contracts.job_folder import JobFolder

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"docker_sdk_api": "SDK_PORT", "gui": "GUI_PORT", "inference_api": "INFERENCE_PORT"}
PICTURES = 6
QUICK = {"engine": "majority", "network": "majority", "backbone": "none", "hyperparameters": {"epochs": 30}}
TINY = {"crop": 64, "batch_size": 4, "crops_per_picture": 1, "short_side": 64, "workers": 1, "epochs": 6}
NETWORK = {"engine": "pytorch", "network": "lraspp", "backbone": "mobilenet_v3_large", "hyperparameters": TINY}
"""Wishes for jobs: one takes a second, one trains a network for half a minute."""


class Services:
    """Over folder/datasets, with the dataset `plates`, and folder/checkpoints; what they print is in folder/NAME.log."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        _lay_dataset(folder / "datasets" / "plates")
        (folder / "checkpoints").mkdir()
        ports = {variable: str(free_port()) for variable in SERVICES.values()}
        addresses = {f"{name.upper()}_URL": f"http://127.0.0.1:{ports[SERVICES[name]]}" for name in ("docker_sdk_api", "inference_api")}
        folders = {"DATASETS": str(folder / "datasets"), "CHECKPOINTS": str(folder / "checkpoints")}
        python = {"TASK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "PARALLEL_JOBS": "8"}
        self.environment = {**os.environ, **ports, **addresses, **folders, **python, **settings}
        self.address = {name: f"http://127.0.0.1:{ports[variable]}" for name, variable in SERVICES.items()}
        for name in SERVICES:
            self.start(name)

    def start(self, name: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen([sys.executable, "-m", name], env=self.environment, stdout=log, stderr=log)

    def ask(self, method: str, path: str, service: str = "docker_sdk_api", seconds: float = 90, **more: Any) -> httpx.Response:
        """Ask until something answers: what was killed is being started."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return httpx.request(method, self.address[service] + path, timeout=30, trust_env=False, **more)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def submit(self, name: str, wish: dict[str, Any]) -> None:
        """Asked again where the answer was lost: then the name is taken, by this very job."""
        answer = self.ask("POST", "/v1/jobs", json={"name": name, "dataset": "plates", **wish})
        if answer.status_code != 201 and not (answer.status_code == 409 and self.job(name).job_file.exists()):
            sys.exit(f"{name} was refused: {answer.text}")

    def states(self) -> dict[str, str]:
        """Of every job, as the service tells it."""
        return {view["job"]["name"]: view["status"]["state"] for view in self.ask("GET", "/v1/jobs?brief=true").json()}

    def job(self, name: str) -> JobFolder:
        return JobFolder(self.folder / "checkpoints" / name)

    def trainings(self) -> dict[str, list[int]]:
        """The processes that train each job."""
        found: dict[str, list[int]] = {}
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if line[1:3] == ["-m", "training_api"] and line[3:] and Path(line[3]).parent == self.folder / "checkpoints":
                found.setdefault(Path(line[3]).name, []).append(process.pid)
        return found

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def _lay_dataset(dataset: Path) -> None:
    """The dummy dataset's first pictures."""
    for kind in ("images", "labels"):
        (dataset / kind).mkdir(parents=True)
        for file in sorted((ROOT / "datasets" / "dummy_dataset" / kind).iterdir())[:PICTURES]:
            shutil.copy(file, dataset / kind)
    shutil.copy(ROOT / "datasets" / "dummy_dataset" / "objectclasses.json", dataset)
