"""What the OpenAPI documents promise is what is done, whatever is sent: schemathesis over each, with a token and without."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings, strategies

from contracts.tokens import proof_of
from tests.conftest import draw_dataset, run_job
from tests.test_doors import OWNERS, TOKEN, apps, listening
from tests.test_training import write_job
from training_api.figures import Events
from training_api.original import Waiting, create_app

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis needs Python 3.11")
of_openapi = pytest.importorskip("schemathesis.specs.openapi.checks")
EXAMPLES = 6
"""A route, drawn anew at each run but CI's: over weeks that is thousands."""
CHECKS = [
    pytest.importorskip("schemathesis.checks").not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_headers_conformance,
    of_openapi.response_schema_conformance,
]
PHASES = [Phase.explicit, Phase.generate]
STARTS_WORK = {"/v1/self-test", "/v1/imports"}
"""Left out with a token: an empty wish starts a training, and a folder of this machine that happens to exist is read."""


@pytest.fixture(autouse=True)
def whole_floats() -> None:
    """Numeric libraries that other tests of this process load let it take the smallest numbers for zero, which Hypothesis refuses."""
    ctypes.CDLL("libm.so.6").fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV


OPEN = {"/v1/health", "/health"}
KNOWN = "known"
"""The name of a dataset, a job and its model."""
NAMES = {"name", "job", "model", "dataset"}
"""Parts of an address that mean one of them."""


@pytest.fixture(params=["docker_sdk_api", "inference_api", "a job that waits"])
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    if request.param == "a job that waits":
        monkeypatch.setenv("PROOFS", proof_of(TOKEN))
        folder = write_job(tmp_path / "old", tmp_path / "gone", "majority")
        return create_app(Waiting(folder, Events(folder)))
    draw_dataset(tmp_path / "datasets" / KNOWN)
    with TestClient(apps(tmp_path, TOKEN)[0], headers=OWNERS) as client:
        run_job(client, name=KNOWN, dataset=KNOWN)
    sdk, inference, _ = apps(tmp_path, TOKEN)
    return {"docker_sdk_api": sdk, "inference_api": inference}[request.param]


def ask(app: FastAPI, token: dict[str, str], examples: int) -> int:
    """Send each route of the document what it says it takes, and what it does not. How many requests that were."""
    sent = 0
    with listening(app) as address:
        for found in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
            operation = found.ok()
            if token and operation.path in STARTS_WORK:
                continue

            @settings(max_examples=examples, phases=PHASES, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(), there=strategies.booleans())
            def look(case: Any, there: bool) -> None:
                nonlocal sent
                sent += 1
                if there:  # nearly every name that is drawn is nobody's, and goes no further
                    case.path_parameters |= dict.fromkeys(NAMES & {*case.path_parameters}, KNOWN)
                answer = case.call(base_url=address, headers=token or None, timeout=30, allow_redirects=False)
                if not token and case.path not in OPEN:
                    assert answer.status_code == 401, (case.method, case.path)
                case.validate_response(answer, checks=CHECKS)

            look()
    return sent


def test_with_a_token_every_answer_is_one_that_the_document_names(app: FastAPI) -> None:
    assert ask(app, OWNERS, EXAMPLES) >= len(app.openapi()["paths"]) > 7


def test_without_a_token_every_route_of_the_document_is_refused(app: FastAPI) -> None:
    assert ask(app, {}, 2) >= len(app.openapi()["paths"])
