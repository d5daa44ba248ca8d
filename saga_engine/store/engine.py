"""
A pool of connections for a URL, with what the URL says of TLS in the driver's own terms.

asyncpg by itself would take whatever encryption it gets, and none rather than no connection; see
`tls`. Every pool of this package is made here: the engine's, a participant's and that of
migrations.
"""

import inspect
from typing import Any

import asyncpg
from sqlalchemy import URL, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from saga_engine import tls
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.store.hosts import connecting
from saga_engine.store.sqlstate import address


def engine_for(url: str, **options: Any) -> AsyncEngine:
    """
    Make an engine; nothing is connected yet.

    Args:
        options: those of SQLAlchemy's `create_async_engine`.

    Raises:
        ConfigurationError: the URL cannot be read, or a certificate it names.
    """
    address(url)  # refuses what is no URL, without quoting it
    files = tls.of_database(url)
    words = tls.DATABASE
    parameters = [tls.SSLMODE, words.ca, words.certificate, words.key]
    given = make_url(url).difference_update_query(parameters)
    _refuse_unknown(given)
    arguments = {**connecting(url), **options.pop("connect_args", {})}
    engine = create_async_engine(given, connect_args=arguments, **options)
    if files is not None:
        tls.context(files)

    def secure(_dialect: object, _record: object, _given: object, keywords: dict[str, Any]) -> None:
        keywords["ssl"] = files is not None and _context(files)

    event.listen(engine.sync_engine, "do_connect", secure)
    return engine


def _refuse_unknown(url: URL) -> None:
    known = inspect.signature(asyncpg.connect).parameters
    for name in url.query:
        if name not in known:
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which asyncpg does not know. Leave it"
                " out."
            )


def _context(files: tls.Files) -> Any:
    try:
        return tls.context(files)
    except ConfigurationError as error:
        # It could be read when the process started: somebody is replacing it.
        raise StoreUnavailable(str(error)) from None
