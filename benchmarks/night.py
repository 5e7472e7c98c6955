"""A night in an hour: ./run/bench.sh night [--jobs 300] [--requests 20000] [--streams 100] [--containers]

The three services with short jobs one after the other, predictions, and browsers that follow whatever job runs and look at pages, all
at once. Taken of each service: its memory (PSS would hide what it shares: this is what it holds by itself) and its file handles, after
the first tenth of the jobs, and at the end when nobody asks any more. With --containers trainings are containers, whose images
(build/build_cpu.yml) this machine's engine must have.
"""

import argparse
import asyncio
import io
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import docker
import httpx
import numpy as np
import psutil
from loops.services import NETWORK, QUICK, SERVICES, Services
from machine import report
from PIL import Image

from annotations.dataset import open_dataset
from docker_sdk_api.launchers.container import INSTALLATION

MODEL = "model"
AT_ONCE = 2
"""Jobs."""
CALLERS = 8
PAGES = ("/", "/jobs", "/models", "/datasets", "/machine")
LOOKS = 10
SETTLED = 15.0
"""Seconds of rest before handles and containers are counted: ended containers are let go every five."""
PATIENCE = httpx.Timeout(120, read=None)


@dataclass
class Night:
    """What happened."""

    submitted: int = 0
    answered: int = 0
    wrong: int = 0
    """Answers that are not the mask that the same picture got before all this."""
    refused: Counter[int] = field(default_factory=Counter)
    streams: int = 0
    cut: int = 0
    """Streams that ended without the job's end."""
    over: bool = False


def held(services: Services) -> dict[str, tuple[int, int]]:
    """Of each service: bytes that only it holds, and open file handles."""
    processes = {name: psutil.Process(process.pid) for name, process in services.processes.items()}
    return {name: (process.memory_full_info().uss, process.num_fds()) for name, process in processes.items()}


def containers(services: Services) -> int:
    """Those of the services' jobs that the engine knows, running or not."""
    return len(docker.from_env().containers.list(all=True, filters={"label": f"{INSTALLATION}={services.folder / 'checkpoints'}"}))


async def submit(services: Services, night: Night, jobs: int) -> dict[str, tuple[int, int]]:
    """All jobs, a few at once; what the services hold after the first tenth."""
    warm = held(services)
    for number in range(jobs):
        while True:
            states = await asyncio.to_thread(services.states)
            if sum(state not in ("finished", "stopped", "failed") for state in states.values()) < AT_ONCE:
                break
            await asyncio.sleep(0.1)
        await asyncio.to_thread(services.submit, f"job-{number}", QUICK)
        night.submitted += 1
        if number == jobs // 10:
            warm = held(services)
        if number % max(1, jobs // 10) == 0:
            levels = ", ".join(f"{name} {bytes_ / 1e6:.0f} MB and {handles} handles" for name, (bytes_, handles) in held(services).items())
            print(f"{night.submitted} jobs, {night.answered} predictions, {night.streams} streams: {levels}", file=sys.stderr, flush=True)
    while any(state not in ("finished", "stopped", "failed") for state in (await asyncio.to_thread(services.states)).values()):
        await asyncio.sleep(0.2)
    return warm


async def call(client: httpx.AsyncClient, night: Night, forms: list[bytes], expected: list[np.ndarray], requests: int) -> None:
    """Predictions, one after the other, until as many were answered as were asked for."""
    while night.answered < requests:
        number = night.answered % len(forms)
        night.answered += 1
        answer = await client.post(f"/v1/models/{MODEL}/predict", files={"picture": forms[number]})
        if answer.status_code == 200:
            night.wrong += not np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected[number])
        else:
            night.refused[answer.status_code] += 1


async def browse(client: httpx.AsyncClient, night: Night, place: int) -> None:
    """A browser: follows the job that was submitted last to its end, and again. One of so many looks at a page between."""
    while not night.over:
        name = f"job-{night.submitted - 1}"
        if night.submitted:
            ended = False
            async with client.stream("GET", f"/jobs/{name}/events", headers={"Last-Event-ID": "0"}) as answer:
                async for line in answer.aiter_lines():
                    ended = ended or line == "event: end"
            night.streams += 1
            night.cut += not ended
        if place % LOOKS == 0:
            (await client.get(PAGES[(place + night.streams) % len(PAGES)])).raise_for_status()
        await asyncio.sleep(1)


async def spend(services: Services, asked: argparse.Namespace) -> tuple[Night, dict[str, tuple[int, int]]]:
    pairs = open_dataset(services.folder / "datasets" / "plates").pairs
    forms = [pair.picture.read_bytes() for pair in pairs]
    night, limits = Night(), httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=services.address["inference_api"], timeout=PATIENCE, trust_env=False) as inference,
        httpx.AsyncClient(base_url=services.address["gui"], timeout=PATIENCE, limits=limits, trust_env=False) as gui,
    ):
        answers = [await inference.post(f"/v1/models/{MODEL}/predict", files={"picture": form}) for form in forms]
        expected = [np.asarray(Image.open(io.BytesIO(answer.raise_for_status().content))) for answer in answers]
        browsers = [asyncio.create_task(browse(gui, night, place)) for place in range(asked.streams)]
        calls = [call(inference, night, forms, expected, asked.requests) for _ in range(CALLERS)]
        working = [asyncio.create_task(call) for call in calls]
        warm = await submit(services, night, asked.jobs)
        await asyncio.gather(*working)
        night.over = True
        await asyncio.gather(*browsers)
    return night, warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("jobs", 300), ("requests", 20_000), ("streams", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--containers", action="store_true", help="trainings as containers")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="night-") as scratch:
        services = Services(Path(scratch).resolve(), LAUNCHER="container" if asked.containers else "process")
        try:
            services.submit(MODEL, NETWORK)
            while (state := services.states()[MODEL]) != "finished":
                if state in ("failed", "stopped"):
                    sys.exit(services.ask("GET", f"/v1/jobs/{MODEL}").text)
                time.sleep(1)
            started = time.monotonic()
            night, warm = asyncio.run(spend(services, asked))
            minutes = (time.monotonic() - started) / 60
            time.sleep(SETTLED)
            cold = held(services)
            states = [services.states().get(f"job-{number}") for number in range(asked.jobs)]
            left = sum(map(len, services.trainings().values())) + (containers(services) if asked.containers else 0)
        finally:
            services.end()
    rows = []
    for name in SERVICES:
        early, late = (f"{bytes_ / 1e6:.0f} MB, {handles} handles" for bytes_, handles in (warm[name], cold[name]))
        rows.append((name, early, late, f"{cold[name][0] / warm[name][0]:.3f} ×"))
    print(f"{night.submitted} jobs, {night.answered} predictions and {night.streams} streams in {minutes:.0f} minutes", file=sys.stderr)
    figures = {
        "jobs_not_finished": sum(state != "finished" for state in states),
        "wrong_answers": night.wrong,
        "refused": sum(night.refused.values()),
        "streams_cut": night.cut,
        "memory_growth": {name: round(cold[name][0] / warm[name][0], 3) for name in SERVICES},
        "handles_growth": {name: cold[name][1] - warm[name][1] for name in SERVICES},
        "trainings_left": left,
    }
    report(("service", "after a tenth", "in the end", "memory"), rows, figures)


if __name__ == "__main__":
    main()
