"""Who may come in, and how far: the set-up's TOKEN, named tokens with a scope and an end, and a browser's session.

A named token is 256 random bits, so its plain SHA-256 is kept: there is nothing to guess, and a slow hash for passwords would only make
every request slow. The TOKEN itself is kept nowhere; sessions are signed with a key made of it, so a new TOKEN ends them all.
"""

import fcntl
import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from contracts.durable import write_aside
from contracts.errors import Broken, Invalid, NotFound, Taken

Scope = Literal["read", "infer", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each may what those before it may."""
OWN_FOLDER = ".maskwright"
"""In the checkpoints folder: what belongs to no job."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SESSION_HOURS = 12
PREFIX = "mw_"
"""With which every named token begins."""


class Who(BaseModel):
    """Somebody who was let in. `id` is a named token's, "" for the TOKEN's owner."""

    model_config = ConfigDict(frozen=True)

    name: str
    scope: Scope
    id: str = ""

    def may(self, scope: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


OWNER = Who(name="owner", scope="admin")
ANYONE = Who(name="anyone", scope="admin")
"""Where no TOKEN is set, which is on this machine alone."""


class NamedToken(BaseModel):
    """What is kept of a token, and shown: not the token. `until`: None where it never ends."""

    id: str
    name: str
    scope: Scope
    created: datetime
    until: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.until is not None and self.until <= datetime.now(timezone.utc)


class NewToken(NamedToken):
    """`token` is said once, when it is made."""

    token: str


class _Kept(NamedToken):
    sha256: str


_FILE = TypeAdapter(list[_Kept])


class Tokens:
    """The named tokens of a checkpoints folder, where every service that mounts it finds them; read again whenever they changed."""

    def __init__(self, checkpoints: Path) -> None:
        self.file = checkpoints / OWN_FOLDER / "tokens.json"
        self._seen: tuple[int, int] | None = None
        self._rows: list[_Kept] = []

    def all(self) -> list[NamedToken]:
        return [NamedToken(**row.model_dump(exclude={"sha256"})) for row in self._read()]

    def make(self, name: str, scope: Scope, days: float | None = None) -> NewToken:
        """A new token. Raises Invalid for a name or a number of days that cannot be, Taken for a name in use."""
        if not NAME.fullmatch(name):
            raise Invalid("A token's name has 1 to 64 letters, digits, dots, dashes and underscores.", "Choose another name.")
        if days is not None and not 0 < days <= 36500:
            raise Invalid(f"A token cannot end after {days} days.", "Give a number above 0, or none for a token that never ends.")
        now = datetime.now(timezone.utc)
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        token = f"{PREFIX}{id}_{secret}"
        until = None if days is None else now + timedelta(days=days)
        with self._alone() as rows:
            if any(row.name == name for row in rows):
                raise Taken(f"There is a token “{name}” already.", "Choose another name, or revoke that one first.")
            kept = _Kept(id=id, name=name, scope=scope, created=now, until=until, sha256=_hash(token))
            self._write([*rows, kept])
        return NewToken(token=token, **kept.model_dump(exclude={"sha256"}))

    def revoke(self, name: str) -> None:
        """From now on it opens nothing, and the sessions that began with it end. Raises NotFound."""
        with self._alone() as rows:
            if all(row.name != name for row in rows):
                raise NotFound(f"There is no token “{name}”.", "The list of tokens says which there are.")
            self._write([row for row in rows if row.name != name])

    def find(self, token: str) -> Who | None:
        """Whose token this is; None where it is nobody's, or has ended."""
        id, _, secret = token.removeprefix(PREFIX).partition("_")
        row = self._row(id) if token.startswith(PREFIX) and secret else None
        return _who(row) if row and hmac.compare_digest(row.sha256, _hash(token)) else None

    def who(self, id: str) -> Who | None:
        """Who a token's id stands for, as long as it may come in."""
        row = self._row(id)
        return _who(row) if row else None

    def _row(self, id: str) -> _Kept | None:
        return next((row for row in self._read() if row.id == id and not row.ended), None)

    def _read(self) -> list[_Kept]:
        try:
            found = self.file.stat()
            if self._seen != (found.st_mtime_ns, found.st_ino):
                self._rows = _FILE.validate_json(self.file.read_bytes())
                self._seen = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise _foreign(self.file) from error
        except ValidationError as error:
            raise Broken(f"{self.file} cannot be read.", "Move it away: named tokens then have to be made anew.") from error
        return self._rows

    def _write(self, rows: list[_Kept]) -> None:
        write_aside(self.file, _FILE.dump_json(rows, indent=1))

    @contextmanager
    def _alone(self) -> Iterator[list[_Kept]]:
        """The rows, while nobody else changes them: the command line and the service may at the same time."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock = open(self.file.with_suffix(".lock"), "w")  # noqa: SIM115  # closed below
        except PermissionError as error:
            raise _foreign(self.file) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()


def _foreign(file: Path) -> Broken:
    cure = f"Give the folder to whom the service runs as: sudo chown -R --reference={file.parent.parent} {file.parent}"
    return Broken(f"{file} belongs to somebody else, perhaps to root.", cure)


def _who(row: _Kept) -> Who:
    return Who(name=row.name, scope=row.scope, id=row.id)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_same(one: str, other: str) -> bool:
    """Compared so that the time it takes does not tell how much of it is right."""
    return hmac.compare_digest(_hash(one), _hash(other))


def proof_of(token: str) -> str:
    """What tells a token from others and does not tell the token, not even one that somebody thought of: slow to compare with."""
    salt = secrets.token_hex(16)
    return f"{salt}:{_slow(token, salt)}"


def proves(proof: str, token: str) -> bool:
    """Whether a proof is this token's. Takes about a twentieth of a second."""
    salt, _, kept = proof.partition(":")
    return hmac.compare_digest(_slow(token, salt), kept)


def _slow(token: str, salt: str) -> str:
    """scrypt (RFC 7914), 16 MiB."""
    return hashlib.scrypt(token.encode("utf-8", "surrogatepass"), salt=salt.encode(), n=2**14, r=8, p=1).hex()


def seal_session(who: Who, token: str, hours: float = SESSION_HOURS) -> str:
    """A cookie's value that says who is logged in and until when, signed."""
    until = datetime.now(timezone.utc) + timedelta(hours=hours)
    said = urlsafe_b64encode(json.dumps({**who.model_dump(), "until": until.timestamp()}).encode()).decode()
    return f"{said}.{_sign(said, token)}"


def open_session(cookie: str, token: str) -> Who | None:
    """Who a cookie's value says is logged in; None where it was not sealed with this TOKEN, or has ended."""
    said, _, signature = cookie.partition(".")
    if not token or not hmac.compare_digest(_sign(said, token).encode(), signature.encode("utf-8", "replace")):
        return None
    try:
        found = json.loads(urlsafe_b64decode(said))
        ended = found.pop("until") <= datetime.now(timezone.utc).timestamp()
        return None if ended else Who.model_validate(found)
    except (NotBase64, ValueError, KeyError, AttributeError):
        return None


def _sign(said: str, token: str) -> str:
    return hmac.digest(_session_key(token), said.encode("utf-8", "replace"), "sha256").hex()


@lru_cache(maxsize=4)
def _session_key(token: str) -> bytes:
    """Slow to make, and made once: who has a cookie could else try by it what the TOKEN is, as often as his machine allows."""
    return bytes.fromhex(_slow(token, "maskwright session"))
