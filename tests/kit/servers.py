"""
The servers the tests run against: real ones, private to one pytest process, empty for every test.

A PostgreSQL and, when it is installed, a RabbitMQ node live as long as the session; a test gets a
database and a virtual host of its own. The development broker lives as long as one test.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.store.schema import ENGINE_DATABASE
from tests.kit.broker_faults import FaultyBroker
from tests.kit.databases import Databases
from tests.kit.kafka import INSTALL_COMMAND as KAFKA_INSTALL_COMMAND
from tests.kit.kafka import CrashingKafka, KafkaServer, kafka_program
from tests.kit.proxy import running_proxy
from tests.kit.rabbitmq import INSTALL_COMMAND, RabbitMQServer, rabbitmq_installed

RABBITMQ_MISSING = "RabbitMQ is not installed"
POSTGRESQL_MISSING = "PostgreSQL with TLS is not installed"
_VHOSTS_AT_ONCE = 25  # One rabbitmqctl call costs 0.5 s, each virtual host in it 30 ms.

_MEMORY = Path("/dev/shm")
_MIN_FREE_BYTES = 4 * 2**30
_PREFIX = "saga-tests-"

_numbers = count(1)


@contextmanager
def server_directory() -> Iterator[Path]:
    """
    A directory for the data of a server; in memory, if there is room.

    On some disks, making and dropping a database takes ten times as much processor time.
    """
    _remove_leftovers()
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MIN_FREE_BYTES
    parent = _MEMORY if has_room else None
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent) as made:
        Path(made).chmod(0o755)  # PostgreSQL does not run as root.
        yield Path(made) / "server"


def _remove_leftovers() -> None:
    """Remove what killed test runs have left in memory; their servers ended with them."""
    for directory in _MEMORY.glob(f"{_PREFIX}*"):
        process_id = directory.name.removeprefix(_PREFIX).split("-")[0]
        if process_id.isdigit() and not Path("/proc", process_id).exists():
            shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def running_postgres(**options: Any) -> AsyncIterator[PostgresServer]:
    """A PostgreSQL for one test or module, which stops or slows it; its data is temporary."""
    with server_directory() as directory:
        async with PostgresServer(directory, **options) as server:
            yield server


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    """
    One PostgreSQL per session (and per xdist worker).

    It does not wait for the disk: no test takes the power from the machine, a killed server loses
    nothing by it, and making a database for each test costs a fifth.
    """
    async with running_postgres() as server:
        await _execute(server, "ALTER SYSTEM SET fsync = off")
        await _execute(server, "ALTER SYSTEM SET full_page_writes = off")
        await _execute(server, "SELECT pg_reload_conf()")
        yield server


async def _execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url.replace("+asyncpg", ""))
    await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="session")
def postgresql_with_tls() -> Path:
    """The programs of a PostgreSQL that knows TLS, which the one in the wheel does not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{POSTGRESQL_MISSING}. Run `apt-get install postgresql`.")
    return found[-1].parent


@pytest.fixture(scope="session")
async def databases(postgres: PostgresServer) -> AsyncIterator[Databases]:
    """The databases of that PostgreSQL."""
    async with Databases(postgres) as databases:
        yield databases


@pytest.fixture
async def database_url(databases: Databases) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with databases.copy_of() as url:
        yield url


@pytest.fixture(scope="session")
async def migrated_template(databases: Databases) -> str:
    """The name of a database with all migrations applied, made once."""
    return await databases.migrated_template(ENGINE_DATABASE)


@pytest.fixture
async def migrated_url(databases: Databases, migrated_template: str) -> AsyncIterator[str]:
    """The URL of a database with all migrations applied and no rows."""
    async with databases.copy_of(migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_is_installed() -> None:
    """For tests that start nodes of their own."""
    _require_rabbitmq()


def _require_rabbitmq() -> None:
    """Its absence is loud, and an error on CI."""
    if not rabbitmq_installed():
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{RABBITMQ_MISSING}. Run `{INSTALL_COMMAND}`.")


@pytest.fixture(scope="session")
async def rabbitmq() -> AsyncIterator[RabbitMQServer]:
    """One real RabbitMQ node per session."""
    _require_rabbitmq()
    with server_directory() as directory:
        async with RabbitMQServer(directory) as server:
            yield server


@pytest.fixture(scope="session")
def rabbitmq_vhosts(rabbitmq: RabbitMQServer) -> "VhostPool":
    """Virtual hosts of that node."""
    return VhostPool(rabbitmq)


@pytest.fixture
async def rabbitmq_url(
    rabbitmq: RabbitMQServer, rabbitmq_vhosts: "VhostPool"
) -> AsyncIterator[str]:
    """The URL of an empty virtual host on the real RabbitMQ."""
    name = await rabbitmq_vhosts.acquire()
    yield rabbitmq.url_of(name)
    rabbitmq_vhosts.used.append(name)


@pytest.fixture(scope="session")
def kafka_is_installed() -> None:
    """For tests that start servers of their own."""
    if kafka_program() is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"The Kafka server for tests is not installed. Run `{KAFKA_INSTALL_COMMAND}`.")


@pytest.fixture(scope="session")
async def kafka(kafka_is_installed: None) -> AsyncIterator[KafkaServer]:
    """One server that speaks Kafka's protocol per session; a test has topics of its own."""
    async with running_kafka() as server:
        yield server


@asynccontextmanager
async def running_kafka() -> AsyncIterator[KafkaServer]:
    """A server for one test or session; its data is temporary."""
    with server_directory() as directory:
        async with KafkaServer(directory) as server:
            yield server


@asynccontextmanager
async def crashing_kafka() -> AsyncIterator[CrashingKafka]:
    """A server for one test, which crashes it."""
    async with running_kafka() as server, running_proxy(f"tcp://{server.servers}") as proxy:
        yield CrashingKafka(server, proxy)


@pytest.fixture
async def development_broker() -> AsyncIterator[FaultyBroker]:
    """An empty development broker; its `faults` can be planted."""
    async with FaultyBroker() as broker:
        yield broker


@pytest.fixture(
    params=[
        pytest.param("development", marks=pytest.mark.long),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def broker_url(request: pytest.FixtureRequest) -> str:
    """
    The URL of an empty broker: the test runs on RabbitMQ and, if it may be long, on the other one.

    That the development broker behaves like RabbitMQ is shown in tests/embedded.
    """
    return url_of_broker(request)


def url_of_broker(request: pytest.FixtureRequest) -> str:
    """The URL of the broker that a fixture's parameter names."""
    # By name, so that RabbitMQ starts only when a test that needs it runs.
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("rabbitmq_url")
    else:
        url = request.getfixturevalue("development_broker").url
    return url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that could not run for lack of RabbitMQ, and the command that enables them."""
    missed = sorted(
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if RABBITMQ_MISSING in str(report.longrepr)
    )
    if not missed:
        return
    terminalreporter.section("RabbitMQ is missing", yellow=True)
    for name in missed:
        terminalreporter.line(name)
    terminalreporter.line(f"{len(missed)} tests did not run. Enable them with: {INSTALL_COMMAND}")


class VhostPool:
    """
    Virtual hosts of a node, each empty and handed out once.

    Those that are `used` are deleted when the next are made: among 300 others, making one takes ten
    times as long.
    """

    def __init__(self, server: RabbitMQServer) -> None:
        self.used: list[str] = []
        self._server = server
        self._fresh: list[str] = []

    async def acquire(self) -> str:
        """Give one out."""
        if not self._fresh:
            used, self.used = self.used, []
            made = [f"test-{next(_numbers)}" for _ in range(_VHOSTS_AT_ONCE)]
            every = ", ".join(['<<".*">>'] * 3)
            allow = f'set_permissions(<<"guest">>, V, {every}, <<"tests">>)'
            delete = 'catch rabbit_vhost:delete(V, <<"tests">>)'
            add = f'rabbit_vhost:add(V, <<"tests">>), rabbit_auth_backend_internal:{allow}'
            await self._server.rabbitmqctl(
                "eval",
                f"[({delete}) || V <- {_binaries(used)}],"
                f" [begin {add} end || V <- {_binaries(made)}].",
            )
            self._fresh += made
        return self._fresh.pop()


def _binaries(texts: list[str]) -> str:
    """Write texts as a list of Erlang's."""
    return "[" + ",".join(f'<<"{text}">>' for text in texts) + "]"
