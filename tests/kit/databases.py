"""Databases of tests: copies of a template, made and dropped by one connection to their server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Self

import asyncpg
from sqlalchemy import make_url

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.store.schema import Lineages

EMPTY = "template1"
"""The template of a database without tables."""

_MIGRATED = "template_migrated"


class Databases:
    """
    The databases of one server, for an `async with`; a test gets one of its own.

    A copy of a template takes a tenth of the processor time of the migrations, and a connection
    that stays open makes one in half the time of a new one.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._numbers = count(1)
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> Self:
        """Connect when the first database is made."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection; the databases end with their server."""
        if self._connection:
            await self._connection.close()

    async def migrated_template(self, lineages: Lineages) -> str:
        """Make a database with all migrations of *lineages*, once; return its name."""
        from saga_engine.store.migrate import upgrade  # noqa: PLC0415 - alembic only where used

        await upgrade(await self._server.create_database(_MIGRATED), lineages)
        return _MIGRATED

    @asynccontextmanager
    async def copy_of(self, template: str = EMPTY) -> AsyncIterator[str]:
        """Make a copy of a database without connections, and drop it; the URL of the copy."""
        name = f"test_{next(self._numbers)}"
        # Where fsync is off, copying files takes half as long as writing each page to the log.
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            url = make_url(self._server.url).set(database=name)
            yield url.render_as_string(hide_password=False)
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        if self._connection is None or self._connection.is_closed():  # a test crashed the server
            self._connection = await asyncpg.connect(self._server.url.replace("+asyncpg", ""))
        try:
            await self._connection.execute(statement)
        except BaseException:  # a test that timed out: the next one gets another connection
            self._connection.terminate()
            self._connection = None
            raise
