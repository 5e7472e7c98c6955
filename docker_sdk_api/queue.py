"""The queue's database: in which order jobs wait, and which job holds which GPU. All else about a job is in its folder.

SQLite by default, PostgreSQL where several docker_sdk_api share one checkpoints folder. Whatever looks and then changes does both in
one transaction that nobody else has meanwhile, so that of many services one launches a job, and one alone is given a GPU.
"""

import os
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from socket import gethostname

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from contracts.errors import NotFound, Taken, Unavailable
from contracts.events import boot_id
from contracts.tokens import OWN_FOLDER
from docker_sdk_api.launchers.supervise import started_at
from docker_sdk_api.plan import PRIORITIES, Entry, Room, in_order, turns

LEASE = 120.0
"""Seconds after which a launch that is neither done nor given up is no longer believed in, where its service cannot be seen from here."""
GROWS = 60.0
"""Seconds after its launch in which a job has not taken all its memory yet."""
PATIENCE, GLANCE = 30.0, 3.0
"""Seconds to wait for the database: to change something while others write, and only to look."""
AWAY = 5.0
"""For so many seconds a database that kept somebody waiting and did not answer is not asked again: callers would wait one after another."""
LONG = 1.0
"""Seconds after which somebody was kept waiting."""
LOCK = 4222
"""The number of PostgreSQL's advisory lock that a transaction here holds."""

LAUNCHING: set[str] = set()
"""The turns that this process is launching now, whichever of its queues gave them."""

TABLES = MetaData()
ENTRIES = Table(
    "queue",
    TABLES,
    Column("job", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("rank", Double, nullable=False),
    Column("gpus", Text, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("turn", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("until", Double, nullable=False),
    Column("trouble", Text, nullable=False),
)
HELD = Table("held_gpus", TABLES, Column("gpu", Integer, primary_key=True), Column("job", Text, nullable=False))
"""One row a GPU: the database itself refuses a second holder."""


class Queue:
    """Every method is one transaction. Raises Unavailable where the database does not answer. Safe in threads and processes."""

    def __init__(self, checkpoints: Path, url: str = "") -> None:
        self.url = url
        self.file = checkpoints.absolute() / OWN_FOLDER / "queue.db"
        self.owner = f"{boot_id()}/{gethostname()}/{os.getpid()}/{started_at(os.getpid())}"
        self._engines: dict[bool, Engine] = {}
        self._made: tuple[int, int] | None = None
        """The file in which the tables are known to be, by device and number."""
        self._away: dict[bool, tuple[float, Unavailable]] = {}

    def entries(self) -> list[Entry]:
        with self._transaction(looks=True) as to:
            return _read(to)

    def running(self) -> list[Entry]:
        """Those that have had their turn: as many as there is room for, however many wait."""
        with self._transaction(looks=True) as to:
            return _read(to, ENTRIES.c.state.in_(("launching", "launched")))

    def entry(self, job: str) -> Entry | None:
        with self._transaction(looks=True) as to:
            return next(iter(_read(to, _of(job))), None)

    def put(self, entry: Entry, room: Room | None = None, at_once: bool = False) -> Entry | None:
        """Add a job that is not there yet. Given back: its turn has come, and whoever asked is to launch it, and to say `begun` then.

        Without a room it only waits. `at_once`: it takes its turn whoever waits, although another service may have put it among them
        since its folder was written; raises Taken where another job holds its GPU.
        """
        with self._giving() as turn, self._transaction() as to:
            there = next(iter(_read(to, _of(entry.job))), None)
            if there is not None and not (at_once and there.state == "waiting"):
                return None
            if there is None:
                to.execute(insert(ENTRIES).values(**_row(entry)))
            if entry.state == "launched":
                _hold(to, replace(entry, gpus=tuple(gpu for gpu in entry.gpus if gpu not in _held(to))))
                return None
            if at_once:
                if other := next((f"GPU {gpu} is held by the job “{job}”" for gpu, job in _held(to).items() if gpu in entry.gpus), ""):
                    raise Taken(f"{other}.", "Wait for its end, or start this one over the page or the API, where it queues for it.")
            elif room is None or next(reason for other, reason in turns(_read(to), room, time.time()) if other.job == entry.job):
                return None
            return self._take(to, entry, turn)

    def take(self, room: Room) -> Entry | None:
        """The next job whose turn has come, to be launched by whoever asked, who says `begun` then."""
        with self._giving() as turn, self._transaction() as to:
            entry = next((entry for entry, reason in turns(_read(to), room, time.time()) if not reason), None)
            return None if entry is None else self._take(to, entry, turn)

    def begun(self, entry: Entry) -> None:
        """Whoever was given a turn launches it no more: it did, or could not. What is still said to be launched is then settled."""
        LAUNCHING.discard(entry.turn)

    def launched(self, job: str) -> None:
        with self._transaction() as to:
            values = {"state": "launched", "until": time.time() + GROWS, "trouble": ""}
            to.execute(update(ENTRIES).where(ENTRIES.c.job == job).values(**values))

    def put_back(self, entry: Entry, trouble: str = "", seconds: float = 0.0) -> None:
        """A job whose launch came to nothing waits again, in its place; it is tried again after so many seconds."""
        with self._transaction() as to:
            if _is_there(to, entry):
                to.execute(delete(HELD).where(HELD.c.job == entry.job))
                again = {"state": "waiting", "turn": "", "owner": "", "until": time.time() + seconds, "trouble": trouble}
                to.execute(update(ENTRIES).where(ENTRIES.c.job == entry.job).values(**again))

    def put_off(self, jobs: Iterable[str], trouble: str, seconds: float) -> None:
        """Those of them that wait are not tried before so many seconds."""
        named, values = list(jobs), {"until": time.time() + seconds, "trouble": trouble}
        with self._transaction() as to:
            to.execute(update(ENTRIES).where(ENTRIES.c.job.in_(named), ENTRIES.c.state == "waiting").values(**values))

    def remove(self, entry: Entry) -> None:
        """What it held is free. Nothing happens where it has had another turn since it was looked at."""
        with self._transaction() as to:
            if _is_there(to, entry):
                _remove(to, entry.job)

    def remove_waiting(self, job: str) -> bool:
        """Whether it waited, and does so no more: then nobody launches it."""
        with self._transaction() as to:
            waited = any(in_order(_read(to, _of(job))))
            if waited:
                _remove(to, job)
            return waited

    def move(self, job: str, place: int) -> None:
        """To a place among those that wait, from 1. Its priority becomes that of the jobs that it moved past. Raises NotFound."""
        with self._transaction() as to:
            line = in_order(_read(to))
            mine = _find(line, job)
            ranks = sorted(entry.rank for entry in line)
            others = [entry for entry in line if entry.job != job]
            place = min(max(place, 1), len(line))
            least = max((entry.priority for entry in others[place - 1 :]), default=0)
            most = min((entry.priority for entry in others[: place - 1]), default=len(PRIORITIES) - 1)
            others.insert(place - 1, replace(mine, priority=min(max(mine.priority, least), most)))
            rows = [(entry, rank) for entry, rank in zip(others, _apart(ranks), strict=True) if entry.rank != rank or entry.job == job]
            moved = [{"of": entry.job, "rank": rank, "priority": entry.priority} for entry, rank in rows]
            to.execute(update(ENTRIES).where(ENTRIES.c.job == bindparam("of")), moved)  # in one go: thousands may wait

    def change(self, job: str, priority: int | None = None, held: bool | None = None) -> None:
        """Of a job that waits. Raises NotFound."""
        with self._transaction() as to:
            entry = _find(in_order(_read(to, _of(job))), job)
            state = entry.state if held is None else "held" if held else "waiting"
            values = {"state": state, "priority": entry.priority if priority is None else priority}
            to.execute(update(ENTRIES).where(ENTRIES.c.job == job).values(**values))

    def being_launched(self, entry: Entry) -> bool:
        """Whether a service is about to launch it: this one, one that can be seen to live, or one that has had little time yet."""
        if entry.state != "launching":
            return False
        if entry.owner == self.owner:
            return entry.turn in LAUNCHING
        boot, host, pid, started = entry.owner.split("/")
        if (boot, host) == tuple(self.owner.split("/")[:2]):
            return str(started_at(int(pid))) == started
        return entry.until > time.time()

    def _take(self, to: Connection, entry: Entry, turn: str) -> Entry:
        taken = replace(entry, state="launching", turn=turn, owner=self.owner, until=time.time() + LEASE, trouble="")
        LAUNCHING.add(turn)  # before anybody can read of it
        to.execute(update(ENTRIES).where(ENTRIES.c.job == entry.job).values(**_row(taken)))
        _hold(to, taken)
        return taken

    @contextmanager
    def _giving(self) -> Iterator[str]:
        """A new turn, which nobody launches where its transaction fails."""
        turn = uuid.uuid4().hex
        try:
            yield turn
        except BaseException:
            LAUNCHING.discard(turn)
            raise

    @contextmanager
    def _transaction(self, looks: bool = False) -> Iterator[Connection]:
        """One that nobody else has at the same time; or one that only looks, and waits for nobody who writes."""
        began = time.monotonic()
        until, known = self._away.get(looks, (0.0, None))
        if known is not None and began < until:
            raise Unavailable(known.cause, known.cure)
        try:
            with self._connect(looks).begin() as to:
                if to.dialect.name == "postgresql" and not (looks and self._made):
                    to.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                if self._made is None:
                    for table in TABLES.sorted_tables:  # which asks SQLite for nothing that a writer has, where they are there
                        to.execute(CreateTable(table, if_not_exists=True))
                yield to
            self._made = self._place()
        except (SQLAlchemyError, OSError) as error:
            self._made = None
            place = make_url(self.url).render_as_string() if self.url else str(self.file)
            first = str(getattr(error, "orig", None) or error).splitlines()[0]
            problem = Unavailable(
                f"The queue in {place} cannot be read or written ({first}).",
                "See that it can be reached and that its disk is not full. A damaged queue.db may be deleted while docker_sdk_api is "
                "stopped: what waits is put in line again by its age.",
            )
            if time.monotonic() - began > LONG:
                self._away[looks] = (time.monotonic() + AWAY, problem)
            raise problem from error

    def _connect(self, looks: bool) -> Engine:
        if not self.url:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self._made is not None and self._made != self._place():  # deleted: who has it open would write where nobody reads
                self._made = None
                for engine in self._engines.values():
                    engine.dispose()
        if looks not in self._engines:
            self._engines[looks] = _engine(self.url, self.file, looks)
            weakref.finalize(self, _close, self._engines[looks], os.getpid())
        return self._engines[looks]

    def _place(self) -> tuple[int, int] | None:
        if self.url:
            return 0, 0
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def _engine(url: str, file: Path, looks: bool) -> Engine:
    """One connection is kept, more are made when threads meet. Whoever closes a SQLite file last empties its log, which takes three
    times as long as the transaction itself; a connection to PostgreSQL takes longer to make than most that is asked over it."""
    wait = {"timeout": GLANCE if looks else PATIENCE}
    kept = {"pool_size": 1, "max_overflow": -1}
    if url:
        # pg8000: a driver in Python alone, whose licence is as permissive as the product's.
        return create_engine(make_url(url).set(drivername="postgresql+pg8000"), connect_args=wait, pool_pre_ping=True, **kept)
    engine = create_engine(f"sqlite:///{file}", connect_args=wait, **kept)

    @event.listens_for(engine, "connect")
    def _(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # or Python's module would begin transactions in its own, later way
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if looks else "BEGIN IMMEDIATE")

    return engine


def _close(engine: Engine, process: int) -> None:
    """In a fork, the open connections are its parent's."""
    engine.dispose(close=process == os.getpid())


def _of(job: str) -> ColumnElement[bool]:
    return ENTRIES.c.job == job


def _read(to: Connection, which: ColumnElement[bool] | None = None) -> list[Entry]:
    """All entries, or some."""
    wanted = select(ENTRIES) if which is None else select(ENTRIES).where(which)
    # By their order, which is that of Entry's fields: some thousand rows are read at each look.
    rows = to.execute(wanted)
    return [Entry(job, state, priority, rank, tuple(map(int, gpus.split())), *rest) for job, state, priority, rank, gpus, *rest in rows]


def _row(entry: Entry) -> dict[str, object]:
    return {**asdict(entry), "gpus": " ".join(map(str, entry.gpus))}


def _held(to: Connection) -> dict[int, str]:
    return {row.gpu: row.job for row in to.execute(select(HELD))}


def _hold(to: Connection, entry: Entry) -> None:
    for gpu in entry.gpus:
        to.execute(insert(HELD).values(gpu=gpu, job=entry.job))


def _remove(to: Connection, job: str) -> None:
    to.execute(delete(HELD).where(HELD.c.job == job))
    to.execute(delete(ENTRIES).where(ENTRIES.c.job == job))


def _is_there(to: Connection, entry: Entry) -> bool:
    return any(other.turn == entry.turn for other in _read(to, _of(entry.job)))


def _find(line: list[Entry], job: str) -> Entry:
    found = next((entry for entry in line if entry.job == job), None)
    if found is None:
        raise NotFound(f"The job “{job}” does not wait.", "It may have had its turn, or been cancelled: look at the queue again.")
    return found


def _apart(ranks: list[float]) -> list[float]:
    """The same ranks, none like another."""
    found: list[float] = []
    for rank in ranks:
        found.append(rank if not found or rank > found[-1] else found[-1] + 1e-3)
    return found
