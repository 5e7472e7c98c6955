"""setup_solution_parameters.sh: what it asks, checks, refuses with the command that cures it, and writes."""

import os
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from contracts.serving import DoorSettings, serving
from docker_sdk_api.settings import Settings as SdkSettings
from gui.settings import Settings as GuiSettings
from inference_api.settings import Settings as InferenceSettings
from tests.conftest import ROOT
from tests.engine import compose
from tests.waits import free_port

TOOLS = ["awk", "bash", "cat", "dirname", "echo", "grep", "head", "id", "ln", "mv", "printf", "rm", "sed", "tail", "tr"]
DOCKER = """case "$*" in
  "version --format"*) echo 28.0 ;;
  "compose version"*) echo 2.24.5 ;;
esac"""
REFUSED = "permission denied while trying to connect to the Docker daemon socket"
SECRET = "se%40cret"


class Machine:
    """A folder with the script in it, and a PATH that has the tools of any Linux and what a test adds: whatever is missing is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        for name in ("bin", "build", "run"):
            (folder / name).mkdir()
        for name in ("setup_solution_parameters.sh", "proxy.json"):
            shutil.copy(ROOT / name, folder)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        self.has("df", "echo head; echo disk 9 9 104857600 9 /")  # 100 GB are free

    def has(self, tool: str, script: str) -> None:
        (self.bin / tool).write_text(f"#!/bin/bash\n{script}\n")
        (self.bin / tool).chmod(0o755)

    def setup(self, *arguments: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        free = {name: str(free_port()) for name in ("GUI_PORT", "SDK_PORT", "INFERENCE_PORT")}
        everything = {"PATH": str(self.bin), **free, **environment}
        command = ["bash", "./setup_solution_parameters.sh", *arguments]
        return subprocess.run(command, cwd=self.folder, env=everything, input=said, capture_output=True, text=True, timeout=60, check=False)

    @property
    def env(self) -> dict[str, str]:
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def config_of(file: Path, **environment: str) -> str:
    """What compose makes of a file, with nothing of this machine's environment."""
    command = [*compose(), "-f", str(file), "config"]
    found = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, cwd=file.parent, env=found, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with Docker and Compose, and no GPU."""
    machine = Machine(tmp_path)
    machine.has("docker", DOCKER)
    return machine


def test_a_machine_that_is_ready_is_told_the_two_commands(machine: Machine) -> None:
    done = machine.setup("--arch", "cpu", "--yes")
    assert done.returncode == 0, done.stderr
    assert "docker compose -f build/build_cpu.yml build" in done.stdout
    assert "docker compose -f run/run_cpu.yml up -d" in done.stdout
    assert machine.env["ARCH"] == "cpu"
    assert stat.S_IMODE((machine.folder / ".env").stat().st_mode) == 0o600
    for place in ("build", "run"):  # where compose looks
        assert (machine.folder / place / ".env").read_text() == (machine.folder / ".env").read_text()


def test_it_asks_and_takes_what_is_usual_where_nothing_is_said(machine: Machine) -> None:
    assert "run_cpu_mkl.yml" in machine.setup(said="\n").stdout
    assert "run_cpu.yml" in machine.setup(said="cpu\n").stdout
    assert "run_cpu.yml" in machine.setup("--yes").stdout  # as last time


def test_what_is_missing_is_named_with_the_command_that_cures_it(tmp_path: Path) -> None:
    bare = Machine(tmp_path)
    done = bare.setup("--arch", "gpu", "--yes")
    assert done.returncode == 1
    for cause, cure in (
        ("Docker is not installed", "./install_full.sh"),
        ("Docker Compose is not installed", "./install_compose.sh"),
        ("NVIDIA's driver finds no GPU", "apt install nvidia-driver"),
        ("NVIDIA's container toolkit is not installed", "./install_full.sh --gpu"),
    ):
        assert cause in done.stdout
        assert cure in done.stdout.split(cause)[1].splitlines()[1]
    assert not (tmp_path / ".env").exists()


@pytest.mark.parametrize(
    ("says", "cause", "cure"),
    [
        (f"echo '{REFUSED}' >&2; exit 1", "You may not use the Docker engine", "usermod -aG docker"),
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "The Docker engine does not run", "systemctl start docker"),
    ],
)
def test_an_engine_that_cannot_be_used_is_told_apart_from_one_that_does_not_run(machine: Machine, says: str, cause: str, cure: str) -> None:
    machine.has("docker", f'[ "$1" = compose ] && echo 2.24.5 && exit\n{says}')
    done = machine.setup("--arch", "cpu", "--yes")
    assert done.returncode == 1
    assert cause in done.stdout
    assert cure in done.stdout


@pytest.mark.parametrize(("version", "well"), [("1.25.0", False), ("1.29.2", True)])
def test_the_older_compose_does_and_one_that_is_too_old_does_not(machine: Machine, version: str, well: bool) -> None:
    machine.has("docker", '[ "$1" = compose ] && exit 1\necho 28.0')
    machine.has("docker-compose", f"echo {version}")
    done = machine.setup("--arch", "cpu", "--yes")
    assert (done.returncode == 0) == well
    assert ("docker-compose -f run/run_cpu.yml up -d" if well else f"Docker Compose {version} is too old") in done.stdout


def test_a_full_disk_is_said_with_what_is_needed(machine: Machine) -> None:
    machine.has("df", "echo head; echo disk 9 9 3145728 9 /")
    done = machine.setup("--arch", "cpu", "--yes")
    assert done.returncode == 1
    assert "3 GB free, and the images need about 8" in done.stdout
    assert "docker system df" in done.stdout


def test_a_port_in_use_is_said_with_another_one(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = machine.setup("--arch", "cpu", "--yes", GUI_PORT=str(port))
        assert done.returncode == 1
        assert f"The port {port} is used by another program" in done.stdout
        assert f"GUI_PORT={port + 1} ./setup_solution_parameters.sh" in done.stdout
        machine.has("docker", f'[ "$1" = ps ] && echo maskwright_gui && exit\n{DOCKER}')  # an update of what runs
        assert machine.setup("--arch", "cpu", "--yes", GUI_PORT=str(port)).returncode == 0


def test_a_machine_with_a_gpu_and_the_toolkit_is_ready_for_it(machine: Machine) -> None:
    machine.has("nvidia-smi", "echo 'GPU 0: NVIDIA A100'")
    machine.has("nvidia-ctk", "")
    done = machine.setup(said="\n")
    assert "[gpu]" in done.stdout + done.stderr or "run_gpu.yml" in done.stdout
    assert machine.env["ARCH"] == "gpu"


def test_opening_a_service_to_the_network_wants_a_token(machine: Machine) -> None:
    refused = machine.setup("--arch", "cpu", "--yes", "--open", "gui")
    assert refused.returncode == 2
    assert "set a token first: TOKEN=" in refused.stderr
    assert machine.setup("--arch", "cpu", "--yes", "--open", "gui", TOKEN="a" * 32).returncode == 0
    assert (machine.env["GUI_ADDRESS"], machine.env["TOKEN"]) == ("0.0.0.0", "a" * 32)
    assert "SDK_ADDRESS" not in machine.env


@pytest.mark.parametrize("token", ["a$b" * 8, "a#b" * 8, "'quoted-quoted-quoted'x", 'a"b' * 8, "a b" * 8, "a`b" * 8, "a\\b" * 8, "ä" * 20])
def test_a_token_that_compose_would_read_as_another_one_is_refused_without_showing_it(machine: Machine, token: str) -> None:
    done = machine.setup("--arch", "cpu", "--yes", TOKEN=token)
    assert done.returncode == 2
    assert "TOKEN may hold letters, digits and" in done.stderr
    assert token not in done.stdout + done.stderr
    (machine.folder / ".env").write_text(f"TOKEN={token}\n")
    assert machine.setup("--arch", "cpu", "--yes").returncode == 2, "an older version wrote it"


@pytest.mark.parametrize("value", ["/mnt/$new", "/mnt/a 'b'", "/mnt/a #1", "#1", " /mnt", "/mnt ", "/mnt/a\nTOKEN=b", "/mnt/a\\b"])
def test_no_value_is_written_that_compose_would_read_as_another_one(machine: Machine, value: str) -> None:
    done = machine.setup("--arch", "cpu", "--yes", DATASETS=value)
    assert done.returncode == 2
    assert "DATASETS holds a sign that compose reads as more than itself" in done.stderr
    assert not (machine.folder / ".env").exists()


def test_what_is_written_is_what_compose_hands_to_the_services(machine: Machine) -> None:
    shutil.copy(ROOT / "run" / "run_cpu.yml", machine.folder / "run")
    given = {"TOKEN": "aZ0._~+/=-" * 4, "HOSTS": "lab.example a#b.example", "DATASETS": "/mnt/some pictures#2"}
    assert machine.setup("--arch", "cpu", "--yes", **given).returncode == 0
    said = config_of(machine.folder / "run" / "run_cpu.yml")
    assert said.count(f"TOKEN: {given['TOKEN']}\n") == said.count(f"HOSTS: {given['HOSTS']}\n") == 3
    assert given["DATASETS"] in said


NOT_IN_CONTAINERS = {
    *("TASK_PYTHON", "GLUON_TASK_PYTHON", "RAY_ADDRESS", "RAY_PYTHON", "RAY_CPUS", "STORE", "GO_ON_ELSEWHERE", "WEIGHTS_MIRROR"),
    *("TLS", "TLS_CERT", "TLS_KEY", "API_CERTIFICATE"),
}
"""Of other launchers, or files that a container does not see. TLS is the pages' alone."""


@pytest.mark.parametrize("arch", ["cpu", "gpu_mkl"])
def test_every_setting_reaches_its_container_and_no_log_is_without_an_end(arch: str) -> None:
    given = {"LARGEST_UNPACKED": "5", "DEADLINE": "7", "LARGEST_PICTURE": "11", "LOG_MEGABYTES": "13", "LOG_FILES": "17"}
    plain, said = (config_of(ROOT / "run" / f"run_{arch}.yml", **more) for more in ({}, given))
    for service, kind in (("docker_sdk_api", SdkSettings), ("inference_api", InferenceSettings), ("gui", GuiSettings)):
        part = service_of(plain, service)
        missing = {field.upper() for field in kind.model_fields if f"      {field.upper()}: " not in part}
        assert missing <= NOT_IN_CONTAINERS, (service, missing - NOT_IN_CONTAINERS)
        assert re.search(r"max-file: ['\"]3['\"]\s+max-size: 10m", part)
        assert re.search(r"max-file: ['\"]17['\"]\s+max-size: 13m", service_of(said, service))
    for service, name in (("docker_sdk_api", "LARGEST_UNPACKED"), ("inference_api", "DEADLINE"), ("gui", "LARGEST_PICTURE")):
        assert re.search(rf"{name}: ['\"]{given[name]}['\"]", service_of(said, service))


@pytest.mark.parametrize("kind", [SdkSettings, InferenceSettings, GuiSettings])
def test_a_setting_that_compose_hands_on_empty_says_nothing(kind: type[DoorSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = kind()
    for name in kind.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert kind() == plain


def service_of(config: str, name: str) -> str:
    """A service's part of what compose says of all."""
    return re.split(r"^  (?=\w)", config.partition(f"\n  {name}:\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_proxies_reach_the_env_file_and_nothing_that_is_printed(machine: Machine) -> None:
    (machine.folder / "proxy.json").write_text(
        f'{{"HTTP_PROXY": "http://ada:{SECRET}@proxy:3128", "HTTPS_PROXY": "http://ada:{SECRET}@proxy:3128",\n "NO_PROXY": "mirror.local"}}'
    )
    done = machine.setup("--arch", "cpu", "--yes")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert machine.env["HTTPS_PROXY"] == machine.env["HTTP_PROXY"] == f"http://ada:{SECRET}@proxy:3128"
    assert machine.env["NO_PROXY"] == "localhost,127.0.0.1,docker_sdk_api,gui,inference_api,mirror.local"
    once = machine.env
    assert machine.setup("--yes", **{key: once[key] for key in ("GUI_PORT", "SDK_PORT", "INFERENCE_PORT")}).returncode == 0
    assert machine.env == once


@pytest.mark.parametrize("address", ["secret:3128", "http://a b@proxy", "http://proxy$(id)", "http://ada:'x'@proxy"])
def test_a_proxy_that_is_no_address_is_refused_without_showing_it(machine: Machine, address: str) -> None:
    (machine.folder / "proxy.json").write_text(f'{{"HTTPS_PROXY": "{address}"}}')
    done = machine.setup("--arch", "cpu", "--yes")
    assert done.returncode == 2
    assert "HTTPS_PROXY in proxy.json is no address" in done.stderr
    assert address not in done.stdout + done.stderr
    assert not (machine.folder / ".env").exists()


def test_what_somebody_wrote_into_the_env_file_stays(machine: Machine) -> None:
    (machine.folder / ".env").write_text("DATASETS=/mnt/pictures\nOWN=1\nARCH=cpu\n")
    assert machine.setup("--yes", "--root-path", "/masks").returncode == 0
    assert machine.env["DATASETS"] == "/mnt/pictures"
    assert machine.env["OWN"] == "1"
    assert machine.env["ROOT_PATH"] == "/masks"


@pytest.mark.parametrize(("arguments", "says"), [(["--arch", "tpu"], "cpu, cpu_mkl, gpu or gpu_mkl"), (["--fast"], "Unknown: --fast")])
def test_what_it_does_not_know_is_refused(machine: Machine, arguments: list[str], says: str) -> None:
    done = machine.setup(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(("address", "token", "starts"), [("0.0.0.0", "", False), ("0.0.0.0", "a" * 32, True), ("127.0.0.1", "", True)])
def test_a_service_that_is_published_to_the_network_does_not_start_without_a_token(address: str, token: str, starts: bool) -> None:
    in_its_container = DoorSettings(published=address, token=token)
    if starts:
        assert serving("gui", in_its_container, "0.0.0.0", 4200)["host"] == "0.0.0.0"
    else:
        with pytest.raises(SystemExit, match=r"gui would be reached at 0\.0\.0\.0, by more than this machine, without a TOKEN"):
            serving("gui", in_its_container, "0.0.0.0", 4200)
