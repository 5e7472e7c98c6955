"""A form as it comes in: its files go to disk piece by piece, so that gigabytes never lie in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from contracts.errors import Invalid
from contracts.room import full, is_full

LONGEST_FIELD = 1_000_000
"""Bytes of everything that is typed into one form."""


@dataclass
class Form:
    """What was sent: typed fields by name, and files as their own names and where their bytes lie."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, Path]] = field(default_factory=list)


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[Form]:
    """The form of a request; its files lie on disk until the context ends. Raises Invalid where it breaks off."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Invalid("This is not the form of the page.", "Open the page again and send its form.")
    with TemporaryDirectory(prefix="maskwright-") as folder:
        reader = _Reader(Path(folder))
        try:
            parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": reader.part_begin,
                    "on_header_field": reader.header_field,
                    "on_header_value": reader.header_value,
                    "on_header_end": reader.header_end,
                    "on_part_data": reader.part_data,
                    "on_part_end": reader.part_end,
                },
            )
            async for chunk in request.stream():
                parser.write(chunk)
            parser.finalize()
        except FormParserError as error:
            raise Invalid(f"What was sent breaks off or cannot be read ({error}).", "Send it again.") from error
        except OSError as error:
            raise (full(Path(folder)) if is_full(error, Path(folder)) else error) from error
        finally:
            reader.close()
        yield reader.form


class _Reader:
    """Takes the parser's calls: one part after the other, each into its field or its file."""

    def __init__(self, folder: Path) -> None:
        self.form = Form()
        self._folder = folder
        self._header: list[bytes] = [b"", b""]
        self._name = ""
        self._typed = bytearray()
        self._typed_before = 0
        self._file: BinaryIO | None = None
        self._is_file = False

    def part_begin(self) -> None:
        self._name, self._is_file, self._typed = "", False, bytearray()
        self._header = [b"", b""]

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def header_end(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.lower() != b"content-disposition":
            return
        _, options = parse_options_header(value)
        self._name = _as_text(options.get(b"name", b""))
        self._is_file = b"filename" in options
        if options.get(b"filename"):  # a field of files in which none was chosen sends an empty name
            path = self._folder / str(len(self.form.files))
            self.form.files.append((_as_text(options[b"filename"]), path))
            self._file = path.open("wb")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file:
            self._file.write(data[start:end])
        elif not self._is_file:
            self._typed += data[start:end]
            if self._typed_before + len(self._typed) > LONGEST_FIELD:
                raise Invalid("More was typed than this page takes.", "Shorten it, or put it into a file of the dataset.")

    def part_end(self) -> None:
        self.close()
        if not self._is_file:
            self._typed_before += len(self._typed)
            self.form.fields[self._name] = self._typed.decode("utf-8", "replace").strip()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _as_text(value: bytes) -> str:
    """A name as browsers send it, in UTF-8."""
    return value.decode("utf-8", "replace")
