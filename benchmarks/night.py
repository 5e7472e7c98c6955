"""A night in an hour: ./run/bench.sh night [--jobs 300] [--requests 20000] [--streams 100] [--containers]

The three services with short jobs one after the other, predictions, and browsers that follow whatever job runs and look at pages, all
at once. Taken of each service: its memory (PSS would hide what it shares: this is what it holds by itself), as the median of each
tenth of the jobs, the first of which is for warming up; and its file handles, before all this and when nobody asks any more.
With --containers trainings are containers, whose images (build/build_cpu.yml) this machine's engine must have.
"""

import argparse
import asyncio
import io
import statistics
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
from docker.models.containers import Container
from loops.services import NETWORK, QUICK, SERVICES, Services
from machine import report
from PIL import Image

from annotations.dataset import open_dataset
from contracts.job import ENDED
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
    asked_again: int = 0
    """As browsers do where a connection that was kept was closed just before it was used again, or while it was used."""
    over: bool = False


def held(services: Services) -> dict[str, tuple[int, int]]:
    """Of each service: bytes that only it holds, and open file handles."""
    processes = {name: psutil.Process(process.pid) for name, process in services.processes.items()}
    return {name: (process.memory_full_info().uss, process.num_fds()) for name, process in processes.items()}


def containers(services: Services) -> list[Container]:
    """Those of the services' jobs that the engine knows, running or not."""
    label = f"{INSTALLATION}={services.folder / 'checkpoints'}"
    found: list[Container] = docker.from_env().containers.list(all=True, ignore_removed=True, filters={"label": label})
    return found


async def submit(services: Services, night: Night, jobs: int) -> list[dict[str, float]]:
    """All jobs, a few at once; the bytes that each service held in each tenth of them."""
    tenths = []
    for tenth in range(10):
        seen: list[dict[str, tuple[int, int]]] = []
        for number in range(jobs * tenth // 10, jobs * (tenth + 1) // 10):
            while len(await asyncio.to_thread(running, services)) >= AT_ONCE:
                seen.append(held(services))
                await asyncio.sleep(0.2)
            await asyncio.to_thread(services.submit, f"job-{number}", QUICK)
            night.submitted += 1
            seen.append(held(services))
        tenths.append({name: statistics.median(level[name][0] for level in seen) for name in SERVICES})
        levels = ", ".join(f"{name} {bytes_ / 1e6:.0f} MB" for name, bytes_ in tenths[-1].items())
        print(f"{night.submitted} jobs, {night.answered} predictions, {night.streams} streams: {levels}", file=sys.stderr, flush=True)
    while await asyncio.to_thread(running, services):
        await asyncio.sleep(0.2)
    return tenths


def running(services: Services) -> list[str]:
    return [name for name, state in services.states().items() if state not in ENDED]


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
        try:
            if night.submitted:
                await follow(client, night)
            if place % LOOKS == 0:
                (await client.get(PAGES[(place + night.streams) % len(PAGES)])).raise_for_status()
        except httpx.TransportError:
            night.asked_again += 1
        await asyncio.sleep(1)


async def follow(client: httpx.AsyncClient, night: Night) -> None:
    """The last job, to its end."""
    ended = False
    async with client.stream("GET", f"/jobs/job-{night.submitted - 1}/events", headers={"Last-Event-ID": "0"}) as answer:
        night.streams += 1
        try:
            async for line in answer.aiter_lines():
                ended = ended or line == "event: end"
        finally:
            night.cut += not ended


async def spend(services: Services, asked: argparse.Namespace) -> tuple[Night, list[dict[str, float]]]:
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
        tenths = await submit(services, night, asked.jobs)
        await asyncio.gather(*working)
        night.over = True
        await asyncio.gather(*browsers)
    return night, tenths


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
            time.sleep(SETTLED)
            before = held(services)
            started = time.monotonic()
            night, tenths = asyncio.run(spend(services, asked))
            minutes = (time.monotonic() - started) / 60
            time.sleep(SETTLED)
            after = held(services)
            states = services.states()
            left = sum(map(len, services.trainings().values())) + (len(containers(services)) if asked.containers else 0)
        finally:
            services.end()
            for container in containers(services) if asked.containers else []:
                container.remove(force=True)
    growth = {name: round(tenths[-1][name] / tenths[1][name], 3) for name in SERVICES}
    rows = []
    for name in SERVICES:
        megabytes = [f"{tenth[name] / 1e6:.0f}" for tenth in tenths]
        rows.append((name, ", ".join(megabytes), f"{growth[name]:.3f} ×", f"{before[name][1]} → {after[name][1]}"))
    print(f"{night.submitted} jobs, {night.answered} predictions and {night.streams} streams in {minutes:.0f} minutes", file=sys.stderr)
    figures = {
        "jobs_not_finished": sum(states.get(f"job-{number}") != "finished" for number in range(asked.jobs)),
        "wrong_answers": night.wrong,
        "refused": sum(night.refused.values()),
        "streams_cut": night.cut,
        "asked_again": night.asked_again,
        "memory_growth": growth,
        "handles_left": {name: after[name][1] - before[name][1] for name in SERVICES},
        "trainings_left": left,
    }
    report(("service", "MB in each tenth", "from the second to the last", "handles before and after"), rows, figures)


if __name__ == "__main__":
    main()
