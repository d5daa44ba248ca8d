"""A real PgBouncer in front of the PostgreSQL of the tests."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from saga_engine.embedded.programs import unprivileged_user
from saga_engine.embedded.server_process import ServerProcess, free_port

PROGRAM = Path("/usr/sbin/pgbouncer")
INSTALL = "apt-get install pgbouncer"
USER = "saga"

IGNORED_PARAMETERS = (
    "extra_float_digits,statement_timeout,lock_timeout,idle_in_transaction_session_timeout,"
    "default_transaction_isolation,plan_cache_mode,enable_seqscan,jit,tcp_keepalives_idle,"
    "tcp_keepalives_interval,tcp_keepalives_count,tcp_user_timeout"
)
"""Startup parameters of the engine, which a pooler can be configured to ignore."""


@dataclass(frozen=True)
class PgBouncer:
    """A running PgBouncer."""

    port: int

    def url(self, direct: str) -> str:
        """The URL of a database through the pooler, from its direct URL."""
        name = urlsplit(direct).path.lstrip("/")
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/{name}"


def require_pgbouncer() -> None:
    """Skip the test if PgBouncer is not installed; fail it on CI."""
    if not PROGRAM.exists():
        skip_or_fail = pytest.fail if os.environ.get("CI") else pytest.skip
        skip_or_fail(f"PgBouncer is not installed. Run `{INSTALL}`.")


@asynccontextmanager
async def running_pgbouncer(direct: str, **settings: object) -> AsyncIterator[PgBouncer]:
    """Run a PgBouncer in transaction mode in front of the server of a URL with a socket."""
    require_pgbouncer()
    query = parse_qs(urlsplit(direct).query)
    port, account = free_port(), unprivileged_user()
    chosen: dict[str, object] = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": 4,
        "max_client_conn": 500,
        **settings,
    }
    with tempfile.TemporaryDirectory(prefix="saga-pgbouncer-", dir="/tmp") as made:
        directory = Path(made)
        os.chmod(directory, 0o755)  # noqa: PTH101 - does not block
        configuration = directory / "pgbouncer.ini"
        lines = [f"{name} = {value}" for name, value in chosen.items()]
        target = f"* = host={query['host'][0]} port={query['port'][0]} user={USER}"
        configuration.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
        process = await ServerProcess.start(
            (PROGRAM, configuration),
            log_path=directory / "log",
            environment={"PATH": "/usr/bin:/bin"},
            run_as=account,
        )
        try:
            await _wait_until_listening(process, port)
            yield PgBouncer(port)
        finally:
            await process.stop(signal.SIGINT, 20)


async def _wait_until_listening(process: ServerProcess, port: int) -> None:
    async with asyncio.timeout(60):
        async for _ in process.poll_while_running():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            writer.close()
            await writer.wait_closed()
            return
    raise AssertionError(process.log_tail())
