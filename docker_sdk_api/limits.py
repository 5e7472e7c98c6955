"""Limits of a job: what it may ask for, and what cannot be kept here."""

import psutil

from contracts.errors import Invalid
from contracts.job import JobRequest
from docker_sdk_api.machine import count_cores
from docker_sdk_api.settings import Settings

MB = 1_000_000


def refuse_limits(request: JobRequest, settings: Settings) -> None:
    """Raises Invalid where a limit is more than there is, or where nothing would keep a job to it."""
    if settings.launcher == "ray":  # what no node has, Ray waits for, and says so
        return
    cores = count_cores()
    if request.cpus is not None and request.cpus > cores:
        raise Invalid(f"The job may use {request.cpus:g} cores, and this machine has {cores}.", f"Give {cores} at most, or leave it empty.")
    if request.memory_limit is None:
        return
    if settings.launcher == "process":
        raise Invalid("A training that runs as a process cannot be held to a memory limit.", "Leave it empty, or set LAUNCHER=container.")
    most = settings.job_memory or psutil.virtual_memory().total
    if request.memory_limit * MB > most:
        what = "JOB_MEMORY allows" if settings.job_memory else "this machine has"
        cause = f"The job may take {request.memory_limit} MB of memory, and {what} {most // MB}."
        raise Invalid(cause, f"Give {most // MB} at most, or leave it empty.")
