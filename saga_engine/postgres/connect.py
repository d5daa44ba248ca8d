"""
A connection pool for a URL, with the TLS settings of the URL in the driver's own terms.

By default asyncpg accepts any encryption, and an unencrypted connection too; see `tls`. Every pool
is created here: that of the engine, of a participant and of the migrations.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from saga_engine import tls
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.postgres import pgbouncer
from saga_engine.postgres.url import TLS_PARAMETERS, parse_database_url


def create_database_engine(url: str, **options: Any) -> AsyncEngine:
    """
    Create an engine of SQLAlchemy, without connecting.

    Args:
        options: those of SQLAlchemy's `create_async_engine`.

    Raises:
        ConfigurationError: the URL is invalid, or a certificate file cannot be read.
    """
    parsed_url = parse_database_url(url)
    tls_files = tls.database_tls_files(url)
    arguments = {**parsed_url.connect_arguments(), **options.pop("connect_args", {})}
    engine = create_async_engine(
        make_url(url.strip()).difference_update_query([*TLS_PARAMETERS, *parsed_url.query]),
        connect_args={**arguments, "async_creator_fn": pgbouncer.connect},
        **options,
    )
    if tls_files is not None:
        tls.create_ssl_context(tls_files)

    def open_connection(
        dialect: Any, _record: object, positional: Any, keywords: dict[str, Any]
    ) -> Any:
        keywords["ssl"] = tls_files is not None and _tls_context(tls_files)
        adapter = dialect.connect(*positional, **keywords)
        if adapter.driver_connection.uses_pooler():
            adapter._prepared_statement_cache = None  # noqa: SLF001 - a pooler is known only after connecting
        return adapter

    event.listen(engine.sync_engine, "do_connect", open_connection)
    return engine


def _tls_context(tls_files: tls.TlsFiles) -> Any:
    try:
        return tls.create_ssl_context(tls_files)
    except ConfigurationError as error:
        # The file was readable when the process started, so it is being replaced.
        raise StoreUnavailable(str(error)) from None
