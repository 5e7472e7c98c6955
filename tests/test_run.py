"""The scripts of run/: what they say where a machine does not fit."""

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cli.services import SERVICES, keep_short
from tests.clicks import answer, free_ports, services
from tests.conftest import ROOT, draw_dataset, wait_for


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", f". run/install.sh; {script}"]
    return subprocess.run(
        command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("version", ["3.9.18", "3.14.0"])
def test_a_python_that_does_not_fit_is_refused_with_those_that_do(tmp_path: Path, version: str):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "Python {version}" && exit 0\nexit 1\n')
    python.chmod(0o755)
    result = bash("install_all", PYTHON=str(python))
    assert result.returncode == 1
    assert f"Python {version} does not fit" in result.stderr
    assert "3.10 to 3.13" in result.stderr


def test_no_python_at_all_is_said_with_the_package_to_install(tmp_path: Path):
    result = bash("find_python() { return 1; }; install_all")
    assert result.returncode == 1
    assert "Install Python 3.11" in result.stderr


def test_a_disk_that_is_too_full_is_said_with_what_is_needed():
    result = bash("NEEDED_MB=999999999; require_disk")
    assert result.returncode == 1
    assert "needs about 999999999" in result.stderr


def test_without_a_python_for_mxnet_the_rest_is_installed_and_it_is_said():
    machine = "find_python() { [ $1 = 3.11 ] && [ $# -eq 2 ] && return 1; echo python3; }"
    result = bash(f"{machine}; install_environment() {{ echo made $1; }}; register_own() {{ :; }}; install_all")
    assert "made .venv" in result.stdout
    assert "Without the engine gluon: MXNet runs on Python 3.10 or 3.11" in result.stdout


def test_two_starts_at_the_same_time_install_once(tmp_path: Path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.11.0" && exit 0\nmkdir -p "$3/bin"\n')
    python.chmod(0o755)
    (tmp_path / "list.txt").write_text("a-package==1\n")
    install = f"install_environment .venv-x {python} list.txt"
    script = f"cd {tmp_path}; NEEDED_MB=0; fill__venv_x() {{ sleep 1; echo filled; }}; {install} & {install}; wait; {install}"
    result = bash(script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("filled") == 1
    assert "Another start is installing here" in result.stdout


def test_the_log_of_a_service_is_kept_short_while_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOG_MEGABYTES", "1")
    monkeypatch.setenv("LOG_FILES", "3")
    log = tmp_path / "gui.log"
    keep_short(log)
    with open(log, "ab", buffering=0) as held:  # as its service holds it
        for letter in b"abcd":
            held.write(bytes([letter]) * 2**20)
            keep_short(log)
            assert log.stat().st_size == 2**20, "no longer than it may be"
            held.write(b"\n")
            keep_short(log)
        held.write(b"goes on\n")
    assert {path.name: path.read_bytes()[:1] for path in tmp_path.iterdir()} == {"gui.log": b"g", "gui.log.1": b"d", "gui.log.2": b"c"}


def test_a_benchmark_that_does_not_exist_is_answered_with_those_that_do():
    result = subprocess.run(["./run/bench.sh", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "learning" in result.stderr


def test_a_service_that_is_killed_is_started_again_and_trainings_go_on(tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates")
    wish = {"engine": "majority", "network": "majority", "backbone": "none", "hyperparameters": {"epochs": 10_000}}
    ports = free_ports()
    with services(tmp_path, ports), httpx.Client(base_url=f"http://127.0.0.1:{ports['SDK_PORT']}", trust_env=False, timeout=60) as api:

        def status() -> dict[str, Any]:
            return api.get("/v1/jobs/long").json()["status"]

        assert api.post("/v1/jobs", json={"name": "long", "dataset": "plates", **wish}, timeout=60).is_success
        wait_for(lambda: status()["epoch"] > 1, 60)
        (up,) = [child for child in psutil.Process().children() if child.cmdline()[1:] == ["-m", "cli", "up"]]
        killed = up.children()
        assert len(killed) == len(SERVICES)
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, 10)
        wait_for(lambda: answer(ports), 60)
        before = status()
        assert before["state"] == "training"
        wait_for(lambda: status()["epoch"] > before["epoch"] + 1, 60)


def test_a_service_that_cannot_start_is_tried_ever_less_often_and_comes_back_once_it_can(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    ports, said = free_ports(), ""
    with services(tmp_path, ports):
        (up,) = [child for child in psutil.Process().children() if child.cmdline()[1:] == ["-m", "cli", "up"]]
        (gui,) = [child for child in up.children() if child.cmdline()[1:] == ["-m", "gui"]]
        gui.kill()
        gui.wait(10)
        with socket.create_server(("127.0.0.1", int(ports["GUI_PORT"]))):

            def tried() -> bool:
                nonlocal said
                said += capfd.readouterr().out
                return "started again in 8 s" in said

            wait_for(tried, 120)
            assert up.is_running()
        wait_for(lambda: answer(ports), 60)
    assert re.findall(r"gui ended with exit code \S+\. It is started again in (\d+) s", said) == ["2", "4", "8"]
