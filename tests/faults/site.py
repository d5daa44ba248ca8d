"""
Where the fault suite happens: real servers of its own, the engine's processes, and a proxy between
every process and every server it talks to.

The suite itself talks to the servers directly, so that it sees what is there while nobody else can.
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

from saga_engine.amqp.url import each_host
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.protocol.topology import REPLIES, REQUESTS, policy
from saga_engine.store.migrate import upgrade
from tests.broker.links import raw_channel
from tests.faults import shop
from tests.faults.processes import Program, eventually, lasting
from tests.kit.rabbitmq import RabbitServer
from tests.proxy import Proxy

WORKERS, PARTICIPANTS = 2, 2
VHOST, USER = "faults", "shop"
ROLE = "plain"  # Who owns the databases: limits do not count for a superuser.
NEIGHBOUR = "neighbour"  # Who uses the same server for something else.
READY_S = 60.0  # Seconds in which a process must be ready again, whatever was done to it.
LOOK = 0.1  # Seconds between looks at a server that was away.
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


@dataclass
class Member:
    """One process of the engine, and the proxies between it and its servers; none to a cluster."""

    program: Program
    broker: Proxy | None
    database: Proxy

    @property
    def proxies(self):
        return (self.broker, self.database)

    async def ready(self, *, patience=60.0):
        """Wait until it says so."""
        await eventually(self.program.is_ready, patience=patience)


class Site:
    """Everything of one run of the suite."""

    def __init__(self, rabbit, postgres, directory, seed):
        self.rabbit: RabbitServer = rabbit
        self.postgres: PostgresServer = postgres
        self.directory: Path = directory
        self.workers: list[Member] = []
        self.participants: list[Member] = []
        # What must never be printed: whatever has these letters is a leak.
        self.password = f"canary-password-{seed}-{secrets.token_hex(8)}"
        self.role_password = f"canary-role-{seed}-{secrets.token_hex(8)}"
        self.secret = f"canary-payload-{seed}-{secrets.token_hex(8)}"
        self.broker_url = self.engine_url = self.shop_url = ""
        self.rubbish: set[str] = set()
        self.requests_lost = False  # A fault emptied a queue: whoever asked must ask again.
        self.gives_up = False  # A fault had the broker give commands up.

    @property
    def members(self):
        return [*self.workers, *self.participants]

    @property
    def canaries(self):
        """Secrets that are in payloads and in URLs."""
        superuser = self.engine_url.split(":")[2].split("@")[0]
        return [self.secret, self.password, self.role_password, superuser]

    async def prepare(self):
        """Make the databases, and what the broker needs."""
        self.engine_url = await self.postgres.create_database("engine")
        self.shop_url = await self.postgres.create_database("shop")
        for role in (ROLE, NEIGHBOUR):
            await self.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{self.role_password}'")
        for database in ("engine", "shop"):
            await self.execute(f"ALTER DATABASE {database} OWNER TO {ROLE}")
        await upgrade(self.plain(self.engine_url))
        await self.execute(shop.MAKE_LEDGER, url=self.plain(self.shop_url))
        await self.prepare_broker()

    async def prepare_broker(self):
        """Make the virtual host with its user and its policy, as whoever deploys it does."""
        ctl = self.rabbit.ctl
        await ctl("add_vhost", VHOST)
        await ctl("add_user", USER, self.password)
        for user in (USER, "guest"):
            await ctl("set_permissions", "-p", VHOST, user, ".*", ".*", ".*")
        await self.set_policy()
        self.broker_url = self.rabbit.url_of(VHOST).replace(
            "guest:guest", f"{USER}:{quote(self.password)}"
        )

    def plain(self, url, role=ROLE):
        """A URL of the suite's, who is a superuser, as the processes have it."""
        return f"postgresql+asyncpg://{role}:{self.role_password}@{url.rpartition('@')[2]}"

    def move(self, postgres):
        """Another server has the databases from now on; open connections stay where they lead."""
        old, new = (urlsplit(each.url).netloc for each in (self.postgres, postgres))
        self.engine_url, self.shop_url = (
            url.replace(old, new) for url in (self.engine_url, self.shop_url)
        )
        self.postgres = postgres
        for member in self.members:
            member.database.aim(postgres.url)

    async def leave(self):
        """End whichever server has the databases by then."""
        await self.postgres.__aexit__()

    async def set_policy(self, name="saga-engine", priority=None, **changes):
        """Set the policy that production has, or one that overrules it."""
        ours: dict[str, Any] = policy()
        definition = {**ours["definition"], **changes}
        await self.rabbit.ctl(
            *("set_policy", "-p", VHOST, name, ours["pattern"], json.dumps(definition)),
            *("--priority", str(priority or ours["priority"]), "--apply-to", ours["apply-to"]),
        )

    async def clear_policy(self, name):
        await self.rabbit.ctl("clear_policy", "-p", VHOST, name)

    async def execute(self, statement, *arguments, url=None):
        """Run one statement with a connection of its own; its rows."""
        connection = await asyncpg.connect(plainly(url or self.engine_url), timeout=5)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            connection.terminate()

    async def throw_rubbish(self):
        """Beside the runs, messages that nobody can handle; P7 says what becomes of them."""
        async with raw_channel(self.broker_url) as channel:
            for exchange, key in ((REPLIES, REPLIES), (REQUESTS, "start")):
                self.rubbish.add(message_id := uuid4().hex)
                properties = Basic.Properties(
                    message_id=message_id, correlation_id="?", delivery_mode=2
                )
                await channel.basic_publish(
                    b'{"rubb', exchange=exchange, routing_key=key, properties=properties
                )

    async def rubbish_is_aside(self):
        """Wait until all of it is in PostgreSQL; whoever empties a queue waits for that first."""

        async def is_aside():
            rows = await self.execute("SELECT message_id FROM saga_engine.dead_letter")
            return self.rubbish <= {row["message_id"] for row in rows}

        await eventually(is_aside)

    async def now(self, *, patience=90.0) -> datetime:
        """The database's clock, as soon as the database tells it."""
        async with asyncio.timeout(patience):
            while True:
                try:
                    now: datetime
                    [[now]] = await self.execute("SELECT clock_timestamp()")
                except AWAY:
                    await lasting(LOOK)
                else:
                    return now

    async def everybody_ready(self):
        for member in self.members:
            await member.ready()

    async def unready(self, *, patience=READY_S) -> list[str]:
        """Who does not take work after so many seconds, by what each answers on its port."""
        late = [member.program.log.name for member in self.members]

        async def nobody_is_late():
            late[:] = [
                member.program.log.name
                for member in self.members
                if not await member.program.takes_work()
            ]
            return not late

        with suppress(TimeoutError):
            await eventually(nobody_is_late, patience=patience)
        return late

    def everybody_runs(self):
        for member in self.members:
            member.program.must_run()


@asynccontextmanager
async def site(directory, seed, *, workers=WORKERS, participants=PARTICIPANTS, broker=RabbitServer):
    """
    Servers and processes for the time of the block; logs and data are in `directory`.

    `broker` makes what there is of RabbitMQ: one node, or a cluster.
    """
    async with AsyncExitStack() as owned:
        rabbit = await owned.enter_async_context(broker())
        postgres = await owned.enter_async_context(PostgresServer(tcp=True))
        place = Site(rabbit, postgres, directory, seed)
        owned.push_async_callback(place.leave)
        await place.prepare()
        sagas = ("tests.faults.shop:orders", "tests.faults.shop:journeys")
        for number in range(workers):
            place.workers.append(await _member(owned, place, "worker", sagas, number))
        for number in range(participants):
            member = await _member(owned, place, "participant", ("tests.faults.shop",), number)
            place.participants.append(member)
        await place.everybody_ready()
        yield place


async def _member(owned, place, command, modules, number):
    database = place.plain(place.engine_url if command == "worker" else place.shop_url)
    store = await _proxy(owned, database)
    alone = len(each_host(place.broker_url)) == 1
    broker = await _proxy(owned, place.broker_url) if alone else None
    environment = {
        "SAGA_ENGINE_BROKER_URL": broker.url if broker else place.broker_url,
        "SAGA_ENGINE_DATABASE_URL" if command == "worker" else shop.DATABASE: store.url,
        "SAGA_ENGINE_LOG_LEVEL": "info",
        "SAGA_ENGINE_LOG_FORMAT": "json",
        "SAGA_ENGINE_LOG_REPEAT": "0.001",  # each line is heard, however often its like came
    }
    program = Program(
        *(command, *modules, "--port", "0"),
        environment=environment,
        log=place.directory / f"{command}-{number}.log",
    )
    await program.start()
    owned.push_async_callback(program.end)
    return Member(program, broker, store)


async def _proxy(owned, target):
    proxy = Proxy(target)
    await proxy.start()
    owned.push_async_callback(proxy.refuse)
    return proxy


def plainly(url):
    """As asyncpg itself reads it."""
    return url.replace("postgresql+asyncpg", "postgresql")
