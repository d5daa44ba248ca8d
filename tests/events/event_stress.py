"""
A load that tries to make a reader of all events lose one, or read a stream out of order.

Writers append in transactions of every kind: long ones, those with an early transaction id, rolled
back ones, savepoints and prepared transactions. Backends are killed, which restarts the server.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from saga_engine.errors import StoreUnavailable
from saga_engine.events import Append, Events
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, read_page
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected, placed
from tests.kit.programs import sleep

INSERT = (
    "INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)"
    " VALUES ($1, $2, 'order-placed', 1, '{}', '{}')"
)
INSERT_AT = (
    "INSERT INTO saga_engine.stream_event (stream, version, position, type, schema_version, data,"
    " metadata) VALUES ($1, $2, $3, 'order-placed', 1, '{}', '{}')"
)
VERSION = "SELECT coalesce(max(version), 0) FROM saga_engine.stream_event WHERE stream = $1"
PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE $1 AND database = current_database()"
STORED = "SELECT stream, version FROM saga_engine.stream_event"
SHARED_STREAMS = 3
LOST_CONNECTION = (
    *(asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(asyncpg.OperatorInterventionError, OSError),
)


@dataclass
class StressResult:
    """What a reader got, and what is stored."""

    read: list[tuple[str, int]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    stored: set[tuple[str, int]] = field(default_factory=set)
    kills: int = 0

    @property
    def lost(self) -> set[tuple[str, int]]:
        """Events that are stored and were not read."""
        return self.stored - set(self.read)

    @property
    def out_of_order(self) -> list[tuple[str, int]]:
        """Events that were not read directly after the one before them in their stream."""
        last: dict[str, int] = {}
        wrong = []
        for stream, version in self.read:
            if version != last.get(stream, 0) + 1:
                wrong.append((stream, version))
            last[stream] = version
        return wrong


class _Undo(Exception):
    """Rolls back a block."""


class Stress:
    """
    The load on one database.

    Args:
        url: of a new database with event tables.
        seconds: how long.
        writers: how many connections append.
    """

    def __init__(self, url: str, *, seconds: float, writers: int) -> None:
        self._url = url
        self._seconds = seconds
        self._writers = writers
        self._ended = asyncio.Event()
        self._written = asyncio.Event()
        self._backends: dict[int, int] = {}
        self.result = StressResult()

    async def run(self, *, kills: int) -> StressResult:
        """Load the database, and kill that many backends."""
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read())
            async with asyncio.TaskGroup() as writers:
                for number in range(self._writers):
                    writers.create_task(self._write(number))
                writers.create_task(self._append_to_shared_streams())
                writers.create_task(self._end(kills))
            self._written.set()
        assert reader.done()
        async with connected(self._url) as connection:
            self.result.stored = {tuple(row) for row in await connection.fetch(STORED)}
        return self.result

    async def _end(self, kills: int) -> None:
        for _ in range(kills):
            await sleep(self._seconds / (kills + 1))
            os.kill(random.choice([*self._backends.values()]), signal.SIGKILL)
            self.result.kills += 1
        await sleep(self._seconds / (kills + 1))
        self._ended.set()

    @asynccontextmanager
    async def _connection(self):
        """A connection, when the server is available again."""
        connection = None
        async with asyncio.timeout(60):
            while connection is None:
                try:
                    connection = await asyncpg.connect(self._url.replace("+asyncpg", ""))
                except LOST_CONNECTION:
                    await sleep(0.05)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _write(self, number: int) -> None:
        writer = _Writer(number)
        while not self._ended.is_set():
            try:
                async with self._connection() as connection:
                    self._backends[number] = connection.get_server_pid()
                    await writer.write(connection, self._ended.is_set)
            except LOST_CONNECTION:
                continue
        async with self._connection() as connection:
            await writer.end_prepared(connection)

    async def _append_to_shared_streams(self) -> None:
        """Append to the same streams from several tasks, as services do."""
        settings = Settings(event_append_attempts=1000, database_transaction_timeout=20)
        async with Events(self._url, settings=settings) as events, asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(self._append(events, random.Random(1000 + number)))

    async def _append(self, events: Events, chance: random.Random) -> None:
        while not self._ended.is_set():
            names = chance.sample(range(SHARED_STREAMS), chance.choice([1, 1, 2]))
            appends = [
                Append(f"shared-{name}", [placed()] * chance.choice([1, 2])) for name in names
            ]
            try:
                await events.append(*appends)
            except StoreUnavailable:
                await sleep(0.05)

    async def _read(self) -> None:
        """Read all events as a projection does, until everything that was written is read."""
        settings = Settings(event_batch_size=100, event_window=500)
        async with Database(self._url, settings, EVENT_DATABASE) as database:
            after, log = 0, None
            while True:
                is_last_round = self._written.is_set()
                try:
                    async with database.transaction() as tx:
                        log = log or await EventLog.load(tx)
                        horizon = await positions.horizon(tx)
                        page = await read_page(tx, log, LogFilter(), (after, horizon), settings)
                except StoreUnavailable:
                    await sleep(0.05)
                    continue
                self.result.read += [(event.stream, event.version) for event in page.events]
                self.result.positions += [event.position for event in page.events]
                after = page.position
                if after == horizon:
                    if is_last_round:
                        return
                    await sleep(0.002)


class _Writer:
    """One writer, which alone appends to its stream."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._stream = f"writer-{number}"
        self._chance = random.Random(number)
        self._transactions = 0

    async def write(self, connection: asyncpg.Connection, is_ended: Callable[[], bool]) -> None:
        """Write until the end, or until the connection is lost."""
        await self.end_prepared(connection)
        kinds = (
            *(self._commit, self._draw_before_inserting),
            *(self._roll_back, self._prepare, self._write_in_savepoints),
        )
        while not is_ended():
            [kind] = self._chance.choices(kinds, weights=(5, 2, 1, 1, 2))
            await kind(connection)

    async def end_prepared(self, connection: asyncpg.Connection) -> None:
        """Commit or roll back what was prepared before a crash."""
        for row in await connection.fetch(PREPARED, f"{self._stream}/%"):
            await self._end_prepared(connection, row["gid"])

    async def _end_prepared(self, connection: asyncpg.Connection, name: str) -> None:
        end = self._chance.choice(["COMMIT", "COMMIT", "ROLLBACK"])
        await connection.execute(f"{end} PREPARED '{name}'")

    async def _append(self, connection: asyncpg.Connection) -> None:
        version = await connection.fetchval(VERSION, self._stream)
        for _ in range(self._chance.choice([1, 1, 2, 3])):
            version += 1
            await connection.execute(INSERT, self._stream, version)
            if self._chance.random() < 0.3:
                await sleep(self._chance.random() * 0.01)

    async def _begin(self, connection: asyncpg.Connection) -> None:
        if self._chance.random() < 0.3:  # as a write or a row lock does
            await connection.execute("SELECT pg_current_xact_id()")
            await sleep(self._chance.random() * 0.005)

    async def _commit(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await self._begin(connection)
            await self._append(connection)

    async def _draw_before_inserting(self, connection: asyncpg.Connection) -> None:
        """Draw positions together, as a worker does for the journal."""
        async with connection.transaction():
            version = await connection.fetchval(VERSION, self._stream)
            count = self._chance.choice([1, 2, 5])
            first = await connection.fetchval("SELECT saga_engine.draw_positions($1)", count)
            await sleep(self._chance.random() * 0.01)
            for number in range(count):
                await connection.execute(
                    INSERT_AT, self._stream, version + number + 1, first + number
                )

    async def _roll_back(self, connection: asyncpg.Connection) -> None:
        transaction = connection.transaction()
        await transaction.start()
        await self._append(connection)
        await transaction.rollback()

    async def _write_in_savepoints(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await self._begin(connection)
            for _ in range(self._chance.choice([1, 2, 3])):
                savepoint = connection.transaction()
                await savepoint.start()
                await self._append(connection)
                if self._chance.random() < 0.5:
                    await savepoint.rollback()
                    await sleep(self._chance.random() * 0.005)
                else:
                    await savepoint.commit()

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        self._transactions += 1
        name = f"{self._stream}/{self._transactions}"
        await connection.execute("BEGIN")
        await self._append(connection)
        await connection.execute(f"PREPARE TRANSACTION '{name}'")
        await sleep(self._chance.random() * 0.02)
        await self._end_prepared(connection, name)
