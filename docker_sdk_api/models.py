"""Published models: what is known of each, taken out of service and back, deleted and brought back."""

import os
from pathlib import Path
from typing import BinaryIO

from annotations.dataset import open_dataset
from annotations.doctor.checking import fingerprint_now
from annotations.split import Split
from contracts.answers import DeletedJob
from contracts.errors import Invalid, NotFound
from contracts.job_folder import JobFolder, write_aside
from contracts.model import MODEL_FILE, PublishedModel, read_model
from contracts.plain import open_plain, read_plain, size_of
from docker_sdk_api.deleted import Deleted
from docker_sdk_api.jobs import Jobs

GRAPH = "model.onnx"
EXAMPLE = "example.jpg"


class Models:
    """The models of all jobs. A model has the name of its job and lies in its folder."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._known: dict[str, tuple[tuple[int, int], PublishedModel]] = {}
        self.deleted = Deleted(jobs.settings.checkpoints, jobs.settings.deleted_kept_minutes, part="model")

    def all(self, limit: int | None = None) -> list[PublishedModel]:
        """Newest first; a damaged one does not hide the others."""
        checkpoints = self.jobs.settings.checkpoints
        found, names = [], self.jobs.names()
        for gone in set(self._known).difference(names):
            self._known.pop(gone, None)
        for name in names:
            place = f"{checkpoints}/{name}/model"  # no Path: asked for each of a thousand jobs
            if not os.path.isdir(place) or os.path.islink(place):  # noqa: PTH112, PTH114
                continue
            try:
                found.append(self._read(JobFolder(checkpoints / name)))
            except (FileNotFoundError, NotADirectoryError, ValueError):
                continue
        return sorted(found, key=lambda model: model.created, reverse=True)[:limit]

    def one(self, name: str) -> PublishedModel:
        """With whether its dataset has changed since. Raises NotFound."""
        folder = self.folder(name)
        model, dataset = self._read(folder), folder.job().dataset_folder
        if not dataset.is_dir():
            return model.model_copy(update={"dataset_now": "gone" if model.dataset_fingerprint else "unknown"})
        present = fingerprint_now(dataset)
        known = bool(model.dataset_fingerprint and present)
        now = ("same" if present == model.dataset_fingerprint else "changed") if known else "unknown"
        return model.model_copy(update={"dataset_now": now})

    def pictures(self, name: str, datasets: Path) -> list[str]:
        """Stems of the pictures that scored it, as far as its dataset is still here and has them."""
        folder = self.folder(name)
        dataset = folder.job().dataset_folder
        if dataset.parent != datasets or not dataset.is_dir():
            return []
        try:
            there = {pair.stem for pair in open_dataset(dataset).pairs}
            split = Split.model_validate_json(read_plain(folder.split_file))
        except (Invalid, FileNotFoundError):
            return []
        return [stem for stem in split.validation if stem in there]

    def retire(self, name: str) -> None:
        """inference_api serves it no longer; everything of it stays."""
        write_aside(self.folder(name).retired_file, "")

    def publish(self, name: str) -> None:
        """Serve a retired model again."""
        self.folder(name).retired_file.unlink(missing_ok=True)

    def delete(self, name: str) -> DeletedJob:
        """Move a model aside, to go for good later; its job stays, with curves and weights."""
        return self.deleted.take(self.folder(name).path)

    def file(self, name: str, file: str) -> BinaryIO:
        """A file of a model, to read. Raises NotFound."""
        folder = self.folder(name)
        try:
            return open_plain(folder.model / file, folder.path)
        except FileNotFoundError:
            cure = "A model of the engine majority has no graph, and one of an older version no example."
            raise NotFound(f"The model “{name}” has no {file}.", cure) from None

    def folder(self, name: str) -> JobFolder:
        """Its job's. Raises NotFound."""
        return JobFolder(self.jobs.model_folder(name).parent)

    def _read(self, folder: JobFolder) -> PublishedModel:
        """A model, its files looked at again only where it was published anew: lists of a hundred are asked for often."""
        stat = (folder.model / MODEL_FILE).stat()
        mark, known = (stat.st_ino, stat.st_mtime_ns), self._known.get(folder.name)
        if known is None or known[0] != mark:
            known = self._known[folder.name] = (mark, self._look(folder))
        return known[1].model_copy(update={"retired": folder.retired_file.exists()})

    def _look(self, folder: JobFolder) -> PublishedModel:
        model, job = read_model(folder.model), self.jobs.standing.job(folder)
        sizes = {path.name: size_of(path) for path in folder.model.iterdir()}
        return PublishedModel(
            **model.model_dump(),
            size=sum(sizes.values()),
            graph_size=sizes.get(GRAPH, 0),
            example=EXAMPLE in sizes,
            imported=job.imported,
            dataset_fingerprint=job.dataset_fingerprint,
        )
