"""
Connections that may lead through a connection pooler, such as PgBouncer in transaction mode.

A pooler may give each transaction another session of PostgreSQL. So nothing may outlast a
transaction: no named prepared statement, and no setting of the session. Many poolers also refuse or
drop the startup parameters with which we set statement_timeout and the rest. Each new connection is
therefore asked once whether it leads to the session that it named, with our settings in force.
Where it does not, every transaction sets them itself, in the same message as its BEGIN, and
statements are unnamed: each costs one more round trip, and nothing else changes.
"""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any

import asyncpg

from saga_engine.errors import ConfigurationError
from saga_engine.postgres.errors import is_stale
from saga_engine.postgres.failover import first_that_will_do
from saga_engine.postgres.rows import Row, Rows
from saga_engine.postgres.statement import Statement

_HOST_ONLY = ("tcp_keepalives_", "tcp_user_timeout")
"""Settings of a socket: behind a pooler its socket is another one, and Unix sockets have none."""

_KEPT_MAX = 500
"""
Statements that stay prepared on one connection. The engine has about a hundred, and makes a few for
each month.
"""

_OWN_LOOKS = frozenset({"application_name", "timezone"})
"""Settings that PostgreSQL may show spelled otherwise; nothing that we promise depends on them."""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """
    asyncpg's connection, which can be used through a pooler.

    `session_name` is the `application_name` of its transactions behind a pooler, different for each
    connection, and None where PostgreSQL's process number names the session.
    """

    session_name: str | None = None
    _begin: str = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept: dict[str, Any] = {}

    def is_pooled(self) -> bool:
        """Whether it leads through a pooler."""
        return self.session_name is not None

    def use_pooler(self, wanted: Mapping[str, str]) -> None:
        """Set *wanted* in each transaction from now on, and keep nothing in the session."""
        self._stmt_cache_enabled = False  # or asyncpg's own statements would have names
        self.session_name = f"{wanted.get('application_name', 'saga-engine')} {token_hex(4)}"
        in_force = {
            **_server_settings(wanted),
            "transaction_isolation": wanted.get("default_transaction_isolation", "read committed"),
            "application_name": self.session_name,
        }
        in_force.pop("default_transaction_isolation", None)
        self._begin = "".join(
            f" SET LOCAL {name} = {_quoted(value)};" for name, value in in_force.items()
        )

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Execute as asyncpg does; a BEGIN takes the settings with it."""
        if not self._begin or not query.startswith("BEGIN"):
            return str(await super().execute(query, *args, timeout=timeout))
        try:
            return str(
                await super().execute(f"{query.rstrip(' ;')};{self._begin}", timeout=timeout)
            )
        except asyncpg.PostgresError:
            # SQLAlchemy takes a BEGIN that failed for one that never began.
            if self.is_in_transaction():
                await super().execute("ROLLBACK", timeout=timeout)
            raise

    async def run(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> Rows:
        """Execute one statement. It stays prepared, unless a pooler is in between."""
        sql, names = statement.numbered
        given = parameters or {}
        prepared = self._kept.get(sql)
        if prepared is None:
            prepared = await self.prepare(sql, record_class=Row)
            if not self.is_pooled():
                self._keep(sql, prepared)
        try:
            rows = await prepared.fetch(*[given[name] for name in names])
        except (asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            if is_stale(error):
                self._kept.clear()
            raise
        return Rows(rows, prepared.get_statusmsg())

    def _keep(self, sql: str, prepared: Any) -> None:
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        self._kept[sql] = prepared

    async def prepare(self, query: str, *, name: str | None = None, **options: Any) -> Any:
        """Prepare as asyncpg does; behind a pooler without a name."""
        return await super().prepare(query, name="" if self.is_pooled() else name, **options)


async def connect(
    *, server_settings: Mapping[str, str] | None = None, **arguments: Any
) -> Connection:
    """Connect to PostgreSQL, or to the pooler before it, with *server_settings* in force."""
    given = dict(server_settings or {})
    try:
        opened = await _opened(given, arguments)
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise
        opened = await _opened({}, arguments)
        opened.use_pooler(given)
        return opened
    try:
        if await opened.execute(_question(opened.get_server_pid(), given)) != "SELECT 1":
            opened.use_pooler(given)
    except BaseException:
        opened.terminate()
        raise
    return opened


async def leads_through_one(driver: asyncpg.Connection) -> bool:
    """Whether a connection of another engine than ours leads through a pooler."""
    return bool(await driver.execute(_question(driver.get_server_pid(), {})) != "SELECT 1")


def is_prepared_for(adapter: Any) -> bool:
    """Whether SQLAlchemy keeps no statement of a connection, and gives none a fixed name."""
    names = {adapter._prepared_statement_name_func() for _ in range(2)}  # noqa: SLF001 - not told
    kept = adapter._prepared_statement_cache is not None  # noqa: SLF001 - the same
    return not kept and (names == {""} or (len(names) > 1))


async def _opened(settings: Mapping[str, str], arguments: Mapping[str, Any]) -> Connection:
    connecting = first_that_will_do if isinstance(arguments.get("host"), list) else asyncpg.connect
    options = {"connection_class": Connection, **arguments}
    try:
        opened: Connection = await connecting(server_settings=dict(settings), **options)
    except KeyError:  # asyncpg looks the user of this process up, and a container may have none
        raise ConfigurationError(
            "The database URL names no user, and the user of this process has no name. Name the"
            " user in the URL, as in postgresql+asyncpg://user@host/database."
        ) from None
    return opened


def _question(number: int, wanted: Mapping[str, str]) -> str:
    """
    Ask for one row if the session is ours alone and has *wanted* in force.

    One message of the simple protocol, which needs no prepared statement: asyncpg tells of its
    answer how many rows it has.
    """
    named = {
        name: value
        for name, value in _server_settings(wanted).items()
        if name.lower() not in _OWN_LOOKS
    }
    pairs = ", ".join(f"({_quoted(name)}, {_quoted(value)})" for name, value in named.items())
    in_force = (
        f"(SELECT count(*) FROM pg_settings WHERE (name, setting) IN ({pairs})) = {len(named)}"  # noqa: S608 - our own settings
        if pairs
        else "true"
    )
    return f"SELECT 1 WHERE pg_backend_pid() = {number} AND {in_force}"


def _server_settings(wanted: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if not name.startswith(_HOST_ONLY)}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
