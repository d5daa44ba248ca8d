"""A synchronous standby: it has every transaction that the primary has confirmed."""

import atexit
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.programs import postgres_bin_directory, unprivileged_user
from saga_engine.embedded.server_process import ServerProcess
from tests.faults.environment import FaultEnvironment
from tests.kit.programs import wait_until_true


@dataclass
class Standby:
    """A second server that follows the first."""

    server: PostgresServer
    environment: FaultEnvironment
    promoted: bool = False

    async def promote(self):
        """Make it a primary."""
        [[done]] = await self.environment.execute(
            "SELECT pg_promote(true, 60)", url=self.server.url
        )
        assert done, "the standby was not promoted"
        self.promoted = True


@asynccontextmanager
async def standby(environment: FaultEnvironment):
    """Create a standby of the current server; it ends with the block, unless it was promoted."""
    directory = _directory()
    await _copy(environment.postgres, directory)
    server = PostgresServer(directory, use_tcp=True)
    await server.__aenter__()
    made = Standby(server, environment)
    try:
        await _make_synchronous(environment)
        yield made
    finally:
        if not made.promoted:
            await server.__aexit__()


def _directory():
    """A directory that the server's account can access, unlike the suite's logs."""
    directory = Path(tempfile.mkdtemp(prefix="saga-standby-"))
    directory.chmod(0o755)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


async def _copy(primary, directory):
    url, account = urlsplit(primary.url), unprivileged_user()
    (directory / "password").write_text(url.password)
    (directory / "data").mkdir(mode=0o700)
    if account:
        os.chown(directory / "data", account.uid, account.gid)
    copying = await ServerProcess.start(
        (
            *(postgres_bin_directory(account) / "pg_basebackup", "--pgdata", directory / "data"),
            *("--host", "127.0.0.1", "--port", str(url.port), "--username", url.username),
            *("--no-password", "--write-recovery-conf", "--checkpoint", "fast"),
        ),
        log_path=directory / "log",
        environment={"PGPASSWORD": url.password, "LC_ALL": "C"},
        run_as=account,
    )
    assert await copying.wait() == 0, copying.log_tail()


async def _make_synchronous(environment: FaultEnvironment):
    """Let every commit wait for the standby, so that no confirmed transaction is lost."""
    await environment.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await environment.execute("SELECT pg_reload_conf()")

    async def confirms():
        return bool(await environment.execute(_CONFIRMS))

    await wait_until_true(confirms)


_CONFIRMS = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
