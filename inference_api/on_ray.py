"""inference_api on a Ray cluster: `./run/cluster.sh serve`, or Ray's own `serve run inference_api.on_ray:application`. docs/replicas.md

Every replica is the whole app with models of its own in memory, over the one checkpoints folder. Imported only where Ray is installed.
"""

import os
from pathlib import Path

import ray
from fastapi import FastAPI
from pydantic_settings import BaseSettings, SettingsConfigDict
from ray import serve

from contracts.serving import serving
from inference_api.app import create_app
from inference_api.settings import Settings

SOURCES = Path(__file__).resolve().parent.parent
WATCHERS = 16
"""Health checks and the like that are answered although the queue of predictions is full."""


class Replicas(BaseSettings):
    """How many there are, and what Ray promises each of them; variables such as SERVE_REPLICAS."""

    model_config = SettingsConfigDict(env_prefix="SERVE_", frozen=True)

    replicas: int = 2
    cpus: float = 1
    gpus: float = 0


def application(_: dict[str, str]) -> serve.Application:
    """With the settings of whoever deploys it, which each replica is given with its code."""
    settings, wanted = Settings(), Replicas()
    at_once = settings.predictions_at_once or max(2, int(wanted.cpus))
    given = settings.model_copy(update={"predictions_at_once": at_once, "checkpoints": settings.checkpoints.resolve()})

    def build() -> FastAPI:
        return create_app(given)

    replica = serve.deployment(
        serve.ingress(build)(),
        name="inference_api",
        num_replicas=wanted.replicas,
        max_ongoing_requests=at_once + settings.queue + WATCHERS,  # whoever comes when the queue is full is told so by inference_api
        ray_actor_options={
            "num_cpus": wanted.cpus,
            "num_gpus": wanted.gpus,
            "runtime_env": {"env_vars": {"PYTHONPATH": str(SOURCES)}},
        },
    )
    return replica.bind()


def main() -> None:
    """Deploy it, or put another number of replicas or other settings in the place of those that run, one replica after another."""
    settings = Settings()
    options = serving("inference_api", settings, settings.inference_host, settings.inference_port)
    if os.environ.get("RAY_ADDRESS", "").startswith("http"):  # which is how docker_sdk_api asks the head
        del os.environ["RAY_ADDRESS"]
    ray.init(address="auto", namespace="serve", log_to_driver=False)
    serve.start(http_options={key: value for key, value in options.items() if key in ("host", "port", "ssl_certfile", "ssl_keyfile")})
    serve.run(application({}), name="inference_api")
    print(f"inference_api answers at {settings.inference_host}:{settings.inference_port} of every node with a replica.", flush=True)


if __name__ == "__main__":
    main()
