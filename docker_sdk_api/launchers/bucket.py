"""An object store by a few verbs, for docker_sdk_api and the nodes alike: needs fsspec and s3fs, and nothing of this project.

Where it is and who asks are told by the environment, as S3's own tools are: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, or the files in ~/.aws. An object is there whole or not at all, and is seen at once by everybody.
"""

import asyncio
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec  # type: ignore[import-untyped,import-not-found,unused-ignore]
from botocore.exceptions import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

PATIENCE = {"connect_timeout": 5, "read_timeout": 60}
"""Seconds. Whoever finds nobody tries again, for as long as it takes."""
FEW = 16
HERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What goes wrong on this machine's own disk."""


class Away(Exception):
    """The store does not answer. It may in a moment."""


class Refused(Exception):
    """The store answers, and will not: `cause` and `cure`, each a sentence."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause} {cure}")
        self.cause, self.cure = cause, cure


class Bucket:
    """What lies below an address such as s3://bucket/prefix. Every verb raises Away or Refused; safe in threads."""

    def __init__(self, address: str) -> None:
        """Raises Refused where the address is none; nothing is asked yet."""
        kind, _, place = address.rstrip("/").partition("://")
        if kind != "s3" or not place:
            raise Refused(f"“{address}” is no address of an object store.", "Set STORE to one such as s3://bucket/prefix.")
        self.address, self.root = address.rstrip("/"), place
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = {**PATIENCE, "retries": {"max_attempts": 2}, "max_pool_connections": 32}
        if endpoint:  # a store of one's own: bucket names are no host names there, and not each knows the newest checksums
            own = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
            config |= {"s3": {"addressing_style": "path"}, **own}
        client = {"endpoint_url": endpoint} if endpoint else {}
        options = {"use_listings_cache": False, "skip_instance_cache": True, "client_kwargs": client, "config_kwargs": config}
        self._files = fsspec.filesystem("s3", **options)

    def check(self) -> None:
        """Whether the store answers, to these keys."""
        with self._asked():
            self._files.exists(f"{self.root}/folders")
            self._files.ls(self.root.partition("/")[0], detail=False)

    def put(self, name: str, content: bytes) -> None:
        with self._asked():
            self._files.pipe_file(f"{self.root}/{name}", content)

    def put_file(self, name: str, file: Path) -> None:
        with self._asked():
            self._files.put_file(str(file), f"{self.root}/{name}")

    def get(self, name: str, start: int = 0) -> bytes:
        """An object that is not empty, from an offset on. Raises FileNotFoundError."""
        with self._asked():
            content: bytes = self._files.cat_file(f"{self.root}/{name}", start=start)  # with a start, it is not asked about first
            return content

    def get_file(self, name: str, file: Path) -> None:
        """Into a new file. Raises FileNotFoundError."""
        with self._asked():
            self._files.get_file(f"{self.root}/{name}", str(file))

    def names(self, prefix: str) -> list[str]:
        """Of all objects below a prefix."""
        with self._asked():
            return [str(name)[len(self.root) + 1 :] for name in self._files.find(f"{self.root}/{prefix}")]

    def delete(self, names: Iterable[str]) -> None:
        """What is not there is no error."""
        wanted = [f"{self.root}/{name}" for name in names]
        with self._asked(), suppress(FileNotFoundError):
            if len(wanted) > FEW:  # many at once, each of which is looked for first
                self._files.rm(wanted)
            else:
                for name in wanted:
                    self._files.rm_file(name)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except (OSError, BotoCoreError, ClientError, asyncio.TimeoutError) as error:
            code = _code(error)
            if code == "NoSuchBucket":
                raise Refused(f"The object store has no bucket for {self.address}.", "Make it there, or correct STORE.") from error
            if isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and (error.errno in HERE or error.filename)):
                raise
            if isinstance(error, PermissionError | NoCredentialsError | PartialCredentialsError) or code in ("403", "401"):
                raise Refused(
                    f"The object store does not let this machine ({os.uname().nodename}) into {self.address}: {_said(error)}.",
                    "Give it keys that may list, read and write there: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
                ) from error
            where = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon's address"
            raise Away(f"The object store {self.address} does not answer at {where} ({_said(error)}).") from error


def _code(error: BaseException) -> str:
    """The store's own word for what is wrong, where it said one."""
    for one in (error, error.__cause__):
        if isinstance(one, ClientError):
            return str(one.response.get("Error", {}).get("Code", ""))
    return ""


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return (text or type(error).__name__)[:200]
