"""
The participant's own database: one transaction for one command.

An engine that is given stays the user's; one made here from a URL has a connection for each
handler that may run at once. Either way transactions are READ COMMITTED, which the barrier needs.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from functools import lru_cache

from sqlalchemy import URL, Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from saga_engine.errors import ConfigurationError, SagaEngineError, SchemaMismatch
from saga_engine.participant import barrier
from saga_engine.participant.lost_statements import APPLICATION, Watchdog
from saga_engine.postgres import encoding, pgbouncer
from saga_engine.postgres.connect import engine_for
from saga_engine.postgres.keepalive import COUNT, IDLE, INTERVAL, SILENCE_MS
from saga_engine.postgres.pool import Pool, discard
from saga_engine.postgres.sqlalchemy_errors import code_of, leads_astray, translated
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer, described


class Undone(Exception):
    """
    The effects of a handler are to be undone, and its command gets an answer that is no success.

    The cause is the exception that the handler raised, if it was not a refusal.
    """

    def __init__(self, answer: barrier.Answer) -> None:
        super().__init__()
        self.answer = answer


class Database:
    """One participant's database."""

    def __init__(self, database: AsyncEngine | str, settings: Settings) -> None:
        self._owned = isinstance(database, str)
        engine = _engine(database, settings) if isinstance(database, str) else database
        if engine.dialect.name != "postgresql":
            raise ConfigurationError(
                f"The barrier works on PostgreSQL, not on {engine.dialect.name}. Leave database out"
                " and pass the idempotency key on instead."
            )
        self.where = _where(engine.url)
        self._engine = engine
        self._pool = Pool(engine, settings) if self._owned else None
        self._watchdog = Watchdog(engine, database, settings) if isinstance(database, str) else None
        self._timeout = settings.database_timeout
        # Nobody else's engine says for how long a session that is cut off keeps what it has locked.
        self._let_go = f"{int(settings.participant_timeout * 1000)}"
        self._statements = barrier.WHEREVER
        # Whether a handler has changed its role in a way that its statements do not show.
        self._role_unknown = False
        event.listen(engine.sync_engine, "before_cursor_execute", _note_changes)

    async def prepare(self, *, create_barrier: bool, schema: str | None = None) -> None:
        """
        Make sure that it can be used, and find the barrier's table: in *schema* if that is given.

        Raises:
            StoreError, ConfigurationError: it cannot; the text says why.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._refuse_named_statements()
                async with self._engine.connect() as connection:
                    await encoding.check(connection, self.where)
                if create_barrier:
                    await barrier.create(self._engine, schema)
                async with self._engine.connect() as connection:
                    found = await barrier.found(connection, schema)
                    settings = (await connection.execute(_SETTINGS)).one()
        except Exception as error:  # noqa: BLE001 - listeners of the user's engine run here too
            raise self._unusable(error, schema) from None
        if settings.synchronous_commit == "off":
            raise ConfigurationError(
                f"synchronous_commit is off for {self.where}: a crash would lose effects whose"
                " commands were answered. Set it to on for this role or database."
            )
        if found is None:
            raise ConfigurationError(self._no_table(schema, settings.search_path))
        self._statements = barrier.Statements.on(found)

    def _unusable(self, error: Exception, schema: str | None) -> SagaEngineError:
        if isinstance(error, SagaEngineError):
            return error
        if code_of(error) == _NO_SCHEMA:
            place = f"The schema {schema} does not exist" if schema else "No schema"
            given = "" if schema else f" of its search_path exists ({_PATH_HINT})"
            return ConfigurationError(
                f"The table saga_barrier cannot be created in {self.where}. {place}{given}."
                " Create the schema, or name another one with Participant(barrier_schema=...)."
            )
        ours = translated(error, self.where)
        if isinstance(ours, SchemaMismatch):
            return ConfigurationError(self.problem_of(error))
        return ours or ConfigurationError(
            f"The database {self.where} cannot be used: {described(error)}. If your engine has"
            " event listeners, correct them."
        )

    def _no_table(self, schema: str | None, search_path: str) -> str:
        where = (
            f"in schema {schema}" if schema else f"in its search_path ({search_path or 'empty'})"
        )
        return (
            f"The database {self.where} has no table saga_barrier {where}. Add `barrier.table` to"
            " your migrations, let it be created with create_barrier=True, or name the schema that"
            " has it with Participant(barrier_schema=...)."
        )

    async def _refuse_named_statements(self) -> None:
        """Refuse an engine of the user's that cannot work through the pooler it connects to."""
        if self._owned or self._engine.driver != "asyncpg":
            return
        async with self._engine.connect() as connection:
            opened = await connection.get_raw_connection()
            adapter, driver = opened.dbapi_connection, opened.driver_connection
            if not await pgbouncer.leads_through_one(driver) or pgbouncer.is_prepared_for(adapter):
                return
        raise ConfigurationError(
            f"The engine for {self.where} connects through a connection pooler, where prepared"
            " statements must have no names. Give Participant the URL instead, or make the engine"
            " with connect_args={'prepared_statement_cache_size': 0,"
            " 'prepared_statement_name_func': lambda: ''}."
        )

    async def problem(self) -> str | None:
        """What is wrong with it now, in a sentence; None: nothing."""
        # Over a connection of its own where possible: handlers may have all those of the pool.
        engine = self._watchdog.asking if self._watchdog else self._engine
        try:
            async with asyncio.timeout(self._timeout), engine.connect() as connection:
                read_only = await connection.scalar(_READ_ONLY)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is asked for
            return self.problem_of(error)
        return f"PostgreSQL at {self.where} is a standby or read-only." if read_only else None

    def problem_of(self, error: BaseException) -> str:
        """Say in a sentence what an error of this database is, without its text."""
        ours = translated(error, self.where)
        if isinstance(ours, SchemaMismatch):  # its advice is about the engine's own tables
            return f"The database {self.where} lacks the table saga_barrier, or a column of it."
        return str(ours or described(error))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
        begun = time.monotonic()
        connection = await (self._pool or self._engine).connect()
        try:
            if not self._owned:
                connection = await connection.execution_options(isolation_level="READ COMMITTED")
            transaction = await connection.begin()
            await self._begin(connection)
            try:
                yield connection
            except Exception:
                await self._undo(connection, transaction)
                raise
            with self._watching(connection):
                await transaction.commit()
        except asyncio.CancelledError:
            # A cancelled statement may leave the socket in the middle of an answer, and a rollback
            # would wait for it. The server undoes what a closed connection leaves.
            await discard(connection)
            raise
        except Exception as error:
            await self._judge(connection, error, begun)
            raise
        finally:
            if self._watchdog:
                self._watchdog.forget(connection)
            await self._end(connection)

    async def _judge(self, connection: AsyncConnection, error: Exception, begun: float) -> None:
        """Decide what an error says of this connection, and of those opened before *begun*."""
        # A handler that waited in vain for another service says nothing of this database.
        if self._pool and _is_astray(error):
            self._pool.distrust(begun)
        if code_of(error) in _OTHER_RIGHTS and not connection.closed:
            self._role_unknown = True
            await discard(connection)  # its role may be that of an earlier command

    async def _begin(self, connection: AsyncConnection) -> None:
        """Note what the barrier needs at the end, in the round trip that is made anyway."""
        role = None  # that of the session: sessions of ours are closed when it may have changed
        if not self._owned:
            role = await connection.scalar(_LET_GO, {"milliseconds": self._let_go})
        connection.info.update(
            {
                barrier.ROLE: role,
                barrier.STATEMENTS: self._statements,
                barrier.ROLE_CHANGED: self._role_unknown,
            }
        )

    async def _end(self, connection: AsyncConnection) -> None:
        """Give a connection back, or close it when its session's settings may have changed."""
        usable = not connection.closed and not connection.invalidated
        if usable and connection.info.pop(_SESSION_CHANGED, False):
            await discard(connection)
        await connection.close()

    async def _undo(self, connection: AsyncConnection, transaction: AsyncTransaction) -> None:
        """Roll back while it is watched, which closing the connection is not."""
        try:
            with self._watching(connection):
                await transaction.rollback()
        except Exception:  # noqa: BLE001 - the server undoes what a closed connection leaves
            with suppress(Exception):  # what the handler raised is the answer, whatever this does
                await discard(connection)

    def _watching(self, connection: AsyncConnection) -> AbstractContextManager[None]:
        return self._watchdog.watching(connection) if self._watchdog else nullcontext()

    async def watch(self, tell: Observer) -> None:
        """End what is lost on the way, until cancelled; an engine that is given is its user's."""
        if self._watchdog:
            await self._watchdog.run(tell)

    async def close(self) -> None:
        """Close what was opened here."""
        if self._watchdog:
            await self._watchdog.close()
            await self._engine.dispose()


_SETTINGS = text(
    "SELECT pg_catalog.current_setting('synchronous_commit') AS synchronous_commit,"
    " pg_catalog.current_setting('search_path') AS search_path"
)
_READ_ONLY = text("SELECT pg_catalog.current_setting('transaction_read_only') = 'on'")
_LET_GO = text(
    "SELECT pg_catalog.current_setting('role') FROM (SELECT pg_catalog.set_config("
    "'idle_in_transaction_session_timeout', :milliseconds, true)) AS done"
)

_NO_SCHEMA = "3F000"
_OTHER_RIGHTS = ("42501", "42P01")
_PATH_HINT = "it may be set with ALTER ROLE"

_LOOKED_AT = 4_000
"""Characters of a statement that are searched for changes of the session."""

_REMEMBERED = 512
"""Statements whose search is remembered: the same ones come with each command. 8 MB at most."""

_SESSION_CHANGED = "saga_engine_session_changed"

# Statements that may change the role, and those whose changes outlive the transaction. The session
# of the latter is closed afterwards, or the next command would run with them.
_ROLE = re.compile(
    r"(?is)\b(?:set|reset|discard)\b.{0,200}?\b(?:role|authorization|all)\b|\bset_config\b"
)
_COMMENT = re.compile(r"(?s)/\*.*?\*/|--[^\n]*")
_SESSION = re.compile(
    r"(?i)(?:^|;)\s*(?:reset|discard|set\s+(?!local\b|transaction\b|constraints\b))"
    r"|\bset_config\s*\((?!(?:[^()]|\([^()]*\))*,\s*(?:true|'t'|'true')\s*\))"
)


def _is_astray(error: Exception) -> bool:
    """Whether the connections of the pool are not to be used again."""
    raised = error.__cause__ if isinstance(error, Undone) else error
    if raised is None or isinstance(raised, TimeoutError):
        return False
    # A handler can make its own transaction read-only; whether the server is, the next claim shows.
    return leads_astray(raised) and (raised is error or not code_of(raised))


def _note_changes(connection: Connection, _: object, statement: str, *__: object) -> None:
    role, session = _changes(statement[:_LOOKED_AT])
    if role:
        connection.info[barrier.ROLE_CHANGED] = True
    if session:
        connection.info[_SESSION_CHANGED] = True


@lru_cache(maxsize=_REMEMBERED)
def _changes(beginning: str) -> tuple[bool, bool]:
    """Whether a statement that begins so may change the role, and what outlives a transaction."""
    if "--" in beginning or "/*" in beginning:
        beginning = _COMMENT.sub(" ", beginning)
    return bool(_ROLE.search(beginning)), bool(_SESSION.search(beginning))


def _where(url: URL) -> str:
    """Give what may be shown of a URL: its query can hold a password as well."""
    hosts = url.query.get("host", "localhost")
    host = url.host or (hosts if isinstance(hosts, str) else ",".join(hosts))
    port = f":{url.port}" if url.port else ""
    return f"{url.username or ''}@{host}{port}/{url.database or ''}"


def _engine(url: str, settings: Settings) -> AsyncEngine:
    timeout = f"{settings.participant_timeout * 1000:.0f}"
    return engine_for(
        url,
        pool_size=settings.participant_concurrency,
        max_overflow=0,
        pool_timeout=settings.participant_timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "command_timeout": settings.participant_timeout,
            "server_settings": {
                "application_name": APPLICATION,
                "default_transaction_isolation": "read committed",
                # Who is cut off in the middle of a command has it in hand, and all further attempts
                # wait for that: until then at most, or until the server finds its host gone.
                "statement_timeout": timeout,
                "idle_in_transaction_session_timeout": timeout,
                "tcp_keepalives_idle": f"{IDLE}",
                "tcp_keepalives_interval": f"{INTERVAL}",
                "tcp_keepalives_count": f"{COUNT}",
                "tcp_user_timeout": f"{SILENCE_MS}",
            },
        },
    )
