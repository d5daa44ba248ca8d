"""The embedded PostgreSQL is durable and leaves no files and no processes."""

import asyncio
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.errors import ConfigurationError, StoreUnavailable
from tests.kit.processes import is_alive, owner_of, wait_for_exit

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the server's user can access, unlike pytest's tmp_path of root."""
    parent = Path(tempfile.mkdtemp())
    parent.chmod(0o711)
    yield parent / "postgres"
    shutil.rmtree(parent)


def socket_of(url: str) -> Path:
    return Path(url.partition("host=")[2].partition("&")[0])


async def connect(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url.replace("+asyncpg", ""))


async def ask(url: str, question: str):
    connection = await connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def over_tcp() -> AsyncIterator[PostgresServer]:
    async with PostgresServer(use_tcp=True, settings={"work_mem": "5MB"}) as server:
        yield server


async def test_it_runs_as_an_unprivileged_user_with_fsync_on():
    async with PostgresServer() as server:
        owner = owner_of(server.pid)
        assert owner != 0
        assert owner == os.geteuid() or IS_ROOT
        assert await ask(server.url, "SHOW fsync") == "on"
        assert await ask(server.url, "SHOW listen_addresses") == ""


async def test_a_created_database_is_a_copy_of_its_template(postgres):
    url = await postgres.create_database("template_here")
    connection = await connect(url)
    await connection.execute("CREATE TABLE kept (id int)")
    await connection.close()
    copy = await postgres.create_database("copy_here", template="template_here")
    assert await ask(copy, "SELECT count(*) FROM kept") == 0
    for name in ("template_here", "copy_here"):
        await postgres.drop_database(name)


async def test_a_database_name_with_other_characters_is_refused(postgres):
    with pytest.raises(ConfigurationError, match="not a database name"):
        await postgres.create_database('x"; DROP DATABASE postgres')


async def test_tcp_needs_the_password(over_tcp):
    assert await ask(over_tcp.url, "SELECT 1") == 1
    assert await ask(over_tcp.url, "SHOW work_mem") == "5MB"
    user, _, address = over_tcp.url.rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:wrong@{address}"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(wrong, "SELECT 1")


async def test_a_restart_after_sigkill_keeps_committed_rows(over_tcp):
    url, pid = over_tcp.url, over_tcp.pid
    connection = await connect(url)
    await connection.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)")
    over_tcp.kill()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.execute("SELECT 1")
    await over_tcp.restart()
    assert over_tcp.url == url
    assert over_tcp.pid != pid
    assert await ask(url, "SELECT count(*) FROM kept") == 1


async def test_a_directory_keeps_its_data_across_starts(directory):
    async with PostgresServer(directory) as server:
        connection = await connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        await connection.close()
    async with PostgresServer(directory) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 7
        with pytest.raises(StoreUnavailable, match=r"postmaster\.pid"):
            await PostgresServer(directory).__aenter__()
        assert await ask(server.url, "SELECT 1") == 1


async def test_a_temporary_server_leaves_no_files_and_no_process():
    async with PostgresServer() as server:
        socket = socket_of(server.url)
        pid = server.pid
        assert socket.exists()
    assert not socket.parent.exists()
    assert not is_alive(pid)


async def test_a_path_that_is_too_long_for_a_socket_works(directory):
    long = directory / ("long" * 20) / ("longer" * 10)
    async with PostgresServer(long) as server:
        assert await ask(server.url, "SELECT 1") == 1
        socket = socket_of(server.url)
    assert not socket.exists()
    assert (long / "data").exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root runs PostgreSQL as another user")
async def test_an_inaccessible_directory_is_refused_and_not_changed(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (closed, *closed.parents)]
    with pytest.raises(ConfigurationError, match="cannot access"):
        await PostgresServer(closed / "postgres").__aenter__()
    assert modes == [stat.S_IMODE(path.stat().st_mode) for path in (closed, *closed.parents)]


async def test_a_start_does_not_change_the_mode_of_parent_directories(directory):
    before = [path.stat().st_mode for path in directory.parents]
    async with PostgresServer(directory):
        assert before == [path.stat().st_mode for path in directory.parents]


PARENT = """
import asyncio
from saga_engine.embedded.postgres import PostgresServer

async def main():
    async with PostgresServer() as server:
        print(server.pid, server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_parent_leaves_no_postgres():
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid, url = (await parent.stdout.readline()).split()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await wait_for_exit(int(pid))
    shutil.rmtree(socket_of(url.decode()).parent)
