"""A server of files on this machine, in place of those that weights are fetched from."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shelf(ThreadingHTTPServer):
    """A server of files, by their paths, that can cut the line, and declares hashes as a hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Shelf)
        self.files: dict[str, bytes] = {}
        self.declared: dict[str, str] = {}
        self.cuts = 0
        self.asked: list[tuple[str, str]] = []

    def handle_error(self, *_: object) -> None:
        """Silent: a reader that goes away in the middle is what some tests are about."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Shelf(BaseHTTPRequestHandler):
    server: Shelf

    def do_GET(self) -> None:
        body = self.server.files.get(self.path.removeprefix("/far"))
        if body is None:
            self.send_error(404)
        elif "/resolve/" in self.path and not self.path.startswith("/far"):
            self.send_response(302)
            self.send_header("X-Linked-ETag", f'"{self.server.declared.get(self.path) or hashlib.sha256(body).hexdigest()}"')
            self.send_header("Location", f"/far{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(body)

    def _send(self, body: bytes) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut, self.server.cuts = self.server.cuts > 0, max(0, self.server.cuts - 1)
        self.wfile.write(body[start : start + (len(body) - start) // 2] if cut else body[start:])

    def log_message(self, *_: object) -> None:
        """Silent: requests are kept in `asked`."""


@contextmanager
def open_shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    thread = threading.Thread(target=shelf.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield shelf
    finally:
        shelf.shutdown()
        shelf.server_close()
        thread.join(10)
