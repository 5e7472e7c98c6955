"""Files that others published are fetched whole, as they were promised, and once; or the reason is said with the way around it."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import Unavailable
from tests.shelf import Shelf, open_shelf
from training_api.downloads import Places, Source, fetch, require
from training_api.weights import Halted


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with open_shelf() as shelf:
        yield shelf


def silent(_done: int, _total: int) -> None:
    """Nobody is told how far a download is."""


def published(shelf: Shelf, content: bytes = bytes(range(256)) * 4000, digest: str | None = None) -> Source:
    """A file that the shelf hands out, as torchvision names it: with the beginning of its hash."""
    beginning = hashlib.sha256(content).hexdigest()[:8] if digest is None else digest
    shelf.files["/models/net.pth"] = content
    return Source("net", f"net-{beginning}.pth", "https://far.example/models/net.pth", "MIT", f"sha256:{beginning}")


def test_a_download_that_is_cut_goes_on_where_it_was_and_ends_whole(shelf: Shelf, tmp_path: Path):
    source, told = published(shelf), []
    shelf.cuts = 2
    found = fetch(source, Places(tmp_path, base=shelf.address), lambda done, total: told.append((done, total)))
    assert found.path.read_bytes() == shelf.files["/models/net.pth"]
    assert found.checked
    assert [asked for _, asked in shelf.asked] == ["", "bytes=512000-", "bytes=768000-"]
    assert told[-1] == (1024000, 1024000)
    assert fetch(source, Places(tmp_path, base="http://127.0.0.1:9"), silent) == found, "what is there is not fetched again"


def test_what_an_interrupted_training_had_fetched_is_not_fetched_again(shelf: Shelf, tmp_path: Path):
    source = published(shelf)

    def stop(done: int, _total: int) -> None:
        if done > 300_000:
            raise Halted

    with pytest.raises(Halted):
        fetch(source, Places(tmp_path, base=shelf.address), stop)
    assert not (tmp_path / source.file).exists()
    fetch(source, Places(tmp_path, base=shelf.address), silent)
    assert int(shelf.asked[-1][1].removeprefix("bytes=").rstrip("-")) > 200_000
    assert (tmp_path / source.file).read_bytes() == shelf.files["/models/net.pth"]


def test_a_file_with_another_hash_is_refused_and_removed(shelf: Shelf, tmp_path: Path):
    source = published(shelf, digest="00000000")
    with pytest.raises(Unavailable, match=r"not the file that was promised.*It was removed"):
        fetch(source, Places(tmp_path, base=shelf.address), silent)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_hub_declares_the_hash_that_a_file_is_checked_with_then_and_later(shelf: Shelf, tmp_path: Path):
    path, content = "/x/y/resolve/main/model.safetensors", b"weights" * 1000
    shelf.files[path] = content
    source = Source("y", "y--x--y.safetensors", f"https://hub.example{path}", "MIT")
    shelf.declared[path] = "0" * 64
    with pytest.raises(Unavailable, match="not the file that was promised"):
        fetch(source, Places(tmp_path, base=shelf.address), silent)
    shelf.declared.clear()
    found = fetch(source, Places(tmp_path, base=shelf.address), silent)
    assert (found.checked, found.sha256) == (True, hashlib.sha256(content).hexdigest())
    found.path.write_bytes(content[:-1] + b"?")
    with pytest.raises(Unavailable, match=r"y--x--y\.safetensors is not the file"):
        fetch(source, Places(tmp_path, base=shelf.address), silent)


def test_offline_the_error_names_the_file_its_address_and_its_place(tmp_path: Path):
    source = Source("net", "net-1234abcd.pth", "https://far.example/models/net.pth", "MIT", "sha256:1234abcd")
    for attempt in (lambda: fetch(source, Places(tmp_path, base="http://127.0.0.1:9"), silent), lambda: require(source, Places(tmp_path))):
        with pytest.raises(Unavailable) as error:
            attempt()
        assert all(word in str(error.value) for word in ("net-1234abcd.pth", "https://far.example/models/net.pth", str(tmp_path)))


def test_a_file_that_the_server_does_not_have_is_said_at_once(shelf: Shelf, tmp_path: Path):
    source = published(shelf)
    shelf.files.clear()
    with pytest.raises(Unavailable, match="the server answers 404"):
        fetch(source, Places(tmp_path, base=shelf.address), silent)
    assert not shelf.asked


def test_trainings_that_want_the_same_file_at_once_fetch_it_once(shelf: Shelf, tmp_path: Path):
    source = published(shelf)
    threads = [threading.Thread(target=fetch, args=(source, Places(tmp_path, base=shelf.address), silent)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(shelf.asked) == 1


def test_of_a_zip_the_one_file_of_weights_is_kept_wherever_the_zip_came_from(shelf: Shelf, tmp_path: Path):
    content, packed = b"numbers" * 500, io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("any/where/net.params", content)
    shelf.files["/zoo/net-1.zip"] = packed.getvalue()
    source = Source("net", "net-1.params", "https://far.example/zoo/net-1.zip", "MIT", f"sha1:{hashlib.sha1(content).hexdigest()}")
    assert fetch(source, Places(tmp_path / "one", base=shelf.address), silent).path.read_bytes() == content
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "net-1.zip").write_bytes(packed.getvalue())
    assert require(source, Places(tmp_path / "two", (mirror,))).path.read_bytes() == content
