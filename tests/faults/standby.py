"""A standby that confirms every commit: what the primary has promised, it has as well."""

import atexit
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.process import ServerProcess
from saga_engine.embedded.programs import postgres_programs, unprivileged_account
from tests.faults.processes import eventually
from tests.faults.site import Site


@dataclass
class Standby:
    """A second server that follows the first."""

    server: PostgresServer
    site: Site
    promoted: bool = False

    async def promote(self):
        """Make it a primary, which follows nobody."""
        [[done]] = await self.site.execute("SELECT pg_promote(true, 60)", url=self.server.url)
        assert done, "the standby was not promoted"
        self.promoted = True


@asynccontextmanager
async def standby(site):
    """Make one of the site's server; it ends with the block, unless it was promoted."""
    directory = _directory()
    await _copy(site.postgres, directory)
    server = PostgresServer(directory, tcp=True)
    await server.__aenter__()
    made = Standby(server, site)
    try:
        await _confirm_with_it(site)
        yield made
    finally:
        if not made.promoted:
            await server.__aexit__()


def _directory():
    """One that the server's own account can reach, wherever the suite's own logs are."""
    directory = Path(tempfile.mkdtemp(prefix="saga-standby-"))
    directory.chmod(0o755)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


async def _copy(primary, directory):
    url, account = urlsplit(primary.url), unprivileged_account()
    (directory / "password").write_text(url.password)
    (directory / "data").mkdir(mode=0o700)
    if account:
        os.chown(directory / "data", account.uid, account.gid)
    copying = await ServerProcess.start(
        (
            *(postgres_programs(account) / "pg_basebackup", "--pgdata", directory / "data"),
            *("--host", "127.0.0.1", "--port", str(url.port), "--username", url.username),
            *("--no-password", "--write-recovery-conf", "--checkpoint", "fast"),
        ),
        log=directory / "log",
        environment={"PGPASSWORD": url.password, "LC_ALL": "C"},
        account=account,
    )
    assert await copying.wait() == 0, copying.tail()


async def _confirm_with_it(site):
    """No commit without the standby from now on: nothing that is promised is lost with one."""
    await site.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await site.execute("SELECT pg_reload_conf()")

    async def confirms():
        return bool(await site.execute(_CONFIRMS))

    await eventually(confirms)


_CONFIRMS = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
