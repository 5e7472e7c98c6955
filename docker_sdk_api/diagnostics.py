"""A zip for a report of a fault: the machine, the versions, the settings, the last jobs' events and logs. Without pictures and secrets.

Of variables that may hold a secret only the name is in it; what looks like a password in an address is struck out of every line.
"""

import io
import json
import os
import platform
import re
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

from contracts.audit import AUDIT, Audit
from contracts.events import now
from contracts.job_folder import JobFolder
from contracts.plain import is_plain, read_plain
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.logs import tail
from docker_sdk_api.machine import describe_machine

JOBS = 10
"""The newest jobs that are in it."""
LINES = 400
"""Of each log, the last ones."""
WHOLE = 2**22
"""Bytes of a job's events up to which all of them are in it."""
SECRET = re.compile(r"token|password|passwd|secret|key|credential|auth", re.IGNORECASE)
IN_ADDRESS = re.compile(r"(\b\w{1,40}://)(?:[^/\s@:\"']{0,200}:[^\s\"']{0,200}|[^/\s@:\"']{1,200})@")
"""Up to the last @: a password may hold any sign. A name alone may be a token."""
IN_QUERY = re.compile(r"([?&][\w-]{0,40}(?:token|passw|pwd|secret|key|credential|auth|sig)[\w-]{0,40}=)[^&\s\"']+", re.IGNORECASE)
README = """What is in here

machine.json    cores, memory, disk, GPUs, engines, Maskwright's version
python.txt      Python, the system, and every installed package with its version
settings.json   the settings that docker_sdk_api runs with; "***" stands for what may be a secret
jobs/NAME/      of the {jobs} newest jobs: job.json (what was asked), events.jsonl (what happened), the log's last {lines} lines
audit.log       the last {lines} changes and refusals: who, what, and the request's id

The id of a request is the same in the services' logs (request=...), in audit.log, and as `request` in the events of the job that it
asked for.

No picture, no mask, no weights. The names of jobs, datasets, folders, classes and tokens are in it: look through it before you hand it on.
"""


def write_bundle(jobs: Jobs) -> bytes:
    """The zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:

        def add(name: str, text: str) -> None:
            bundle.writestr(name, _without_secrets(text))

        add("README.txt", README.format(jobs=JOBS, lines=LINES))
        add("machine.json", describe_machine(jobs.settings, jobs.launcher).model_dump_json(indent=2))
        add("python.txt", _python())
        add("settings.json", json.dumps(_settings(jobs), indent=2))
        add(AUDIT, "".join(f"{json.dumps(row)}\n" for row in Audit(jobs.settings.checkpoints).last(LINES)[::-1]))
        for name in jobs.names()[:JOBS]:
            folder = JobFolder(jobs.settings.checkpoints / name)
            for path in (folder.job_file, folder.events_file):
                if is_plain(path):
                    add(f"jobs/{name}/{path.name}", _whole_or_end(path))
            if is_plain(folder.log_file):
                add(f"jobs/{name}/{folder.log_file.name}", tail(folder.log_file, LINES))
    return file.getvalue()


def bundle_name() -> str:
    return f"maskwright-diagnostics-{now():%Y%m%d-%H%M}.zip"


def _whole_or_end(file: Path) -> str:
    """A file that is not too long for a report, or how it ends."""
    try:
        return read_plain(file, most=WHOLE).decode(errors="replace")
    except FileNotFoundError:
        return tail(file, LINES)


def _settings(jobs: Jobs) -> dict[str, str]:
    known = {name.upper(): str(value) for name, value in jobs.settings.model_dump().items()}
    known["DATABASE_URL"] = re.sub("://.*@", "://***@", known["DATABASE_URL"])  # whatever signs its password has
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {name: "***" if value and SECRET.search(name) else value for name, value in sorted({**known, **proxies}.items())}


def _python() -> str:
    packages = sorted({f"{found.metadata['Name']} {found.version}" for found in distributions()}, key=str.casefold)
    return "\n".join([f"Python {sys.version}", platform.platform(), "", *packages, ""])


def _without_secrets(text: str) -> str:
    return IN_QUERY.sub(r"\1***", IN_ADDRESS.sub(r"\1***@", text))
