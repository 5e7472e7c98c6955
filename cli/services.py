"""Start the three services as processes of this machine, and stop them together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx

from contracts.errors import Broken, Taken
from docker_sdk_api.app import create_launcher
from docker_sdk_api.settings import Settings

PATIENCE = 60.0
PAUSE, LONGEST = 2.0, 60.0
"""Seconds between the end of a service and its next start: twice as many each time that it ends within LONGEST seconds, up to those."""
TLS = ("TLS", "TLS_CERT", "TLS_KEY")
"""Settings that are the pages' alone here: what they ask the two APIs does not leave this machine."""
MEGABYTES, FILES = 10, 3
"""Of each service so many files of so many MB are kept, where LOG_MEGABYTES and LOG_FILES say nothing else."""
LOGS = Path(__file__).resolve().parent.parent / ".logs"


@dataclass(frozen=True)
class Service:
    package: str
    name: str
    """As its variables begin: GUI_PORT, GUI_HOST."""
    default_port: int
    health: str

    @property
    def port(self) -> int:
        return int(os.environ.get(f"{self.name}_PORT", self.default_port))

    @property
    def host(self) -> str:
        """Where it can be asked from here."""
        host = os.environ.get(f"{self.name}_HOST", "")
        return "127.0.0.1" if host in ("", "0.0.0.0", "::") else host

    @property
    def address(self) -> str:
        encrypted = self.package == "gui" and any(os.environ.get(name) for name in TLS)
        return f"{'https' if encrypted else 'http'}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


SERVICES = (
    Service("docker_sdk_api", "SDK", 4222, "/v1/health"),
    Service("inference_api", "INFERENCE", 4343, "/v1/health"),
    Service("gui", "GUI", 4200, "/health"),
)


@dataclass
class Running:
    """A service's process, or its last one. `due`: when it is started again; None while it runs. All in seconds."""

    service: Service
    process: subprocess.Popen[bytes]
    started: float
    pause: float = PAUSE / 2
    due: float | None = None

    def keep_up(self) -> None:
        """Start it again where it has ended, as a container is: nobody may be there, and its trainings go on without it.

        One that cannot start is tried ever less often: it takes no processor from the trainings.
        """
        if self.due is None and (code := self.process.poll()) is not None:
            self._put_off(f"ended with exit code {code}")
        elif self.due is not None and time.monotonic() >= self.due:
            try:
                self.process, self.started, self.due = _start(self.service), time.monotonic(), None
            except OSError as error:  # as where memory is short: the trainings go on
                self._put_off(f"could not be started ({error})")

    def _put_off(self, what: str) -> None:
        moment, name = time.monotonic(), self.service.package
        self.pause = min(2 * self.pause, LONGEST) if moment - self.started < LONGEST else PAUSE
        self.started, self.due = moment, moment + self.pause
        with suppress(OSError):  # of a full disk or a closed terminal: that is not the end of the others
            print(f"{name} {what}. It is started again in {self.pause:.0f} s; its last words are in {LOGS / name}.log.", flush=True)


def run_services() -> None:
    """Run until Ctrl-C; a service that ends meanwhile is started again.

    Raises Taken for a port in use, Broken for a service that does not come up at first.
    """
    for service in SERVICES:
        _require_free(service)
    LOGS.mkdir(exist_ok=True)
    running: list[Running] = []
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for service in SERVICES:
            running.append(Running(service, _start(service), time.monotonic()))
        for one in running:
            _wait_until_up(one.service, one.process)
        print(f"Maskwright is ready: {SERVICES[-1].address}  (Ctrl-C stops it)", flush=True)
        while True:
            time.sleep(0.5)
            for one in running:
                keep_short(LOGS / f"{one.service.package}.log")
                one.keep_up()
    except KeyboardInterrupt:
        print("\nStopping.", flush=True)
    finally:
        _stop([one.process for one in running])


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _require_free(service: Service) -> None:
    with socket.socket(socket.AF_INET6 if ":" in service.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((service.host, service.port))
        except OSError as error:
            cure = f"Stop the program that uses it, or choose another: {service.name}_PORT={service.port + 10000} ./run/local.sh"
            raise Taken(f"Port {service.port}, which {service.package} needs, is taken.", cure) from error


def keep_short(log: Path) -> None:
    """Once a log is too long, copy it aside as FILE.1, what is there as FILE.2 and so on, and go on in the same file.

    It is emptied where it is, because its service holds it open, to append: also what no logger writes, such as a crash's last words.
    """
    most = int(os.environ.get("LOG_MEGABYTES") or MEGABYTES) * 2**20
    if not log.exists() or log.stat().st_size <= most:
        return
    kept = [log.with_name(f"{log.name}.{number}") for number in range(1, int(os.environ.get("LOG_FILES") or FILES))]
    for older, newer in zip(kept[:0:-1], kept[-2::-1], strict=True):
        if newer.exists():
            newer.replace(older)
    with suppress(OSError):  # on a full disk the copy goes without, and the log is emptied all the more
        if kept:
            shutil.copyfile(log, kept[0])
    os.truncate(log, 0)


def _start(service: Service) -> subprocess.Popen[bytes]:
    urls = {"DOCKER_SDK_API_URL": SERVICES[0].address, "INFERENCE_API_URL": SERVICES[1].address}
    keep_short(LOGS / f"{service.package}.log")
    log = open(LOGS / f"{service.package}.log", "ab")  # noqa: SIM115  # the child's, as long as it runs
    environment = {name: value for name, value in os.environ.items() if service.package == "gui" or name not in TLS}
    # A session of its own: Ctrl-C reaches this process alone, which then stops the services in order.
    return subprocess.Popen(
        [sys.executable, "-m", service.package], env={**urls, **environment}, stdout=log, stderr=log, start_new_session=True
    )


def _wait_until_up(service: Service, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(service.address + service.health, timeout=2, trust_env=False, verify=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise Broken(f"{service.package} did not start.", f"Its last words are in {LOGS / service.package}.log.")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """The services, and the trainings that run as processes: nothing of this start goes on behind the user's back."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
    settings = Settings()
    if not processes or settings.launcher != "process":
        return
    launcher = create_launcher(settings)
    for job in sorted(launcher.running()):
        print(f"Stopping the training {job}.", flush=True)
        launcher.stop(job, grace=5)
