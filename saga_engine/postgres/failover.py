"""
Several hosts in one database URL: the connection goes to the one that accepts writes.

    postgresql+asyncpg://user:password@/database?host=one:5432&host=two:5432

asyncpg has one timeout for all hosts together, so a host that does not answer would use it up. Here
each host gets its share of it.
"""

from typing import Any

import asyncpg


async def connect_to_primary(
    *,
    host: list[str],
    port: list[int],
    timeout: float,  # noqa: ASYNC109 - asyncpg's name for it
    **arguments: Any,
) -> asyncpg.Connection:
    """Connect to the first host that has the requested session attributes."""
    last_error: Exception | None = None
    for host_name, host_port in zip(host, port, strict=True):
        try:
            return await asyncpg.connect(
                host=host_name, port=host_port, timeout=timeout / len(host), **arguments
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            last_error = error
    assert last_error, "there are several hosts"
    raise last_error
