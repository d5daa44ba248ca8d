"""The limits that PostgreSQL enforces on a session of the engine, and the timeout of connecting."""

from typing import Any

from saga_engine.settings import Settings


def session_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `asyncpg.connect` other than the address."""
    timeout = f"{settings.database_transaction_timeout * 1000:.0f}"
    return {
        "timeout": settings.database_connect_timeout,
        "command_timeout": settings.database_transaction_timeout,
        "server_settings": {
            "application_name": "saga-engine",
            "timezone": "UTC",
            "default_transaction_isolation": "read committed",
            "statement_timeout": timeout,
            "idle_in_transaction_session_timeout": timeout,
            "lock_timeout": f"{settings.database_lock_timeout * 1000:.0f}",
            # Every hot statement finds its rows by an index. A plan that was made while the tables
            # were empty must not read whole tables when they are full.
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "jit": "off",
        },
    }
