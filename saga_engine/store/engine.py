"""
A pool of connections for a URL, with what the URL says of TLS in the driver's own terms.

asyncpg by itself would take whatever encryption it gets, and none rather than no connection; see
`tls`. Every pool of this package is made here: the engine's, a participant's and that of
migrations.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import asyncpg
from sqlalchemy import URL, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from saga_engine import tls
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.store import pooler
from saga_engine.store.hosts import connecting
from saga_engine.store.sqlstate import address

_NUMBERS: Mapping[str, type[int] | type[float]] = {
    "timeout": float,
    "command_timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "prepared_statement_cache_size": int,
}
"""Parameters of a URL that are numbers; the last one is SQLAlchemy's, the others asyncpg's."""

_OBJECTS = ("loop", "connection_class", "record_class", "server_settings", "direct_tls", "dsn")
"""Parameters of asyncpg's that cannot be written in a URL."""


def engine_for(url: str, **options: Any) -> AsyncEngine:
    """
    Make an engine; nothing is connected yet.

    Args:
        options: those of SQLAlchemy's `create_async_engine`.

    Raises:
        ConfigurationError: the URL cannot be read, or a certificate it names.
    """
    url = url.strip()
    address(url)  # refuses what is no URL, without quoting it
    files = tls.of_database(url)
    words = tls.DATABASE
    parameters = [tls.SSLMODE, words.ca, words.certificate, words.key]
    given = make_url(url).difference_update_query(parameters)
    _refuse_unknown(given)
    arguments = {**_numbers(given), **connecting(url), **options.pop("connect_args", {})}
    engine = create_async_engine(
        given.difference_update_query(_NUMBERS),
        connect_args={**arguments, "async_creator_fn": pooler.connect},
        **options,
    )
    if files is not None:
        tls.context(files)

    def connect(dialect: Any, _record: object, given: Any, keywords: dict[str, Any]) -> Any:
        keywords["ssl"] = files is not None and _context(files)
        opened = dialect.connect(*given, **keywords)
        if opened.driver_connection.is_pooled():
            opened._prepared_statement_cache = None  # noqa: SLF001 - known only once it is open
        return opened

    event.listen(engine.sync_engine, "do_connect", connect)
    return engine


def _refuse_unknown(url: URL) -> None:
    known = {*inspect.signature(asyncpg.connect).parameters, *_NUMBERS}.difference(_OBJECTS)
    for name in url.query:
        if name not in known:
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which asyncpg does not know. Leave it"
                " out."
            )


def _numbers(url: URL) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, kind in _NUMBERS.items():
        if name in url.query:
            try:
                found[name] = kind(str(url.query[name]))
            except ValueError:
                raise ConfigurationError(
                    f"The database URL has the parameter {name}, which must be a number."
                ) from None
    return found


def _context(files: tls.Files) -> Any:
    try:
        return tls.context(files)
    except ConfigurationError as error:
        # It could be read when the process started: somebody is replacing it.
        raise StoreUnavailable(str(error)) from None
