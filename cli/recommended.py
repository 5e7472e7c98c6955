"""`maskwright train --recommended`: the network and the settings that suit a dataset and this machine, said with their reasons."""

from pathlib import Path
from typing import Any

from rich.console import Console

from annotations.doctor.check import check_dataset
from contracts.networks import CATALOGUE, Network, find_network
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import place_of, recommend, recommend_network


def recommended(
    jobs: Jobs, folder: Path, three: tuple[str, str, str], validation_share: float, gpus: list[int], console: Console
) -> tuple[Network, dict[str, Any]]:
    """A network and what differs from its defaults. `three`: engine, network and backbone; without a network the one to take."""
    report = check_dataset(folder)
    report.refuse_errors()
    place = place_of(describe_machine(jobs.settings, jobs.launcher), gpus)
    if three[1]:
        row = find_network(*three)
    else:
        row, why = recommend_network(report, place, [row for row in CATALOGUE if row.engine == three[0]], validation_share)
        console.print(f"[bold]{row.title}[/]: {why}", highlight=False)
    rows = recommend(report, place, row, validation_share)
    for found in rows:
        usual = "" if found.value == found.usual else f" (the network's own is {found.usual})"
        console.print(f"[bold]{found.setting} {found.value}[/]{usual}: {found.reason}", highlight=False)
    return row, {found.setting: found.value for found in rows if found.value != found.usual}
