"""A training is told to TensorBoard and MLflow: read with the real TensorBoard, told to a real MLflow server."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from contracts.job_folder import JobFolder
from tests.conftest import ROOT, ended, run_job, wait_for

TOOLS = ROOT / ".venv-trackers" / "bin"
needs_tools = pytest.mark.skipif(not TOOLS.exists(), reason="TensorBoard and MLflow are not installed: ./run/tests.sh installs them")
READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
read = EventAccumulator(sys.argv[1]); read.Reload()
scalars = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
print(json.dumps({"images": read.Tags()["images"], **scalars}))
"""


def in_tensorboard(folder: JobFolder) -> dict:
    command = [str(TOOLS / "python"), "-c", READ, str(folder.tensorboard)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)


def job_folder(api: TestClient, name: str) -> JobFolder:
    return JobFolder(api.app.state.settings.checkpoints / name)


@needs_tools
def test_every_job_has_curves_in_tensorboard_and_going_on_leaves_no_seam(api: TestClient, dataset: Path):
    api.post("/v1/jobs", json={"engine": "majority", "network": "majority", "backbone": "none", "name": "told", "dataset": "plates",
                               "hyperparameters": {"epochs": 10_000}})  # fmt: skip
    wait_for(lambda: api.get("/v1/jobs/told").json()["status"]["epoch"] > 1)
    api.app.state.jobs.launcher.stop("told", grace=0)
    wait_for(lambda: ended(api, "told"))
    api.post("/v1/jobs/told/resume")
    done = len(api.get("/v1/jobs/told").json()["status"]["history"])
    wait_for(lambda: len(api.get("/v1/jobs/told").json()["status"]["history"]) > done)
    api.post("/v1/jobs/told/stop", json={"keep_best": True})
    history = wait_for(lambda: ended(api, "told"))["status"]["history"]
    told = in_tensorboard(job_folder(api, "told"))
    steps = [step for step, _ in told["mean_iou"]]
    assert steps == sorted(set(steps))
    assert steps == [scores["epoch"] * (steps[0] or 1) for scores in history]
    assert [value for _, value in told["mean_iou"]] == pytest.approx([scores["mean_iou"] for scores in history])
    assert {"loss", "learning_rate", "pixel_accuracy", "iou/background"} <= set(told)
    assert told["images"] == ["validation"]


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(TOOLS / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", str(tmp_path / "artefacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with open(tmp_path / "server.log", "wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: server.poll() is not None or healthy(address), 120)
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            yield address
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=30)


def healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


@needs_tools
def test_mlflow_gets_settings_figures_and_the_model(api: TestClient, dataset: Path, mlflow: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "plates of ours")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    view = run_job(api, name="told", dataset="plates", hyperparameters={"epochs": 3})
    assert not any("MLflow" in warning for warning in view["status"]["warnings"])
    (run,) = ask(mlflow, "runs/search", experiment_ids=[experiment(mlflow, "plates of ours")])["runs"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == "told"
    assert {"key": "epochs", "value": "3"} in run["data"]["params"]
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["mean_iou"] == pytest.approx(view["status"]["best"]["mean_iou"])
    address = f"{mlflow}/api/2.0/mlflow/artifacts/list"
    kept = httpx.get(address, params={"run_id": run["info"]["run_id"], "path": "model"}, timeout=30, trust_env=False).json()
    assert "model/model.json" in [file["path"] for file in kept["files"]]


def test_an_mlflow_server_that_does_not_answer_is_said_and_ends_nothing(api: TestClient, dataset: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens at this port
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    status = run_job(api, name="alone", dataset="plates")["status"]
    assert status["state"] == "finished"
    assert sum("MLflow" in warning for warning in status["warnings"]) == 1  # said once


def experiment(address: str, name: str) -> str:
    answer = httpx.get(f"{address}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name}, timeout=30, trust_env=False)
    return str(answer.json()["experiment"]["experiment_id"])


def ask(address: str, route: str, **body: object) -> dict:
    return httpx.post(f"{address}/api/2.0/mlflow/{route}", json=body, timeout=30, trust_env=False).json()
