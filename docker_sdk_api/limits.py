"""Limits of a job: what it may ask for, and what cannot be kept here."""

import psutil

from contracts.errors import Invalid
from contracts.job import Job, JobRequest
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


def refuse_processes(job: Job) -> None:
    """Raises Invalid where a job cannot be learnt by as many processes as were asked for."""
    if job.processes not in (1, job.together):
        if job.engine != "pytorch":
            raise Invalid(f"The engine {job.engine} learns in one process.", "Leave `processes` at 1, or choose the engine pytorch.")
        raise Invalid("On GPUs there is one process for each of them.", "Leave `processes` at 1, and choose as many GPUs as you want.")
    crops, parts = job.hyperparameters.batch_size, job.hyperparameters.accumulate
    if job.together * job.nodes > crops // parts:
        raise Invalid(
            f"{job.together * job.nodes} processes cannot share a batch of {crops}{f' in {parts} parts' if parts > 1 else ''}.",
            "Choose a larger batch size, or fewer processes.",
        )


def refuse_nodes(job: Job, settings: Settings) -> None:
    """Raises Invalid where several machines cannot learn a job."""
    if job.nodes > 1 and settings.launcher != "ray":
        raise Invalid("Several machines learn one job only in a Ray cluster.", "Leave `nodes` at 1, or see docs/cluster.md.")
    if job.nodes > 1 and (job.engine != "pytorch" or job.waggle is not None):
        raise Invalid("Only the engine pytorch learns on several machines.", "Leave `nodes` at 1, or choose the engine pytorch.")
