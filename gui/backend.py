"""The two APIs behind the pages, a method a question. The browser talks to the pages alone."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, BinaryIO, Literal

import httpx
from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from annotations.doctor.findings import PairView
from contracts.answers import DeletedJob, Forecast, ImportView, Kept, LogPart, Machine, Recommendation, Speed, Step
from contracts.errors import NotFound, NoToken, Unavailable
from contracts.job import Confusion, JobRequest, JobView
from contracts.model import PublishedModel
from contracts.queue import QueueView
from contracts.tokens import NamedToken, NewToken, Who
from contracts.weights import WeightsChoice
from gui.answers import Change, Checking, DatasetReport, DatasetRow, Format, NetworkChoice, Seen, Segments, ServedModel
from gui.asking import FOR_EVER, Asking, as_it_answers, client_at, part, read_rows

_SPEEDS = TypeAdapter(dict[str, Speed])
_DAYS = TypeAdapter(dict[str, float])


class Backend(Asking):
    """What the pages ask of the two APIs. Every method raises the API's own Problem, or Unavailable where it does not answer."""

    @classmethod
    def at(cls, docker_sdk_api_url: str, inference_api_url: str, token: str = "", certificate: str = "") -> "Backend":
        return cls(client_at(docker_sdk_api_url, certificate), client_at(inference_api_url, certificate), token)

    async def who(self, token: str, login: bool = False) -> Who:
        """Whose token this is. Raises NoToken. `login`: it is written down."""
        method, path = ("POST", "/v1/login") if login else ("GET", "/v1/who")
        answer = await self._ask(self.docker_sdk, method, path, headers={"Authorization": f"Bearer {token}"})
        return Who.model_validate_json(answer.content)

    async def note_wrong_login(self) -> None:
        """Have it written down that somebody came with a token that is nobody's. It is not sent: it would count as the pages' mistake."""
        with suppress(NoToken):
            await self._ask(self.docker_sdk, "POST", "/v1/login", headers={"X-On-Behalf-Of": "-"})

    async def tokens(self) -> list[NamedToken]:
        return await self._rows(NamedToken, "/v1/tokens")

    async def make_token(self, name: str, scope: str, days: float | None) -> NewToken:
        body = {"name": name, "scope": scope, "days": days}
        return NewToken.model_validate_json((await self._ask(self.docker_sdk, "POST", "/v1/tokens", json=body)).content)

    async def revoke_token(self, name: str) -> None:
        await self._ask(self.docker_sdk, "DELETE", f"/v1/tokens/{part(name)}")

    async def machine(self) -> Machine:
        return Machine.model_validate(await self._read("/v1/machine"))

    async def networks(self) -> list[NetworkChoice]:
        return await self._rows(NetworkChoice, "/v1/networks")

    async def weights(self, network: str) -> list[WeightsChoice]:
        """What a network (engine/network/backbone) can start from."""
        return await self._rows(WeightsChoice, "/v1/weights", {"network": network})

    async def recommendation(self, dataset: str, network: str, validation_share: float, gpus: Sequence[str]) -> Recommendation:
        """Which network to take, and the settings for `network`; of "" for the one to take."""
        words = {"dataset": dataset, "network": network, "validation_share": str(validation_share), "gpus": list(gpus)}
        answer = await self._ask(self.docker_sdk, "GET", "/v1/recommendation", params=words)
        return Recommendation.model_validate(answer.json())

    async def forecast(self, request: JobRequest) -> Forecast:
        """What would come of a training; nothing is started."""
        answer = await self._ask(self.docker_sdk, "POST", "/v1/forecast", json=request.model_dump(mode="json"))
        return Forecast.model_validate_json(answer.content)

    async def speeds(self, gpus: Sequence[str]) -> dict[str, Speed]:
        """How fast each network learns here, by its key; on the processor where no GPU is given."""
        answer = await self._ask(self.docker_sdk, "GET", "/v1/speeds", params={"gpus": list(gpus)})
        return _SPEEDS.validate_json(answer.content)

    async def datasets(self) -> list[DatasetRow]:
        return await self._rows(DatasetRow, "/v1/datasets")

    async def dataset(self, name: str) -> DatasetReport:
        """The check's report. Raises Unavailable while the check still runs."""
        found = await self.checked(name)
        if isinstance(found, Checking):
            cause = f"The dataset {name} is still being checked: {found.done} of {found.total} pictures."
            raise Unavailable(cause, "Wait for the check to end, then go on; its page shows how far it is.")
        return found

    async def checked(self, name: str) -> DatasetReport | Checking:
        """The check's report, or how far the check is where it takes longer than a moment."""
        answer = await self._ask(self.docker_sdk, "GET", dataset_path(name))
        if answer.status_code == 202:
            return Checking.model_validate(answer.json()["checking"])
        return DatasetReport.model_validate(answer.json())

    async def pictures(self, name: str) -> list[PairView]:
        return await self._rows(PairView, dataset_path(name, "pictures"))

    async def preview_cure(self, name: str, code: str) -> list[Change]:
        """What a cure would change, file by file; nothing is changed yet."""
        return await self._rows(Change, dataset_path(name, "cures", code))

    async def apply_cure(self, name: str, code: str) -> str:
        """The id by which the cure can be undone."""
        answer = await self._ask(self.docker_sdk, "POST", dataset_path(name, "cures", code))
        return str(answer.json()["undo"])

    async def undo_cure(self, name: str, undo: str) -> None:
        await self._ask(self.docker_sdk, "POST", dataset_path(name, "undo", undo))

    async def formats(self) -> list[Format]:
        return await self._rows(Format, "/v1/formats")

    async def start_upload(self, files: Sequence[tuple[str, int]]) -> str:
        """The id of an upload of files, each given by its name and its size in bytes."""
        body = {"files": [{"name": name, "size": size} for name, size in files]}
        answer = await self._ask(self.docker_sdk, "POST", "/v1/uploads", json=body)
        return str(answer.json()["id"])

    async def send_chunk(self, upload: str, index: int, offset: int, chunk: bytes) -> None:
        path = f"/v1/uploads/{part(upload)}/files/{index}"
        await self._ask(self.docker_sdk, "PUT", path, params={"offset": str(offset)}, content=chunk)

    async def forget_upload(self, upload: str) -> None:
        await self._ask(self.docker_sdk, "DELETE", f"/v1/uploads/{part(upload)}")

    async def start_import(self, wish: Mapping[str, Any]) -> str:
        """The id of an import, of an upload or of a folder on the machine."""
        return str((await self._ask(self.docker_sdk, "POST", "/v1/imports", json=wish)).json()["id"])

    async def imported(self, id: str) -> ImportView:
        return ImportView.model_validate(await self._read(f"/v1/imports/{part(id)}"))

    async def imports(self) -> list[ImportView]:
        return await self._rows(ImportView, "/v1/imports")

    async def split(self, name: str, validation_share: float, seed: int, test_share: float = 0.0) -> dict[str, list[str]]:
        """Stems of the pictures that teach (training), of those that score (validation), and of those that score at the end (test)."""
        answer: dict[str, list[str]] = await self._read(dataset_path(name, "split"), split_words(validation_share, seed, test_share))
        return answer

    async def store_split(self, name: str, validation_share: float, seed: int, test_share: float) -> None:
        """Lay a split with the dataset: every job has it from now on."""
        await self._ask(self.docker_sdk, "PUT", dataset_path(name, "split"), params=split_words(validation_share, seed, test_share))

    async def forget_split(self, name: str) -> None:
        await self._ask(self.docker_sdk, "DELETE", dataset_path(name, "split"))

    async def jobs(self, names: Sequence[str] | None = None, running: bool | None = None, limit: int | None = None) -> list[JobView]:
        """Jobs with as much of each as a list shows, newest first: all, those named, those that run, the first few."""
        return [] if names is not None and not names else (await self.find_jobs("", running, names or (), 0, limit))[0]

    async def find_jobs(
        self, search: str, running: bool | None, names: Sequence[str] = (), offset: int = 0, limit: int | None = None
    ) -> tuple[list[JobView], int]:
        """A part of the jobs whose name, dataset or network holds the words, and how many there are of them in all."""
        words: dict[str, Any] = {"brief": "true", "search": search, "offset": str(offset), "name": list(names)}
        words |= {"running": str(running).lower()} if running is not None else {}
        words |= {"limit": str(limit)} if limit is not None else {}
        answer = await self._ask(self.docker_sdk, "GET", "/v1/jobs", params=words)
        return read_rows(JobView, answer.content), int(answer.headers["x-total-count"])

    async def job_names(self) -> list[str]:
        """Of all jobs, newest first: the names that a new one cannot have."""
        return await self._rows(str, "/v1/job-names")

    async def job(self, name: str) -> JobView:
        return JobView.model_validate(await self._read(f"/v1/jobs/{part(name)}"))

    async def log_part(self, name: str, lines: int) -> LogPart:
        """The last lines that a job printed, and where in its log they stand."""
        answer = await self._ask(self.docker_sdk, "GET", job_path(name, "log", "part"), params={"lines": str(lines)})
        return LogPart.model_validate_json(answer.content)

    async def confusion(self, name: str) -> Confusion | None:
        """None where nothing was scored yet."""
        try:
            return Confusion.model_validate(await self._read(job_path(name, "confusion")))
        except NotFound:
            return None

    async def start_job(self, request: JobRequest) -> JobView:
        answer = await self._ask(self.docker_sdk, "POST", "/v1/jobs", json=request.model_dump(mode="json"))
        return JobView.model_validate(answer.json())

    async def queue(self) -> QueueView:
        return QueueView.model_validate(await self._read("/v1/queue"))

    async def change_queue(self, job: str, change: str, wish: dict[str, object]) -> None:
        """`change`: move, priority, hold or release, with what the API wants to know for it."""
        await self._ask(self.docker_sdk, "POST", f"/v1/queue/{part(job)}/{change}", json=wish)

    async def cancel_queued(self, job: str) -> None:
        await self._ask(self.docker_sdk, "DELETE", f"/v1/queue/{part(job)}")

    async def stop_job(self, name: str, keep_best: bool) -> None:
        await self._ask(self.docker_sdk, "POST", f"/v1/jobs/{part(name)}/stop", json={"keep_best": keep_best})

    async def resume_job(self, name: str) -> None:
        await self._ask(self.docker_sdk, "POST", f"/v1/jobs/{part(name)}/resume")

    async def delete_job(self, name: str) -> DeletedJob:
        """Aside, for a while: see deleted_jobs."""
        answer = await self._ask(self.docker_sdk, "DELETE", job_path(name))
        return DeletedJob.model_validate_json(answer.content)

    async def deleted_jobs(self) -> list[DeletedJob]:
        """Those that can still be brought back, the last one first."""
        return await self._rows(DeletedJob, "/v1/deleted")

    async def undo_delete(self, id: str) -> JobView:
        answer = await self._ask(self.docker_sdk, "POST", f"/v1/deleted/{part(id)}/undo")
        return JobView.model_validate_json(answer.content)

    async def delete_for_good(self, id: str) -> None:
        await self._ask(self.docker_sdk, "DELETE", f"/v1/deleted/{part(id)}")

    async def kept(self, days: Mapping[str, str]) -> Kept:
        """What old jobs keep that would go by such rules."""
        return Kept.model_validate(await self._read("/v1/retention", days))

    async def retention_rules(self) -> dict[str, float]:
        """Those that are applied every hour; 0: never."""
        return _DAYS.validate_python(await self._read("/v1/retention/rules"))

    async def let_go(self, days: Mapping[str, str]) -> Kept:
        """What went."""
        return Kept.model_validate_json((await self._ask(self.docker_sdk, "POST", "/v1/retention", json=dict(days))).content)

    async def models(self, limit: int | None = None) -> list[PublishedModel]:
        """Newest first, all or the first few; retired ones too."""
        answer = await self._ask(self.docker_sdk, "GET", "/v1/models", params={} if limit is None else {"limit": str(limit)})
        return read_rows(PublishedModel, answer.content)

    async def model(self, name: str) -> PublishedModel:
        return PublishedModel.model_validate(await self._read(model_path(name)))

    async def scored_pictures(self, model: str) -> list[str]:
        """Stems of the pictures of its dataset that scored a model."""
        return await self._rows(str, model_path(model, "pictures"))

    async def picture_file(self, dataset: str, stem: str) -> tuple[bytes, str]:
        """A picture of a dataset as it was brought, and its type."""
        answer = await self._ask(self.docker_sdk, "GET", dataset_path(dataset, "pictures", stem, "file"))
        return answer.content, answer.headers["content-type"]

    async def import_model(self, incoming: Request) -> tuple[str, bool]:
        """Pass a form with a model's zip on as it comes; the model's name, and whether it is there already or a job converts it."""
        headers = {name: incoming.headers[name] for name in ("content-type", "content-length") if name in incoming.headers}
        path = model_path("import")
        answer = await self._ask(self.docker_sdk, "POST", path, headers=headers, content=incoming.stream(), timeout=FOR_EVER)
        found = answer.json()
        return str(found.get("model") or found["job"]), "model" in found

    async def change_model(self, name: str, change: Literal["retire", "publish"]) -> None:
        await self._ask(self.docker_sdk, "POST", model_path(name, change))

    async def delete_model(self, name: str) -> DeletedJob:
        """Aside, for a while: see deleted_models."""
        answer = await self._ask(self.docker_sdk, "DELETE", model_path(name))
        return DeletedJob.model_validate_json(answer.content)

    async def deleted_models(self) -> list[DeletedJob]:
        """Those that can still be brought back, the last one first."""
        return await self._rows(DeletedJob, "/v1/deleted-models")

    async def undo_delete_model(self, id: str) -> PublishedModel:
        answer = await self._ask(self.docker_sdk, "POST", f"/v1/deleted-models/{part(id)}/undo")
        return PublishedModel.model_validate_json(answer.content)

    async def delete_model_for_good(self, id: str) -> None:
        await self._ask(self.docker_sdk, "DELETE", f"/v1/deleted-models/{part(id)}")

    async def see(self, model: str, picture: bytes, file_name: str) -> Seen:
        """Everything that a model answers about a picture, of one reading; how long that may take is its API's to say (DEADLINE)."""
        path, files = model_path(model, "predict"), {"picture": (file_name, picture)}
        answer = await self._ask(self.inference, "POST", path, params={"answer": "all"}, files=files, timeout=FOR_EVER)
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            listed = archive.read("segments.json")
            return Seen(Segments.model_validate_json(listed), listed, archive.read("mask.png"), archive.read("confidence.png"))

    async def predict_batch(self, model: str, answer: str, pictures: Sequence[tuple[str, BinaryIO]]) -> bytes:
        """One kind of answer about many pictures, given by file name and content: a zip, or a list as JSON."""
        path, files = model_path(model, "predict", "batch"), [("picture", picture) for picture in pictures]
        return (await self._ask(self.inference, "POST", path, params={"answer": answer}, files=files, timeout=FOR_EVER)).content

    async def served_model(self, name: str) -> ServedModel:
        """A model as the inference API has it. Raises NotFound where it is retired."""
        answer = await self._ask(self.inference, "GET", model_path(name))
        return ServedModel.model_validate_json(answer.content)

    async def training_ready(self) -> None:
        """Raises Unavailable, saying why, where no training can be started."""
        await self._ask(self.docker_sdk, "GET", "/v1/ready")

    async def inference_ready(self) -> None:
        """Raises Unavailable, saying why, where no prediction can be asked for."""
        await self._ask(self.inference, "GET", "/v1/ready")

    async def start_self_test(self, engine: str) -> str:
        """The name of a job that trains a tiny model."""
        answer = await self._ask(self.docker_sdk, "POST", "/v1/self-test", json={"engine": engine})
        return JobView.model_validate_json(answer.content).job.name

    async def self_test(self, job: str) -> list[Step]:
        """How far such a job has come, step by step."""
        return await self._rows(Step, f"/v1/self-test/{part(job)}")

    async def pass_on_predict(self, model: str, incoming: Request, *parts: str) -> StreamingResponse:
        """A prediction asked for through the pages' own address, as it comes; with "batch" one of many pictures."""
        path = model_path(model, "predict", *parts)
        headers = {name: incoming.headers[name] for name in ("content-type", "content-length", "accept") if name in incoming.headers}
        body, params = incoming.stream(), httpx.QueryParams(str(incoming.query_params))
        request = self.inference.build_request("POST", path, params=params, headers=headers, content=body, timeout=FOR_EVER)
        return await as_it_answers(self.inference, request)


def job_path(name: str, *parts: str) -> str:
    """The address of something of a job, at the training API."""
    return "/".join(["/v1/jobs", *map(part, (name, *parts))])


def model_path(name: str, *parts: str) -> str:
    """The address of something of a model, at either API."""
    return "/".join(["/v1/models", *map(part, (name, *parts))])


def dataset_path(name: str, *parts: str) -> str:
    """The address of something of a dataset, at the training API."""
    return "/".join(["/v1/datasets", *map(part, (name, *parts))])


def split_words(validation_share: float, seed: int, test_share: float) -> dict[str, str]:
    return {"validation_share": str(validation_share), "seed": str(seed), "test_share": str(test_share)}


def backend_of(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Asks = Annotated[Backend, Depends(backend_of)]
"""A route's parameter: the backend of the app it belongs to."""
