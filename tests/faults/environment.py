"""
The environment of the fault suite: real servers, processes of the engine, and a proxy between each
process and each of its servers.

The suite itself connects to the servers directly, so that it can observe them during a fault.
"""

import asyncio
import json
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import asyncpg
from pamqp.commands import Basic
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.amqp.url import split_hosts
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.protocol.topology import REPLIES, REQUESTS, queue_policy
from saga_engine.store.migrate import upgrade
from tests.faults import event_workload, workload
from tests.faults.feed_consumer import FeedConsumer
from tests.faults.held_runs import PATH_VARIABLE
from tests.faults.table_reader import TableReader
from tests.kit.connections import raw_channel
from tests.kit.programs import SupervisedProgram, sleep, wait_until_true
from tests.kit.proxy import TcpProxy
from tests.kit.rabbitmq import RabbitMQServer

WORKERS, PARTICIPANTS, PROJECTORS = 2, 2, 2
VHOST, USER = "faults", "workload"
ROLE = "plain"  # Owns the database: connection limits do not apply to a superuser.
OTHER_ROLE = "neighbour"  # Another application on the same server.
READY_TIMEOUT_S = 60.0  # Seconds in which a process must be ready again after any fault.
POLL_INTERVAL_S = 0.1  # Seconds between attempts to reach an unavailable server.
PREVIOUS_RETENTION_S = 60.0  # Then a projector removes the tables before a switch.
UNAVAILABLE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


@dataclass
class ManagedProcess:
    """One process of the engine, and the proxies to its servers; none to a cluster."""

    program: SupervisedProgram
    _broker_proxy: TcpProxy | None
    database_proxy: TcpProxy

    @property
    def broker_proxy(self) -> TcpProxy:
        assert self._broker_proxy is not None, "a cluster has no proxies"
        return self._broker_proxy

    @property
    def proxies(self) -> tuple[TcpProxy, ...]:
        return tuple(each for each in (self._broker_proxy, self.database_proxy) if each)

    async def wait_until_ready(self, *, patience=60.0):
        """Wait until it has logged that it is ready."""
        await wait_until_true(self.program.is_ready, patience=patience)


class FaultEnvironment:
    """Servers, processes and secrets of one run of the suite."""

    def __init__(self, rabbit, postgres, directory, seed):
        self.rabbit: RabbitMQServer = rabbit
        self.postgres: PostgresServer = postgres
        self.directory: Path = directory
        self.held_runs_directory = directory / "held-runs"
        self.workers: list[ManagedProcess] = []
        self.participants: list[ManagedProcess] = []
        self.projectors: list[ManagedProcess] = []
        # Secrets that must never be logged: an occurrence is a leak.
        self.password = f"canary-password-{seed}-{secrets.token_hex(8)}"
        self.role_password = f"canary-role-{seed}-{secrets.token_hex(8)}"
        self.secret = f"canary-payload-{seed}-{secrets.token_hex(8)}"
        self.feed_consumer: FeedConsumer
        self.table_reader = TableReader(lambda: asyncpg_url(self.engine_url))
        self.broker_url = self.engine_url = ""
        self.malformed_message_ids: set[str] = set()
        self.requests_lost = False  # A fault emptied a queue: clients must repeat requests.
        self.feed_messages_lost = False  # The same of the feed's queue: rewind the feed.
        self.broker_drops_commands = False  # A fault made the broker dead-letter commands.

    @property
    def consuming_processes(self) -> list[ManagedProcess]:
        return [*self.workers, *self.participants]

    @property
    def processes(self) -> list[ManagedProcess]:
        return [*self.consuming_processes, *self.projectors]

    @property
    def canaries(self):
        """Secrets in payloads and in URLs."""
        superuser = self.engine_url.split(":")[2].split("@")[0]
        return [self.secret, self.password, self.role_password, superuser]

    async def prepare(self):
        """Create the database, and what the broker needs."""
        self.engine_url = await self.postgres.create_database("engine")
        for role in (ROLE, OTHER_ROLE):
            await self.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{self.role_password}'")
        await self.execute(f"ALTER DATABASE engine OWNER TO {ROLE}")
        await upgrade(self.as_role(self.engine_url))
        await self.execute(workload.CREATE_EFFECT_LOG, url=self.as_role(self.engine_url))
        await self._create_projected_tables()
        await self.prepare_broker()

    async def _create_projected_tables(self):
        engine = create_async_engine(self.as_role(self.engine_url))
        async with engine.begin() as connection:
            await connection.run_sync(event_workload.metadata.create_all)
        await engine.dispose()

    async def prepare_broker(self):
        """Create the virtual host with its user and its policy, as an operator does."""
        ctl = self.rabbit.rabbitmqctl
        await ctl("add_vhost", VHOST)
        await ctl("add_user", USER, self.password)
        for user in (USER, "guest"):
            await ctl("set_permissions", "-p", VHOST, user, ".*", ".*", ".*")
        await self.set_policy()
        self.broker_url = self.rabbit.url_of(VHOST).replace(
            "guest:guest", f"{USER}:{quote(self.password)}"
        )

    def as_role(self, url, role=ROLE):
        """A URL of the suite, which is a superuser, with the role of the processes."""
        return f"postgresql+asyncpg://{role}:{self.role_password}@{url.rpartition('@')[2]}"

    def switch_postgres(self, postgres):
        """Connect new connections to another server; open connections stay at the old one."""
        old, new = (urlsplit(each.url).netloc for each in (self.postgres, postgres))
        self.engine_url = self.engine_url.replace(old, new)
        self.postgres = postgres
        for member in self.processes:
            member.database_proxy.set_target(postgres.url)

    async def stop_postgres(self):
        """Stop the current server."""
        await self.postgres.__aexit__()

    async def set_policy(self, name="saga-engine", priority=None, **changes):
        """Set the policy of production, or one with a higher priority."""
        policy: dict[str, Any] = queue_policy()
        definition = {**policy["definition"], **changes}
        await self.rabbit.rabbitmqctl(
            *("set_policy", "-p", VHOST, name, policy["pattern"], json.dumps(definition)),
            *("--priority", str(priority or policy["priority"]), "--apply-to", policy["apply-to"]),
        )

    async def clear_policy(self, name):
        await self.rabbit.rabbitmqctl("clear_policy", "-p", VHOST, name)

    async def execute(self, statement, *arguments, url=None):
        """Run one statement over a new connection, and return its rows."""
        connection = await asyncpg.connect(asyncpg_url(url or self.engine_url), timeout=5)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            connection.terminate()

    async def publish_malformed(self):
        """Publish messages that cannot be processed; P7 says what happens to them."""
        async with raw_channel(self.broker_url) as channel:
            for exchange, key in ((REPLIES, REPLIES), (REQUESTS, "start")):
                self.malformed_message_ids.add(message_id := uuid4().hex)
                properties = Basic.Properties(
                    message_id=message_id, correlation_id="?", delivery_mode=2
                )
                await channel.basic_publish(
                    b'{"malf', exchange=exchange, routing_key=key, properties=properties
                )

    async def wait_for_malformed_dead_letters(self):
        """Wait until all of them are dead letters, before a fault empties a queue."""

        async def are_dead_lettered():
            rows = await self.execute("SELECT message_id FROM saga_engine.dead_letter")
            return self.malformed_message_ids <= {row["message_id"] for row in rows}

        await wait_until_true(are_dead_lettered)

    async def database_now(self, *, patience=90.0) -> datetime:
        """The database's clock, as soon as the database is available."""
        async with asyncio.timeout(patience):
            while True:
                try:
                    now: datetime
                    [[now]] = await self.execute("SELECT clock_timestamp()")
                except UNAVAILABLE_ERRORS:
                    await sleep(POLL_INTERVAL_S)
                else:
                    return now

    async def wait_all_ready(self):
        for member in self.processes:
            await member.wait_until_ready()

    async def unready_processes(self, *, patience=READY_TIMEOUT_S) -> list[str]:
        """The processes that are not ready within the time, by their HTTP ports."""
        late = [member.program.log.name for member in self.processes]

        async def all_ready():
            late[:] = [
                member.program.log.name
                for member in self.processes
                if not await member.program.is_accepting_work()
            ]
            return not late

        with suppress(TimeoutError):
            await wait_until_true(all_ready, patience=patience)
        return late

    def assert_all_running(self):
        for member in self.processes:
            member.program.assert_running()


@asynccontextmanager
async def fault_environment(directory, seed, *, broker=RabbitMQServer):
    """
    Run servers and processes during the block; logs and data are in `directory`.

    `broker` creates one RabbitMQ node, or a cluster.
    """
    async with AsyncExitStack() as owned:
        rabbit = await owned.enter_async_context(broker())
        postgres = await owned.enter_async_context(PostgresServer(use_tcp=True))
        environment = FaultEnvironment(rabbit, postgres, directory, seed)
        owned.push_async_callback(environment.stop_postgres)
        environment.held_runs_directory.mkdir()
        await environment.prepare()
        environment.feed_consumer = await owned.enter_async_context(
            FeedConsumer(environment.broker_url)
        )
        await owned.enter_async_context(environment.table_reader)
        sagas = ("tests.faults.workload:order_saga", "tests.faults.workload:journey_saga")
        for command, arguments, members, count in (
            ("worker", (*sagas, "--events"), environment.workers, WORKERS),
            ("participant", ("tests.faults.workload",), environment.participants, PARTICIPANTS),
            ("projector", ("tests.faults.event_workload",), environment.projectors, PROJECTORS),
        ):
            for number in range(count):
                started = await _start_process(owned, environment, command, arguments, number)
                members.append(started)
        await environment.wait_all_ready()
        yield environment


async def _start_process(owned, fault_environment: FaultEnvironment, command, arguments, number):
    store = await _proxy(owned, fault_environment.as_role(fault_environment.engine_url))
    alone = len(split_hosts(fault_environment.broker_url)) == 1
    broker = await _proxy(owned, fault_environment.broker_url) if alone else None
    environment = {
        "SAGA_ENGINE_BROKER_URL": broker.url if broker else fault_environment.broker_url,
        workload.DATABASE if command == "participant" else "SAGA_ENGINE_DATABASE_URL": store.url,
        "SAGA_ENGINE_LOG_LEVEL": "info",
        "SAGA_ENGINE_LOG_FORMAT": "json",
        "SAGA_ENGINE_LOG_THROTTLE_INTERVAL": "0.001",  # log each line
        "SAGA_ENGINE_PROJECTION_PREVIOUS_RETENTION": f"{PREVIOUS_RETENTION_S:g}",
    }
    name = f"{command}-{number}"
    if command == "worker":
        environment[PATH_VARIABLE] = str(fault_environment.held_runs_directory / name)
    program = SupervisedProgram(
        *(command, *arguments, "--port", "0"),
        environment=environment,
        log=fault_environment.directory / f"{name}.log",
        module="tests.faults.held_runs" if command == "worker" else "saga_engine",
    )
    await program.start()
    owned.push_async_callback(program.end)
    return ManagedProcess(program, broker, store)


async def _proxy(owned, target):
    proxy = TcpProxy(target)
    await proxy.start()
    owned.push_async_callback(proxy.refuse)
    return proxy


def asyncpg_url(url):
    """The URL in asyncpg's own notation."""
    return url.replace("postgresql+asyncpg", "postgresql")


def workers_of(environment: FaultEnvironment) -> list[ManagedProcess]:
    return environment.workers


def participants_of(environment: FaultEnvironment) -> list[ManagedProcess]:
    return environment.participants


def projectors_of(environment: FaultEnvironment) -> list[ManagedProcess]:
    return environment.projectors
