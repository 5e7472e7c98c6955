"""Several processes learn one job: each takes its share of every batch, and all make the step that one process would make.

lead() → torchrun → the processes, each a Group; inside them the network under DistributedDataParallel, with batch norm and
losses over the whole batch. A loss is made of sums that `total` adds up over all processes, so that every process holds the
same, whole loss. Going back through `total` adds up the gradients of these equal losses, and DistributedDataParallel divides
by their number: what remains is the gradient of the one loss. No factor, and shares of unequal size are right too.
"""

import ctypes
import os
import shlex
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run
from torch.nn.parallel import DistributedDataParallel

from contracts.events import Failed, fold
from contracts.job_folder import JobFolder, write_aside
from training_api.group import Group

PATIENCE = timedelta(minutes=30)
"""So long a process waits for another one that lives but does not answer; that one has ended is noticed at once."""
NODES = "TORCHRUN"
"""The environment variable with torchrun's arguments for several machines (docs/parallel.md)."""
LEADER = "MASKWRIGHT_LEADER"
"""The environment variable that tells a process whose child it is, and where to leave its last words: `pid:folder`."""
ONE_MACHINE = ["--standalone", "--local-addr=127.0.0.1"]
MEMORY = "Often memory ran out: choose a smaller batch size, crop or short side, or fewer processes. Then resume the job."
LOOK = "The log's last lines may show why. Then resume the job."
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def launched() -> bool:
    """Whether this process is one of torchrun's."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def lead(folder: JobFolder, processes: int, say: Callable[[Failed], None]) -> int:
    """Run the processes of a job on this machine to their end, and say the end where they could not. The exit code."""
    _share_machine(processes)
    before = sum(1 for _ in folder.events_after(0))
    try:
        with TemporaryDirectory(prefix="maskwright-") as aside:
            failed = _run(folder, processes, Path(aside))
    except SignalException as error:  # torchrun has passed it on; end as one does without a handler, so that the launcher knows
        signal.signal(error.sigval, signal.SIG_DFL)
        os.kill(os.getpid(), error.sigval)
        raise
    if failed is None:
        return 0
    if not fold(folder.events_after(before)).ended_already:
        say(failed)
    print(f"failed: {failed.cause} {failed.cure}", file=sys.stderr)
    return 1


def _share_machine(processes: int) -> None:
    """Processors are divided among the processes; what stays on this machine does not go over its network."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads // processes))
    if NODES not in os.environ:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


def _run(folder: JobFolder, processes: int, aside: Path) -> Failed | None:
    os.environ[LEADER] = f"{os.getpid()}:{aside}"
    arguments = shlex.split(os.environ[NODES]) if NODES in os.environ else ONE_MACHINE
    arguments = [*arguments, f"--nproc-per-node={processes}", f"--log-dir={aside / 'torchrun'}"]
    try:
        run(parse_args([*arguments, "-m", "training_api", str(folder.path)]))
    except ChildFailedError as error:
        words = {int(file.stem): Failed.model_validate_json(file.read_bytes()) for file in aside.glob("*.json")}
        return why(error.failures, words)
    return None


def why(failures: dict[int, ProcessFailure], words: dict[int, Failed]) -> Failed:
    """The one end that brought all others about. `failures` by rank, those that torchrun then ended (SIGTERM) among them;
    `words` by rank: what a process said that could still speak. One that could not went first: the others noticed it."""
    mute = {rank: failure for rank, failure in failures.items() if rank not in words}
    killed = {rank: failure for rank, failure in mute.items() if failure.exitcode != -signal.SIGTERM}
    if words and not killed:
        return min(words.values(), key=lambda failed: failed.at)
    rank, failure = min((killed or mute).items(), key=lambda item: item[1].timestamp)
    if failure.exitcode < 0:
        cure = MEMORY if failure.exitcode == -signal.SIGKILL else LOOK
        return Failed(cause=f"Process {rank + 1} of those that learn together was ended by {failure.signal_name()}.", cure=cure)
    return Failed(cause=f"Process {rank + 1} of those that learn together ended with exit code {failure.exitcode}.", cure=LOOK)


def follow_leader() -> None:
    """End when the leader ends, however it does: torchrun's processes have sessions of their own, which no launcher knows."""
    leader = os.environ.get(LEADER, "").partition(":")[0]
    if not leader or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != int(leader):
        sys.exit("The process that leads this one has ended.")


def end(code: int) -> NoReturn:
    """End this process at once. As Python clears up, threads that PyTorch's own end leaves running may abort it; torchrun would take that
    for a failure and end the others, the first one while it publishes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_words(failed: Failed) -> None:
    """Why this process fails, for the leader: it says which of all the ends was the first."""
    aside = os.environ.get(LEADER, "").partition(":")[2]
    if aside:
        write_aside(Path(aside) / f"{os.environ['RANK']}.json", failed.model_dump_json())


class TorchGroup(Group):
    """This process among those that torchrun started. With `gpus` each has a GPU of its own, in the order of the job's.

    What the processes agree on goes through the processor's memory, so that no GPU is waited for.
    """

    def __init__(self, gpus: bool) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank, self.local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if gpus:
            torch.cuda.set_device(self.local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)

    def first_says(self, number: int) -> int:
        said = torch.tensor(number)
        dist.broadcast(said, 0)
        return int(said)

    def most(self, number: int) -> int:
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def total(self, counts: np.ndarray) -> np.ndarray:
        summed = torch.from_numpy(counts.copy())
        dist.all_reduce(summed)
        return summed.numpy()

    def leave(self) -> None:
        dist.destroy_process_group()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        whole = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return total(gradient)


def total(part: Tensor) -> Tensor:
    """The sum of all processes' tensors, in all of them, with its gradient."""
    whole: Tensor = _Total.apply(part)
    return whole


def synchronised(network: nn.Module, place: torch.device) -> nn.Module:
    """The network with batch norm over the crops of all processes. Names of weights stay; where it only predicts, so does all else."""
    if place.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm  # PyTorch's own, and it knows timm's norms with an activation inside

        return convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            kind = type(module)
            module.__class__ = type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {})
    return network


class _Synchronised(nn.BatchNorm2d):
    """PyTorch's synchronised batch norm runs on GPUs alone; this one runs anywhere."""

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.training:
            return super().forward(pixels)
        normal = self._normalise(pixels)
        return self.act(self.drop(normal)) if hasattr(self, "act") else normal  # type: ignore[operator]  # timm's hold an activation

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Sums are of differences from the running mean: those of the values themselves would cancel each other out."""
        near = pixels.to(torch.promote_types(pixels.dtype, torch.float32)) - self.running_mean[:, None, None]  # type: ignore[index]
        count = near.new_tensor([near.numel() / self.num_features])
        sums = total(torch.cat([near.sum((0, 2, 3)), near.square().sum((0, 2, 3)), count]))
        n = sums[-1]
        mean, square = (sums[:-1] / n).chunk(2)
        variance = square - mean.square()
        self._keep(mean.detach(), (variance * n / (n - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (near * scale[:, None, None] + shift[:, None, None]).to(pixels.dtype)

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        self.running_mean.add_(mean * self.momentum)  # type: ignore[union-attr, operator]  # mean is counted from it already
        self.running_var.lerp_(variance, self.momentum)  # type: ignore[union-attr, arg-type]


def distributed(network: nn.Module, place: torch.device) -> nn.Module:
    """What to learn with in place of the network. Running statistics are the same everywhere already: none are sent."""
    devices = [place] if place.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True)
