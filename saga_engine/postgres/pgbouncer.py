"""
Connections that may go through a connection pooler, such as PgBouncer in transaction mode.

A pooler may use another session of PostgreSQL for each transaction. So nothing may outlast a
transaction: no named prepared statement, and no setting of the session. Many poolers also refuse or
drop the startup parameters that set statement_timeout and the other limits. Each new connection is
therefore checked once: whether it reaches the session that it was given, with the settings in
force. If not, every transaction sets them itself, in the same message as its BEGIN, and statements
are unnamed. That costs one more round trip for each statement, and nothing else changes.
"""

from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import asyncpg

from saga_engine.errors import ConfigurationError
from saga_engine.postgres.errors import is_stale_statement
from saga_engine.postgres.failover import connect_to_primary
from saga_engine.postgres.rows import DriverRow, DriverRows
from saga_engine.postgres.statement import Statement
from saga_engine.postgres.transaction_end import ends_transaction

if TYPE_CHECKING:  # commands that only read the database do not load it
    from sqlalchemy import Connection

_SOCKET_SETTINGS = ("tcp_keepalives_", "tcp_user_timeout")
"""Settings of the socket: a pooler has a socket of its own, and Unix sockets have none."""

_PREPARED_MAX = 500
"""
Statements that stay prepared on one connection. The engine has about a hundred, and a few for each
month.
"""

_REFORMATTED_SETTINGS = frozenset({"application_name", "timezone"})
"""Settings that PostgreSQL may report in another spelling; no promise depends on them."""


class PoolerAwareConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """
    asyncpg's connection, which can be used through a pooler.

    `session_name` is the `application_name` of its transactions behind a pooler, different for each
    connection, and None where PostgreSQL's process number names the session.
    """

    end_of_transaction: Callable[[], Exception] | None = None
    """Makes the error for a statement that ends the transaction; None: it is executed."""

    on_statement: Callable[[str, bool], None] | None = None
    """Called with the SQL that is about to be sent, and whether it may be several statements."""

    session_name: str | None = None
    _begin_settings: str = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepared_by_sql: dict[str, Any] = {}

    def uses_pooler(self) -> bool:
        """Whether the connection goes through a pooler."""
        return self.session_name is not None

    def enable_pooler_mode(self, settings: Mapping[str, str]) -> None:
        """From now on set *settings* in each transaction, and keep nothing in the session."""
        self._stmt_cache_enabled = False  # or asyncpg names its own statements
        self.session_name = f"{settings.get('application_name', 'saga-engine')} {token_hex(4)}"
        transaction_settings = {
            **_server_settings(settings),
            "transaction_isolation": settings.get(
                "default_transaction_isolation", "read committed"
            ),
            "application_name": self.session_name,
        }
        transaction_settings.pop("default_transaction_isolation", None)
        self._begin_settings = "".join(
            f" SET LOCAL {name} = {_quoted(value)};" for name, value in transaction_settings.items()
        )

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Execute as asyncpg does, with the settings after a BEGIN."""
        self.check_statement(query, is_script=not args)
        if not self._begin_settings or not query.startswith("BEGIN"):
            return str(await super().execute(query, *args, timeout=timeout))
        try:
            return str(
                await super().execute(
                    f"{query.rstrip(' ;')};{self._begin_settings}", timeout=timeout
                )
            )
        except asyncpg.PostgresError:
            # SQLAlchemy does not roll back after a BEGIN that failed.
            if self.is_in_transaction():
                await super().execute("ROLLBACK", timeout=timeout)
            raise

    async def execute_statement(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> DriverRows:
        """Execute one statement. It stays prepared, except through a pooler."""
        sql, names = statement.positional
        values = parameters or {}
        prepared = self._prepared_by_sql.get(sql)
        if prepared is None:
            prepared = await self.prepare(sql, record_class=DriverRow)
            if not self.uses_pooler():
                self._cache_prepared(sql, prepared)
        try:
            rows = await prepared.fetch(*[values[name] for name in names])
        except (asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            self.forget_stale_statements(error)
            raise
        return DriverRows(rows, prepared.get_statusmsg())

    def forget_stale_statements(self, error: BaseException) -> None:
        """Prepare every statement again, if an error shows that one is stale."""
        if is_stale_statement(error):
            self._prepared_by_sql.clear()

    async def _get_statement(self, query: str, *args: Any, **options: Any) -> Any:
        """Prepare for every method of asyncpg that executes one statement."""
        self.check_statement(query, is_script=False)
        return await super()._get_statement(query, *args, **options)

    async def _introspect_types(self, *arguments: Any) -> Any:
        """Read types as asyncpg does. It switches `jit` off meanwhile, which is not reported."""
        on_statement, self.on_statement = self.on_statement, None
        try:
            return await super()._introspect_types(*arguments)
        finally:
            self.on_statement = on_statement

    def check_statement(self, query: str, *, is_script: bool) -> None:
        """
        Check and report a statement before it is sent, as every method of this class does.

        Args:
            query: the statement, or several.
            is_script: whether it may be several.

        Raises:
            Exception: that of `end_of_transaction`, for a statement that ends it.
        """
        error = self.end_of_transaction
        if error is not None and ends_transaction(query, is_script=is_script):
            raise error()
        if self.on_statement is not None:
            self.on_statement(query, is_script)

    def _cache_prepared(self, sql: str, prepared: Any) -> None:
        if len(self._prepared_by_sql) >= _PREPARED_MAX:
            self._prepared_by_sql.clear()
        self._prepared_by_sql[sql] = prepared

    async def prepare(self, query: str, *, name: str | None = None, **options: Any) -> Any:
        """Prepare as asyncpg does, through a pooler without a name."""
        return await super().prepare(query, name="" if self.uses_pooler() else name, **options)


async def connect(
    *, server_settings: Mapping[str, str] | None = None, **arguments: Any
) -> PoolerAwareConnection:
    """Connect to PostgreSQL, directly or through a pooler, with *server_settings* in force."""
    settings = dict(server_settings or {})
    try:
        connection = await _open(settings, arguments)
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise
        connection = await _open({}, arguments)
        connection.enable_pooler_mode(settings)
        return connection
    try:
        if (
            await connection.execute(_session_check_sql(connection.get_server_pid(), settings))
            != "SELECT 1"
        ):
            connection.enable_pooler_mode(settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


def check_prepared_statement(
    connection: "Connection", _: object, statement: str, *__: object
) -> None:
    """
    Check a statement of SQLAlchemy (`before_cursor_execute`).

    SQLAlchemy keeps prepared statements of its own. It executes them without a method of the
    driver's connection that would check them.
    """
    driver: Any = connection.connection.driver_connection
    driver.check_statement(statement, is_script=False)


async def leads_through_pooler(driver: asyncpg.Connection) -> bool:
    """Whether a connection that another library opened goes through a pooler."""
    return bool(await driver.execute(_session_check_sql(driver.get_server_pid(), {})) != "SELECT 1")


def is_pooler_safe(adapter: Any) -> bool:
    """Whether SQLAlchemy caches no statement of a connection, and names none the same twice."""
    names = {adapter._prepared_statement_name_func() for _ in range(2)}  # noqa: SLF001 - it has no public name
    caches_statements = adapter._prepared_statement_cache is not None  # noqa: SLF001 - the same
    return not caches_statements and (names == {""} or (len(names) > 1))


async def _open(settings: Mapping[str, str], arguments: Mapping[str, Any]) -> PoolerAwareConnection:
    connect_function = (
        connect_to_primary if isinstance(arguments.get("host"), list) else asyncpg.connect
    )
    options = {"connection_class": PoolerAwareConnection, **arguments}
    try:
        connection: PoolerAwareConnection = await connect_function(
            server_settings=dict(settings), **options
        )
    except KeyError:  # asyncpg looks up the user of this process, and a container may have none
        raise ConfigurationError(
            "The database URL names no user, and the user of this process has no name. Name the"
            " user in the URL, as in postgresql+asyncpg://user@host/database."
        ) from None
    return connection


def _session_check_sql(backend_pid: int, settings: Mapping[str, str]) -> str:
    """
    Return a query that has a row if this is the expected session and has *settings* in force.

    It is one message of the simple protocol and needs no prepared statement: asyncpg returns the
    number of rows in the command tag.
    """
    checked_settings = {
        name: value
        for name, value in _server_settings(settings).items()
        if name.lower() not in _REFORMATTED_SETTINGS
    }
    pairs = ", ".join(
        f"({_quoted(name)}, {_quoted(value)})" for name, value in checked_settings.items()
    )
    settings_in_force = (
        f"(SELECT count(*) FROM pg_settings WHERE (name, setting) IN ({pairs}))"  # noqa: S608 - ours
        f" = {len(checked_settings)}"
        if pairs
        else "true"
    )
    return f"SELECT 1 WHERE pg_backend_pid() = {backend_pid} AND {settings_in_force}"


def _server_settings(settings: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in settings.items() if not name.startswith(_SOCKET_SETTINGS)
    }


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
