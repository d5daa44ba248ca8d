"""The engine of SQLAlchemy for a participant's URL: a connection for each handler, timeouts."""

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine.participant.lost_statements import APPLICATION_NAME
from saga_engine.participant.pipelined_connection import PipelinedConnection
from saga_engine.postgres.connect import create_database_engine
from saga_engine.postgres.keepalive import (
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_PROBES,
    TCP_USER_TIMEOUT_MS,
)
from saga_engine.settings import Settings


def display_url(url: URL) -> str:
    """Format the part of a URL that may be shown: its query may contain a password too."""
    hosts = url.query.get("host", "localhost")
    host = url.host or (hosts if isinstance(hosts, str) else ",".join(hosts))
    port = f":{url.port}" if url.port else ""
    return f"{url.username or ''}@{host}{port}/{url.database or ''}"


def create_engine(url: str, settings: Settings) -> AsyncEngine:
    """Create an engine with `participant_concurrency` connections, at READ COMMITTED."""
    timeout_ms = f"{settings.participant_handler_timeout * 1000:.0f}"
    return create_database_engine(
        url,
        pool_size=settings.participant_concurrency,
        max_overflow=0,
        pool_timeout=settings.participant_handler_timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={
            "connection_class": PipelinedConnection,
            "timeout": settings.database_connect_timeout,
            "command_timeout": settings.participant_handler_timeout,
            "server_settings": {
                "application_name": APPLICATION_NAME,
                "default_transaction_isolation": "read committed",
                # A session whose client was cut off keeps its command locked, and the further
                # attempts wait: until these timeouts, or until keepalive finds the client gone.
                "statement_timeout": timeout_ms,
                "idle_in_transaction_session_timeout": timeout_ms,
                "tcp_keepalives_idle": f"{KEEPALIVE_IDLE}",
                "tcp_keepalives_interval": f"{KEEPALIVE_INTERVAL}",
                "tcp_keepalives_count": f"{KEEPALIVE_PROBES}",
                "tcp_user_timeout": f"{TCP_USER_TIMEOUT_MS}",
            },
        },
    )
