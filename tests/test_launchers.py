"""One suite for every launcher: what the rest of the product relies on holds for processes, containers and a Ray cluster alike."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import docker
import psutil
import pytest
from docker.models.containers import Container
from requests.exceptions import ReadTimeout

from contracts.answers import Gpu
from contracts.errors import Invalid, Taken, Unavailable
from contracts.networks import ENGINES
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.launchers import Launcher, Limits, Pulse, Task, container_gpus, process, supervise
from docker_sdk_api.launchers.container import ContainerLauncher, container_request, read_pulse, training_images
from docker_sdk_api.launchers.host_paths import host_paths, read_mounts
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.launchers.ray import RayLauncher
from docker_sdk_api.launchers.ray_head import Head
from tests.cluster import RAY_PYTHON, Cluster, cluster
from tests.conftest import wait_for
from tests.engine import engine, image

NAPPING = "import time; print('ready', flush=True); time.sleep(600)"


@dataclass
class Place:
    """A launcher under test, how to make another one that starts with no knowledge, and where tasks are kept."""

    kind: str
    make: Callable[[], Launcher]
    checkpoints: Path
    launched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.launcher = self.make()

    def task(self, program: str, *arguments: str, **more: object) -> Task:
        job_id = f"task-{uuid.uuid4().hex[:12]}"
        folder = self.checkpoints / job_id
        folder.mkdir()
        return Task(job_id, "python", ["-c", program, *arguments], folder, **more)  # type: ignore[arg-type]

    def launch(self, program: str, *arguments: str, **more: object) -> Task:
        task = self.task(program, *arguments, **more)
        self.launched.append(task.job_id)
        self.launcher.launch(task)
        return task

    def run(self, program: str, *arguments: str, **more: object) -> tuple[Pulse, list[str]]:
        """Launch a task, wait for its end; how it ended and what it printed."""
        task = self.launch(program, *arguments, **more)
        return self.ended(task), list(self.launcher.logs(task.job_id))

    def ended(self, task: Task) -> Pulse:
        return wait_for(lambda: not (pulse := self.launcher.poll(task.job_id)).alive and pulse)

    def ready(self, task: Task) -> None:
        wait_for(lambda: "ready" in self.launcher.logs(task.job_id))


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    """A cluster of one node, with room for a task that ends beside one that begins."""
    with cluster("127.0.0.2", cpus=4) as made:
        yield made


@pytest.fixture(params=["process", "container", "ray"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    with ExitStack() as stack:
        if request.param == "process":
            made = Place("process", lambda: ProcessLauncher(checkpoints, {"python": Path(sys.executable)}), checkpoints)
        elif request.param == "ray":
            head = Head(request.getfixturevalue("ray").address)
            pythons = {"python": Path(sys.executable)}
            made = Place("ray", lambda: RayLauncher(checkpoints, pythons, head, RAY_PYTHON), checkpoints)
        else:
            client = stack.enter_context(engine())
            images = {"python": image(client)}
            made = Place("container", lambda: ContainerLauncher(checkpoints, images, lambda: client), checkpoints)
        yield made
        for job_id in made.launched:
            made.launcher.stop(job_id, grace=0)
            made.launcher.remove(job_id)


def test_a_task_runs_to_its_end(place: Place) -> None:
    assert place.run("pass")[0] == Pulse(alive=False, exit_code=0)


def test_an_exit_code_is_told(place: Place) -> None:
    assert place.run("raise SystemExit(3)")[0] == Pulse(alive=False, exit_code=3)


def test_a_task_writes_its_folder_though_it_may_only_read_those_around_and_inside_it(place: Place) -> None:
    (place.checkpoints / "earlier").mkdir()
    (place.checkpoints / "earlier" / "weights").write_text("earlier")
    program = "import pathlib; at = pathlib.Path(); print((at / '../earlier/weights').read_text()); (at / 'made').write_text('x')"
    task = place.task(program)
    (task.folder / "artefact").mkdir()
    task.read_only.extend([place.checkpoints, task.folder / "artefact"])
    place.launched.append(task.job_id)
    place.launcher.launch(task)
    assert place.ended(task) == Pulse(alive=False, exit_code=0)
    assert list(place.launcher.logs(task.job_id)) == ["earlier"]
    assert (task.folder / "made").read_text() == "x"


ANSWERING = """
import os, socketserver
class Answer(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b"here")
host, port = os.environ["LISTEN"].split(":")
socketserver.TCPServer((host, int(port)), Answer).serve_forever()
"""


def test_a_task_is_asked_at_its_port_which_no_other_can_have(place: Place) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place.launch(ANSWERING, port=port)
    wait_for(lambda: asked(port) == b"here")
    assert port in place.launcher.used_ports()
    with pytest.raises(Taken, match="port"):
        place.launcher.launch(place.task(NAPPING, port=port))


def asked(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4)
    except OSError:
        return b""


def test_everything_printed_is_in_the_log_in_its_order(place: Place) -> None:
    program = "import sys\nfor n in range(20000): print(n, file=sys.stderr if n % 2 else sys.stdout, flush=True)"
    assert place.run(program)[1] == [str(n) for n in range(20000)]


def test_output_can_be_read_while_the_task_runs(place: Place) -> None:
    task = place.launch(NAPPING)
    place.ready(task)
    assert place.launcher.poll(task.job_id).alive


def test_a_later_task_in_the_same_folder_adds_to_the_log(place: Place) -> None:
    first = place.launch("print('first'); raise SystemExit(3)")
    place.ended(first)
    place.launcher.launch(Task(first.job_id, "python", ["-c", "print('second')"], first.folder))
    assert place.ended(first) == Pulse(alive=False, exit_code=0)
    assert list(place.launcher.logs(first.job_id)) == ["first", "second"]


def test_arguments_and_environment_arrive_as_given(place: Place) -> None:
    program = "import os, sys; print(sys.argv[1:], os.environ['COLOUR'])"
    assert place.run(program, "two words", "$HOME 'x' \"y\"", environment={"COLOUR": "dark red"})[1] == [
        f"{['two words', '$HOME ' + repr('x') + ' ' + chr(34) + 'y' + chr(34)]} dark red"
    ]


def test_the_projects_packages_can_be_imported_by_a_process(place: Place) -> None:
    if place.kind == "container":
        pytest.skip("the images bring the packages: tests/test_docker.py")
    assert place.run("import contracts; print('found')")[1] == ["found"]


def test_no_gpu_is_seen_unless_asked_for(place: Place) -> None:
    assert place.run("import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))")[1] == ["''"]


def test_the_folder_is_written_under_the_path_given(place: Place) -> None:
    task = place.task("import pathlib, sys; pathlib.Path(sys.argv[1], 'made').write_text('x')", "")
    task.arguments[-1] = str(task.folder)
    place.launched.append(task.job_id)
    place.launcher.launch(task)
    assert place.ended(task).exit_code == 0
    made = task.folder / "made"
    assert made.read_text() == "x"
    assert made.stat().st_uid == task.folder.stat().st_uid


def test_read_only_folders_are_seen_and_kept(place: Place, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures of mine"
    pictures.mkdir()
    (pictures / "one").write_text("1")
    read = "import pathlib, sys; print(pathlib.Path(sys.argv[1], 'one').read_text())"
    write = "import pathlib, sys; pathlib.Path(sys.argv[1], 'one').write_text('2')"
    assert place.run(read, str(pictures), read_only=[pictures])[1] == ["1"]
    if place.kind == "container":  # a process has its user's rights: that is said where it is written, in process.py
        pulse, printed = place.run(write, str(pictures), read_only=[pictures])
        assert pulse.exit_code == 1
        assert "Read-only file system" in printed[-1]
        assert (pictures / "one").read_text() == "1"


def test_a_task_that_is_stopped_may_finish_what_it_does(place: Place) -> None:
    program = "import signal, sys, time\ndef end(*_): print('saved'); sys.exit(0)\nsignal.signal(signal.SIGTERM, end)\n" + NAPPING
    task = place.launch(program)
    place.ready(task)
    place.launcher.stop(task.job_id, grace=30)
    assert place.launcher.poll(task.job_id) == Pulse(alive=False, exit_code=0)
    assert list(place.launcher.logs(task.job_id)) == ["ready", "saved"]


def test_a_task_that_will_not_stop_is_ended(place: Place) -> None:
    task = place.launch("import signal; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n" + NAPPING)
    place.ready(task)
    place.launcher.stop(task.job_id, grace=1)
    pulse = place.launcher.poll(task.job_id)
    assert not pulse.alive
    assert pulse.exit_code in (-9, 137)
    assert not pulse.out_of_memory


def test_what_a_task_started_ends_with_it(place: Place) -> None:
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
    beat = "import time\nfor n in range(6000): print(n, flush=True); time.sleep(0.1)"
    task = place.launch(program, beat)
    place.ended(task)
    printed = len(list(place.launcher.logs(task.job_id)))
    time.sleep(0.5)
    assert len(list(place.launcher.logs(task.job_id))) == printed


def test_stopping_again_changes_nothing(place: Place) -> None:
    task = place.launch(NAPPING)
    place.ready(task)
    place.launcher.stop(task.job_id, grace=0)
    first = place.launcher.poll(task.job_id)
    place.launcher.stop(task.job_id, grace=0)
    assert place.launcher.poll(task.job_id) == first
    assert not first.alive


def test_an_unknown_task_has_ended_nobody_knows_how(place: Place) -> None:
    assert place.launcher.poll("never-was") == Pulse(alive=False, exit_code=None)
    place.launcher.stop("never-was", grace=0)
    place.launcher.remove("never-was")
    assert list(place.launcher.logs("never-was")) == []


def test_a_launcher_made_anew_knows_what_runs_and_what_ended(place: Place) -> None:
    ended = place.launch("print('done'); raise SystemExit(4)")
    place.ended(ended)
    running = place.launch(NAPPING)
    place.ready(running)
    place.launcher = place.make()
    assert place.launcher.poll(ended.job_id) == Pulse(alive=False, exit_code=4)
    assert list(place.launcher.logs(ended.job_id)) == ["done"]
    assert place.launcher.poll(running.job_id) == Pulse(alive=True)
    assert place.launcher.running() == {running.job_id}
    place.launcher.stop(running.job_id, grace=0)
    assert place.launcher.running() == set()


def test_what_a_running_task_takes_is_told_and_of_an_ended_one_nothing(place: Place) -> None:
    program = "import time; held = bytearray(50_000_000); [None for _ in range(3_000_000)]; print('ready', flush=True); time.sleep(600)"
    task = place.launch(program)
    wait_for(lambda: "ready" in list(place.launcher.logs(task.job_id)))
    usage = place.launcher.usage(task.job_id)
    assert usage is not None
    assert usage.memory_bytes > 50_000_000
    assert usage.cpu_seconds > 0.01
    place.launcher.stop(task.job_id, grace=1)
    assert place.launcher.usage(task.job_id) is None
    assert place.launcher.usage("nobody") is None


def test_two_tasks_cannot_have_one_name(place: Place) -> None:
    task = place.launch(NAPPING)
    with pytest.raises(Taken):
        place.launcher.launch(task)
    with pytest.raises(Taken):
        place.launcher.remove(task.job_id)
    assert place.launcher.poll(task.job_id).alive


def test_a_removed_task_is_forgotten(place: Place) -> None:
    task = place.launch("print('done')")
    place.ended(task)
    place.launcher.remove(task.job_id)
    place.launcher.remove(task.job_id)
    assert place.launcher.poll(task.job_id) == Pulse(alive=False)
    assert (task.folder / "train.log").read_text() == "done\n"


def test_a_missing_runtime_is_named_with_its_cure(place: Place) -> None:
    folder = place.checkpoints / "lost"
    folder.mkdir()
    with pytest.raises(Unavailable, match="nothing"):
        place.launcher.launch(Task("lost", "nothing", [], folder))
    assert place.launcher.poll("lost") == Pulse(alive=False)


# What only one of the launchers promises


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_a_container_that_takes_too_much_memory_is_said_to(place: Place) -> None:
    pulse, _ = place.run("x = bytearray(300_000_000); print(len(x))", limits=Limits(memory_bytes=64_000_000))
    assert pulse == Pulse(alive=False, exit_code=137, out_of_memory=True)


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_a_missing_image_is_named_with_the_command_that_builds_it(place: Place) -> None:
    launcher = ContainerLauncher(place.checkpoints, {"python": "maskwright_never_built"}, lambda: place.launcher.client)  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match=r"maskwright_never_built is not on this machine.*build/build_cpu\.yml"):
        launcher.launch(place.task("pass"))


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_an_ended_container_is_held_until_it_is_removed_or_its_task_launched_anew(place: Place) -> None:
    task = place.launch("print('done')")
    place.ended(task)
    assert place.launcher.held() == {task.job_id}
    other = place.make()
    place.launcher.launch(replace(task, arguments=["-c", NAPPING]))
    assert place.launcher.held() == set()
    place.launcher.stop(task.job_id, grace=0)
    assert other.held() == {task.job_id}
    other.remove(task.job_id)
    place.launcher.remove(task.job_id)
    assert place.launcher.held() == set()


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_why_a_container_could_not_start_its_task_is_told(place: Place) -> None:
    task = place.task("pass")
    (task.folder / "train.log").mkdir()
    place.launched.append(task.job_id)
    place.launcher.launch(task)
    assert "train.log: Is a directory" in place.ended(task).note


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_a_container_of_which_the_engine_did_not_say_whether_it_started_does_not_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Container.start

    def start_too_slowly(container: Container) -> None:
        start(container)
        raise ReadTimeout("Read timed out.")

    monkeypatch.setattr(Container, "start", start_too_slowly)
    with pytest.raises(Unavailable, match="Read timed out"):
        place.launch(NAPPING)
    assert place.launcher.poll(place.launched[0]) == Pulse(alive=False)
    assert place.launcher.running() == set()


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_a_container_that_is_removed_while_it_is_asked_about_has_ended_without_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    task = place.launch("print('done'); raise SystemExit(3)")
    place.ended(task)
    found = place.launcher._find(task.job_id)  # type: ignore[attr-defined]
    found.remove()
    monkeypatch.setattr(place.launcher, "_find", lambda _: found)
    assert place.launcher.poll(task.job_id) == Pulse(alive=False, exit_code=3)
    assert list(place.launcher.logs(task.job_id)) == ["done"]
    place.launcher.stop(task.job_id, grace=0)
    place.launcher.remove(task.job_id)


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_what_a_task_held_of_a_gpu_is_not_told_once_it_has_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10]
    monkeypatch.setattr(container_gpus, "ask_gpus", lambda _: Gpus([Gpu(id=0, name="A100", memory_total=80, memory_free=free[0])]))
    client = place.launcher.client  # type: ignore[attr-defined]
    place.launcher = ContainerLauncher(place.checkpoints, place.launcher.images, lambda: client, arch="gpu")  # type: ignore[attr-defined]
    task = place.launch(NAPPING)
    assert place.launcher.gpus().found[0].memory_free == 10
    free[0] = 80
    assert place.launcher.gpus().found[0].memory_free == 10, "the driver is not asked at each look at a page"
    place.launcher.stop(task.job_id, grace=0)
    assert place.launcher.gpus().found[0].memory_free == 80


@pytest.mark.parametrize("place", ["container"], indirect=True)
def test_another_installations_containers_are_left_alone(place: Place, tmp_path: Path) -> None:
    task = place.launch(NAPPING)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / task.job_id).mkdir(parents=True)
    other = ContainerLauncher(elsewhere, place.launcher.images, lambda: place.launcher.client)  # type: ignore[attr-defined]
    assert other.running() == set()
    other.stop(task.job_id, grace=0)
    other.remove(task.job_id)
    with pytest.raises(Taken):
        other.launch(Task(task.job_id, "python", ["-c", "pass"], elsewhere / task.job_id))
    assert place.launcher.poll(task.job_id).alive


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_a_process_whose_program_is_gone_says_so_in_its_log(place: Place) -> None:
    (place.checkpoints / "python").write_text("#!/no/such/program\n")
    (place.checkpoints / "python").chmod(0o755)
    place.launcher = ProcessLauncher(place.checkpoints, {"python": place.checkpoints / "python"})
    pulse, printed = place.run("pass")
    assert pulse.exit_code == 127
    assert f"{place.checkpoints / 'python'}: not found" in printed[-1]


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_a_process_whose_supervisor_was_killed_is_still_followed_and_stopped(place: Place) -> None:
    task = place.launch(NAPPING)
    place.ready(task)
    os.kill(json.loads((task.folder / "task.json").read_text())["supervisor"], signal.SIGKILL)
    assert place.launcher.poll(task.job_id).alive
    place.launcher.stop(task.job_id, grace=0)
    assert place.launcher.poll(task.job_id) == Pulse(alive=False, exit_code=None)


SLOW_DISK = """
import sys, time
sys.path.insert(0, {folder!r})
import supervise
write = supervise._write
supervise._write = lambda *what: (time.sleep(10), write(*what))
sys.exit(supervise.main())
"""


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_a_process_that_is_not_started_in_time_does_not_run_later(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, mark = tmp_path / "slow.py", uuid.uuid4().hex
    slow.write_text(SLOW_DISK.format(folder=str(Path(supervise.__file__).parent)))
    monkeypatch.setattr(supervise, "__file__", str(slow))
    monkeypatch.setattr(process, "_START", 3.0)
    with pytest.raises(Unavailable, match="did not start within 3 s"):
        place.launch(NAPPING, mark)
    assert not running_with(mark)
    assert place.launcher.poll(place.launched[0]) == Pulse(alive=False)


def running_with(mark: str) -> list[int]:
    """The processes that were started with this word."""
    return [found.pid for found in psutil.process_iter(["cmdline"]) if mark in (found.info["cmdline"] or [])]


def test_a_process_that_cannot_be_recorded_is_ended(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    place = {"folder": str(tmp_path), "log": str(tmp_path / "train.log"), "record": str(tmp_path / "gone" / "task.json")}
    request = {"command": [sys.executable, "-c", NAPPING, mark], "environment": {}, **place}
    starter = subprocess.run([sys.executable, "-IS", supervise.__file__], input=json.dumps(request).encode(), timeout=60)
    assert starter.returncode == 1
    wait_for(lambda: not running_with(mark))


def test_a_process_whose_supervisor_was_killed_before_it_was_recorded_never_begins(tmp_path: Path) -> None:
    slow, mark, begun = tmp_path / "slow.py", uuid.uuid4().hex, tmp_path / "begun"
    slow.write_text(SLOW_DISK.format(folder=str(Path(supervise.__file__).parent)))
    places = {"folder": str(tmp_path), "log": str(tmp_path / "train.log"), "record": str(tmp_path / "task.json")}
    request = {"command": [sys.executable, "-c", f"open({str(begun)!r}, 'w')", mark], "environment": {}, **places}
    starter = subprocess.Popen([sys.executable, "-IS", str(slow)], stdin=subprocess.PIPE)
    assert starter.stdin is not None
    starter.stdin.write(json.dumps(request).encode())
    starter.stdin.close()
    wait_for(lambda: running_with(mark))
    psutil.Process(running_with(mark)[0]).parent().kill()  # type: ignore[union-attr]
    wait_for(lambda: not running_with(mark))
    assert starter.wait(timeout=60) == 1
    assert not begun.exists()


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_a_folder_that_cannot_be_written_is_named_with_its_cure(place: Place) -> None:
    task = place.task("pass")
    task.folder.rmdir()
    with pytest.raises(Unavailable, match=task.job_id):
        place.launcher.launch(task)


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_a_number_that_now_belongs_to_another_process_is_not_taken_for_the_task(place: Place) -> None:
    task = place.launch(NAPPING)
    place.ready(task)
    record = task.folder / "task.json"
    genuine = record.read_text()
    record.write_text(json.dumps({**json.loads(genuine), "started": 1, "supervisor_started": 1}))
    assert place.launcher.poll(task.job_id) == Pulse(alive=False, exit_code=None)
    record.write_text(genuine)


def test_an_engine_that_does_not_answer_is_named_with_its_cure(tmp_path: Path) -> None:
    launcher = ContainerLauncher(tmp_path, {}, lambda: docker.DockerClient(base_url="tcp://127.0.0.1:1", timeout=2))
    with pytest.raises(Unavailable, match=r"does not answer.*systemctl start docker"):
        launcher.poll("any")
    with pytest.raises(Unavailable):
        launcher.running()


def test_what_a_container_is_asked_for() -> None:
    task = Task(
        "birds",
        "pytorch",
        ["-m", "training_api", "/checkpoints/birds"],
        Path("/checkpoints/birds"),
        read_only=[Path("/datasets/birds")],
        gpus=[0, 2],
        limits=Limits(memory_bytes=8_000_000_000, cpus=1.5),
        environment={"SEED": "3"},
    )
    request = container_request(task, "an_image", lambda path: Path("/home/ada") / path.relative_to("/"), "1000:1001")
    assert request == {
        "image": "an_image",
        "entrypoint": ["/bin/sh", "-c", 'exec "$@" >>"$0" 2>&1', "/checkpoints/birds/train.log"],
        "command": ["python", "-m", "training_api", "/checkpoints/birds"],
        "name": "maskwright-birds",
        "labels": {"maskwright.job": "birds", "maskwright.checkpoints": "/home/ada/checkpoints"},
        "mounts": [
            {"Type": "bind", "Source": "/home/ada/checkpoints/birds", "Target": "/checkpoints/birds", "ReadOnly": False},
            {"Type": "bind", "Source": "/home/ada/datasets/birds", "Target": "/datasets/birds", "ReadOnly": True},
        ],
        "environment": {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2", "SEED": "3"},
        "working_dir": "/checkpoints/birds",
        "user": "1000:1001",
        "init": True,
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 4096,
        "shm_size": "2g",
        "log_config": {"type": "json-file", "config": {"max-size": "1m", "max-file": "1"}},
        "device_requests": [{"Driver": "nvidia", "DeviceIDs": ["0", "2"], "Capabilities": [["gpu"]]}],
        "mem_limit": 8_000_000_000,
        "memswap_limit": 8_000_000_000,
        "nano_cpus": 1_500_000_000,
    }


def test_a_container_without_gpus_is_given_none() -> None:
    request = container_request(Task("a", "pytorch", [], Path("/c/a")), "an_image", lambda path: path, "0:0")
    assert "device_requests" not in request
    assert request["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_a_container_that_was_never_started_has_no_exit_code() -> None:
    state = {"Running": False, "FinishedAt": "0001-01-01T00:00:00Z", "ExitCode": 0, "OOMKilled": False}
    assert read_pulse(state) == Pulse(alive=False, exit_code=None)


def test_paths_of_this_container_are_named_as_the_host_does() -> None:
    mounts = read_mounts(
        {"Mounts": [{"Destination": "/checkpoints", "Source": "/home/ada/c"}, {"Destination": "/checkpoints/old", "Source": "/mnt/old"}]}
    )
    host_path = host_paths(mounts)
    assert host_path(Path("/checkpoints/birds")) == Path("/home/ada/c/birds")
    assert host_path(Path("/checkpoints/old/bees")) == Path("/mnt/old/bees")
    with pytest.raises(Invalid, match="/tmp/x"):
        host_path(Path("/tmp/x"))
    assert host_paths(None)(Path("/any/where")) == Path("/any/where")


def test_every_engine_has_an_image() -> None:
    assert training_images("cpu_mkl") == {
        "pytorch": "pytorch_semantic_segmentation_training_api_cpu",
        "gluon": "gluoncv_semantic_segmentation_training_api_cpu_mkl",
        "majority": "pytorch_semantic_segmentation_training_api_cpu",
    }
    assert set(training_images("gpu")) == set(ENGINES)
