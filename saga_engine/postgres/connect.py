"""
A pool of connections for a URL, with what the URL says of TLS in the driver's own terms.

asyncpg by itself would take whatever encryption it gets, and none rather than no connection; see
`tls`. Every pool of this package is made here: the engine's, a participant's and that of
migrations.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from saga_engine import tls
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.postgres import pgbouncer
from saga_engine.postgres.url import TLS, read


def engine_for(url: str, **options: Any) -> AsyncEngine:
    """
    Make an engine; nothing is connected yet.

    Args:
        options: those of SQLAlchemy's `create_async_engine`.

    Raises:
        ConfigurationError: the URL cannot be read, or a certificate it names.
    """
    address = read(url)
    files = tls.of_database(url)
    arguments = {**address.arguments(), **options.pop("connect_args", {})}
    engine = create_async_engine(
        make_url(url.strip()).difference_update_query([*TLS, *address.query]),
        connect_args={**arguments, "async_creator_fn": pgbouncer.connect},
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


def _context(files: tls.Files) -> Any:
    try:
        return tls.context(files)
    except ConfigurationError as error:
        # It could be read when the process started: somebody is replacing it.
        raise StoreUnavailable(str(error)) from None
