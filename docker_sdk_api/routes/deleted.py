"""/v1/deleted: jobs that can still be brought back, bring one back, remove one for good."""

from fastapi import APIRouter, Request, Response

from contracts.answers import DeletedJob
from contracts.job import JobView
from docker_sdk_api.jobs import Jobs

routes = APIRouter(prefix="/v1/deleted", tags=["jobs"])


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


@routes.get("")
def list_deleted(request: Request) -> list[DeletedJob]:
    """The last one first, each with the moment at which it goes for good."""
    return _jobs(request).deleted.all()


@routes.post("/{id}/undo")
def undo(request: Request, id: str) -> JobView:
    """Bring a deleted job back as it was, with its model."""
    jobs = _jobs(request)
    return jobs.bring_back(id)


@routes.delete("/{id}", status_code=204)
def remove(request: Request, id: str) -> Response:
    """For good, now."""
    _jobs(request).deleted.remove(id)
    return Response(status_code=204)
