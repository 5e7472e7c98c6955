"""Asks an inference API from Python, and waits where it says so: `Client` for scripts, `AsyncClient` for programs with an event loop.

    with Client("http://127.0.0.1:4343") as client:
        mask = client.mask("cracks", "photo.jpg")

Needs httpx, pydantic, numpy and Pillow. What the service refuses is raised as one of contracts.errors' problems, with its cause and cure.
"""

from maskwright_client.asks import BatchState
from maskwright_client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "BatchState", "Client"]
