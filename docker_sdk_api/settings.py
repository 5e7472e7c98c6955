"""Settings of docker_sdk_api, from the environment; read once, at the start, and passed on."""

from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.serving import DoorSettings

HERE = Path(__file__).resolve().parent.parent


class Settings(DoorSettings, BaseSettings):
    """Every variable has the name of its field in capitals, such as SDK_PORT."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    sdk_host: str = "127.0.0.1"
    sdk_port: int = 4222
    launcher: Literal["process", "container", "ray"] = "process"
    datasets: Path = HERE / "datasets"
    checkpoints: Path = HERE / "checkpoints"
    classifiers: Path = HERE / "classifiers"
    weights: Path = HERE / "weights"
    """Where fetched weights are kept."""
    weights_mirror: Path | None = None
    """Another folder with such files, that is only read."""
    weights_url: str = ""
    """Where to fetch them instead of their own servers, by the same paths."""
    task_python: Path = HERE / ".venv" / "bin" / "python"
    """The process launcher's interpreter for the engines pytorch and majority."""
    gluon_task_python: Path = HERE / ".venv-gluon" / "bin" / "python"
    """The process launcher's interpreter for the engine gluon."""
    ray_address: str = "http://127.0.0.1:8265"
    """Of the Ray cluster's head, over HTTP."""
    ray_python: Path = HERE / ".venv-ray" / "bin" / "python"
    """The interpreter on every node of the cluster that has Ray; those of the engines are the process launcher's."""
    ray_cpus: float = 4
    """Processors of a node that a training is promised, at most all of them, where the job itself says nothing."""
    store: str = ""
    """The object store, such as s3://bucket/prefix, through which data goes where the nodes share no disk with this machine."""
    go_on_elsewhere: int = 3
    """How often in a row a training whose node was lost goes on somewhere else without being asked."""
    images_arch: Literal["cpu", "cpu_mkl", "gpu", "gpu_mkl"] = "cpu"
    """Which images the container launcher starts."""
    deleted_kept_minutes: float = 60
    """For how long a deleted job can be brought back; its disk space is free only then."""
    keep_failed_days: float = 0
    """After so many days jobs that failed or were stopped and have no model are deleted; 0: never."""
    keep_checkpoints_days: float = 0
    """After so many days finished jobs lose what a resume would begin with; weights and model stay; 0: never."""
    silent_minutes: float = 60
    """A training that has written neither an event nor a line for so long hangs, and is ended; 0: never."""
    train_log_megabytes: float = 64
    """So many MB of disk a training's log takes: of a longer one the middle is left out; 0: it is as long as what is printed."""
    job_memory: int = 0
    """Bytes of memory that a training may take, in a container; 0: as much as there is."""
    parallel_jobs: int = 0
    """So many trainings learn on the CPU at once, the others wait for their turn; 0: one for every two cores, as memory allows."""
    gpu_taken_share: float = 0.25
    """A GPU of whose memory other programs hold more than this share is not given to a job: it waits. 1: never."""
    database_url: str = ""
    """Where the queue is kept, such as postgresql://user:password@host/name; unset: .maskwright/queue.db of the checkpoints."""
    resume_by_itself: int = 0
    """How often in a row a training that died unseen or hung is resumed without being asked."""
    largest_dataset_upload: int = 64 * 2**30
    """Bytes of all files of one upload, and of a model's zip."""
    largest_unpacked: int = 256 * 2**30
    """Bytes that an archive may unpack to."""
    largest_unpacked_ratio: float = 100
    """Bytes that an archive may unpack to for each of its own; 256 MiB are always allowed."""
