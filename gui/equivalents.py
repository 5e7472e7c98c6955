"""The same training without the pages: as a command for a terminal and as a call over REST, to copy."""

import json
import shlex

from contracts.job import JobRequest
from gui.figures import setting
from gui.pages import who_asks


def command_for(asked: JobRequest) -> str:
    """The same training from a terminal, in lines of what belongs together; what equals a default is left out."""
    rows = [["maskwright", "train", asked.dataset, "--name", asked.name]]
    rows += [["--engine", asked.engine, "--network", asked.network, "--backbone", asked.backbone]]
    changed, more = asked.model_dump(exclude_defaults=True), list[str]()
    for name in ("weights", "weights_from", "processes", "nodes", "memory_limit", "cpus", "priority", "validation_share", "seed"):
        if name in changed:
            more += [f"--{name.replace('_', '-')}", setting(changed[name])]
    for gpu in asked.gpus:
        more += ["--gpu", str(gpu)]
    rows += [more] if more else []
    rows += [["--set", f"{name}={setting(value)}"] for name, value in asked.hyperparameters.items()]
    return " \\\n  ".join(map(shlex.join, rows))


def call_for(asked: JobRequest, url: str) -> str:
    """The same training over REST, with curl; what equals a default is left out."""
    named = asked.model_dump(include={"name", "dataset", "engine", "network", "backbone"})
    body = json.dumps(named | asked.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False)
    token = ' \\\n  -H "Authorization: Bearer $MASKWRIGHT_TOKEN"' if who_asks() else ""
    return f"curl -X POST {url}/v1/jobs{token} \\\n  -H 'content-type: application/json' \\\n  -d {shlex.quote(body)}"
