"""What the three services have in common when they are started: at which door, who may come in, and whether it is encrypted."""

import ctypes
import gc
import json
import logging
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from contracts.errors import Invalid, Problem, Unavailable

SHORTEST = 16
"""Signs of a TOKEN that others than this machine may guess at: sessions are signed with it."""
M_ARENA_MAX, ARENAS = -8, 2
"""The C library's number for this setting (malloc.h), and its value."""
KEPT = 75
"""Seconds for which a connection may rest between two requests: longer than a caller keeps it (five in httpx, sixty in nginx), so that
none is closed just as somebody asks on it."""
DAYS = 825
"""For which a self-signed certificate is good: browsers take no longer ones."""


class DoorSettings(BaseModel):
    """Settings of every service, as variables of the environment in capitals."""

    token: str = Field("", repr=False, pattern=r"^[!-~]*$")
    """Who knows it may do everything. Without one a service can be reached from this machine alone."""
    hosts: str = ""
    """Names under which the service may be asked for, between blanks, beside addresses and names without a dot; "*": all."""
    allowed_origins: str = ""
    """Origins whose pages may ask this service, between blanks; "*": all."""
    published: str = ""
    """In a container: the address of the host where it can be reached."""
    tls: Literal["", "self-signed"] = ""
    """self-signed: encrypt with a certificate made at the start, where there is none."""
    tls_cert: str = ""
    """File of the certificate, with those it rests on behind it; "": not encrypted."""
    tls_key: str = ""
    """File of its key."""
    requests_a_minute: int = Field(12_000, ge=0)
    """So many requests a minute of one caller are answered; 0: as many as come."""
    streams: int = Field(400, ge=0)
    """So many pages and programs follow jobs at the same time; 0: as many as want to."""
    log_format: Literal["text", "json"] = "text"
    """How a line of the service's log says what was asked."""


def is_this_machine(address: str) -> bool:
    """Whether nothing but this machine reaches what listens here."""
    if address == "localhost":
        return True
    try:
        return ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def serving(service: str, settings: DoorSettings, host: str, port: int) -> dict[str, Any]:
    """What uvicorn is told. Ends the process with a sentence where the door would be open to everybody or a certificate is missing."""
    try:
        return _options(service, settings, host, port)
    except Problem as problem:
        raise SystemExit(str(problem)) from problem


def settle_memory() -> None:
    """What a service does once it is whole, before the first request, so that its memory stays level and its answers even.

    The program itself is spared from Python's garbage collections: a full one would stop the service for some 40 ms. And the many threads
    that answer share two places for what they free; each would keep its own otherwise, for months (mallopt(3), where the C library has it).
    """
    gc.collect()
    gc.freeze()
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def _options(service: str, settings: DoorSettings, host: str, port: int) -> dict[str, Any]:
    refuse_open_door(service, settings.published or host, settings.token)
    lines = {"access_log": False, "log_config": _log_config(settings.log_format)}
    times = {"timeout_graceful_shutdown": 3, "timeout_keep_alive": KEPT}
    return {"host": host, "port": port, **times, **lines, **_certificate(settings, host)}


def refuse_open_door(service: str, address: str, token: str) -> None:
    """Raises Invalid where more than this machine reaches a service that asks nobody for a token."""
    if not token and not is_this_machine(address):
        raise Invalid(
            f"{service} would be reached at {address}, by more than this machine, without a TOKEN.",
            "Set one, such as TOKEN=$(openssl rand -hex 32), or let it listen at 127.0.0.1.",
        )
    if token and len(token) < SHORTEST and not is_this_machine(address):
        raise Invalid(f"A TOKEN of {len(token)} signs can be guessed.", f"Take {SHORTEST} or more: TOKEN=$(openssl rand -hex 32).")


def _certificate(settings: DoorSettings, host: str) -> dict[str, str]:
    if settings.tls_cert or settings.tls_key:
        for name, file in (("TLS_CERT", settings.tls_cert), ("TLS_KEY", settings.tls_key)):
            if not os.access(file, os.R_OK):
                raise Invalid(f"{name} names “{file}”, which cannot be read.", "Give the files of a certificate and its key, as PEM.")
        return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    if settings.tls == "self-signed":
        names = [name for name in settings.hosts.replace(",", " ").split() if name != "*"]
        certificate, key = sign_for_oneself(Path(tempfile.mkdtemp(prefix="maskwright-tls-")), [host, *names])
        return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    return {}


def sign_for_oneself(folder: Path, names: list[str]) -> tuple[Path, Path]:
    """A certificate and its key, for these names and addresses and for this machine. Raises Unavailable without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise Unavailable("There is no openssl to make a certificate with.", "Install it, or give a certificate: TLS_CERT and TLS_KEY.")
    wanted = dict.fromkeys(["localhost", "127.0.0.1", *(name for name in names if name not in ("0.0.0.0", "::"))])
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in wanted)
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(DAYS)]
    command += ["-subj", "/CN=Maskwright", "-addext", f"subjectAltName={alternatives}", "-keyout", str(key), "-out", str(certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise Unavailable(f"openssl made no certificate: {done.stderr.strip()[-300:]}", "Look at HOSTS, or give TLS_CERT and TLS_KEY.")
    key.chmod(0o600)
    return certificate, key


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _log_config(form: str) -> dict[str, Any]:
    """Lines of uvicorn and of contracts/doors.py, on stderr, in the same form."""
    formatter = {"()": "contracts.serving.AsJson"} if form == "json" else {"format": "%(asctime)s %(levelname)s %(message)s"}
    said = {"handlers": ["said"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"form": formatter},
        "handlers": {"said": {"class": "logging.StreamHandler", "formatter": "form"}},
        "loggers": {"uvicorn": said, "maskwright": said},
    }


class AsJson(logging.Formatter):
    """A line of a log as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        words = getattr(record, "said", None) or {"message": record.getMessage()}
        error = {"error": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps({"at": self.formatTime(record), "level": record.levelname, **words, **error})
