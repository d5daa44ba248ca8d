"""
Several hosts in one database URL: the one that takes writes is used, wherever a failover put it.

    postgresql+asyncpg://user:password@/database?host=one:5432&host=two:5432

asyncpg has one timeout for all hosts together, so that a first one that is silent is the last one
it tries. Here each gets its share of it.
"""

from collections.abc import Mapping
from typing import Any

import asyncpg
from sqlalchemy.engine import make_url

WRITABLE = "read-write"


def connecting(url: str) -> Mapping[str, Any]:
    """What `connect_args` needs besides, for a URL with several hosts; nothing for one."""
    query = make_url(url).query
    hosts = query.get("host", "")
    if isinstance(hosts, str) and "," not in hosts:
        return {}
    return {} if "target_session_attrs" in query else {"target_session_attrs": WRITABLE}


async def first_that_will_do(
    *,
    host: list[str],
    port: list[int],
    timeout: float,  # noqa: ASYNC109 - asyncpg's name for it
    **arguments: Any,
) -> asyncpg.Connection:
    """Connect to the first host that takes writes, if that is what is asked for."""
    problem: Exception | None = None
    for each, its_port in zip(host, port, strict=True):
        try:
            return await asyncpg.connect(
                host=each, port=its_port, timeout=timeout / len(host), **arguments
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            problem = error
    assert problem, "SQLAlchemy gives several hosts"
    raise problem
