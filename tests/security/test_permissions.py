"""The least permissions that docs/security.md names: they are enough, and no more than that."""

import asyncio
import json
import re
import shlex
import sys
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import Template

import asyncpg
import orjson
import pytest
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed
from pamqp.commands import Basic
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine import Client, Participant, start_in_transaction
from saga_engine.amqp.declare import NO_DELIVERY_LIMIT
from saga_engine.cli.worker_with_read_models import WorkerWithReadModels
from saga_engine.errors import Conflict, StoreRefused
from saga_engine.events import Append, Events, append_in, from_queue, from_stream
from saga_engine.events.consumers import consumer_actions
from saga_engine.events.event_store import snapshot_table
from saga_engine.events.event_store.snapshot_table import StoredSnapshot
from saga_engine.events.feeds import feed_actions
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.projections import projection_actions
from saga_engine.events.read_models.read_models import READ_MODELS, ReadModels
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.identifiers import uuid7
from saga_engine.loading import load_objects
from saga_engine.participant import barrier
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.participant.service import ParticipantService
from saga_engine.postgres.statement import text
from saga_engine.protocol.topology import FEED
from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.migrate import upgrade
from saga_engine.store.partitions import maintain
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    ConsumerAcquired,
    ConsumersMeasured,
    ConsumerSourceUnavailable,
    ConsumerStopped,
    DatabaseUnavailable,
    Emitter,
    FeedStopped,
    InternalErrorCaught,
    MessageDeadLettered,
    ProcessReady,
    ProjectionsMeasured,
    ProjectionStopped,
    ProjectionVersionRemoved,
)
from saga_engine.vocabulary import Status
from saga_engine.worker.worker import Worker
from tests.kit.command_line import saga_engine
from tests.kit.connections import raw_channel
from tests.kit.consumers import (
    attributes_of,
    billing_consumer,
    consumer_database,
    invoices,
    open_failures,
    running_consumer_service,
)
from tests.kit.engine import FAST_SETTINGS
from tests.kit.events import EventRecorder
from tests.kit.feeds import order_feed, receive_from, running_feeds, wait_for_feed
from tests.kit.projections import (
    append_one,
    cancelled,
    placed,
    projection_database,
    running_projector,
    wait_for_position,
)
from tests.kit.projector_service import running_service
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.read_model import orders_projection
from tests.kit.read_models import last_position, table_rows
from tests.kit.rebuilds import begin, switch, wait_for_registration, wait_until_ready
from tests.kit.servers import running_postgres
from tests.security.buy_saga import buy_saga

pytestmark = pytest.mark.rabbitmq

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
CONSUMER_QUEUE = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    "x-delivery-limit": NO_DELIVERY_LIMIT,
}
"""As a consumer declares its queue, which has one name in all of these tests."""

USERS = ("setup", "engine", "stock", "payments", "shop", "operator", "projector", "billing")
SECRET = "opensesame"
STATISTICS = "ALTER TABLE saga_engine.run_statistics"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def lines_of(language, begin):
    return [
        line for block in blocks(language) for line in block.splitlines() if line.startswith(begin)
    ]


def rules():
    """The settings of section 2."""
    found = dict(
        shlex.split(line)[1].split("=", 1)
        for line in lines_of("sh", "export SAGA_ENGINE_AUTHORIZED")
    )
    return {name.removeprefix("SAGA_ENGINE_").lower(): value for name, value in found.items()}


@dataclass(frozen=True)
class RestrictedBroker:
    """The shop's virtual host, seen by each of its users."""

    server: RabbitMQServer

    def url(self, user):
        return self.server.url_of("shop").replace("guest:guest", f"{user}:{SECRET}")


def broker_commands():
    """The commands of the page for RabbitMQ."""
    passwords = {f"{user.upper()}_PASSWORD": SECRET for user in USERS}
    for line in lines_of("sh", "rabbitmqctl "):
        yield shlex.split(Template(line).safe_substitute(passwords))[1:]


def definitions_of(commands):
    """The same as definitions, which RabbitMQ imports in the time of one command."""
    permissions, topic_permissions = {}, []
    definitions: dict[str, list[dict[str, str]]] = {"vhosts": [], "users": []}
    for command in commands:
        match command:
            case ["add_vhost", name]:
                definitions["vhosts"].append({"name": name})
            case ["add_user", name, password]:
                definitions["users"].append({"name": name, "password": password, "tags": ""})
            case ["set_permissions", "-p", vhost, user, *rights]:
                given = zip(("configure", "write", "read"), rights, strict=True)
                permissions[user, vhost] = {"user": user, "vhost": vhost, **dict(given)}
            case ["set_topic_permissions", "-p", vhost, user, exchange, write, read]:
                topic = {"user": user, "vhost": vhost, "exchange": exchange}
                topic_permissions.append({**topic, "write": write, "read": read})
            case _:
                raise AssertionError(command)
    return {
        **definitions,
        "permissions": [*permissions.values()],
        "topic_permissions": topic_permissions,
    }


@pytest.fixture(scope="session")  # like the node: its users can be added once
async def broker(rabbitmq):
    """RabbitMQ, set up by the commands of the page and by nothing else."""
    await rabbitmq.import_definitions(definitions_of(broker_commands()))
    broker = RestrictedBroker(rabbitmq)
    [line] = lines_of("sh", "SAGA_ENGINE_BROKER_URL=")
    assert line.endswith(" saga-engine topology --declare")
    ran = await saga_engine("topology", "--declare", broker_url=broker.url("setup"))
    assert ran.exit_code == 0, ran
    return broker


@pytest.mark.long
@pytest.mark.timeout(600)  # a process for each command, on a busy machine
@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_the_commands_of_the_page_make_the_users_of_these_tests():
    """The other tests import what the commands make, because each takes a second."""
    async with RabbitMQServer() as server:
        for command in broker_commands():
            await server.rabbitmqctl(*command)
        made = json.loads(await server.rabbitmqctl("export_definitions", "-"))
    expected = definitions_of(broker_commands())
    assert (
        {each["name"] for each in expected["users"]}
        == {*USERS}
        <= {each["name"] for each in made["users"]}
    )
    for kind in ("permissions", "topic_permissions"):
        rights = [sorted(each.items()) for each in made[kind] if each["vhost"] == "shop"]
        assert sorted(rights) == sorted(sorted(each.items()) for each in expected[kind])


class DatabaseRoles:
    """The engine's database, seen by each of its roles."""

    def __init__(self, server, database="saga"):
        self._server = server
        self._database = database

    def of_database(self, name):
        """The same roles, in another database."""
        return DatabaseRoles(self._server, name)

    def url(self, role):
        return (
            make_url(self._server.url)
            .set(username=role, database=self._database)
            .render_as_string(hide_password=False)
        )

    @asynccontextmanager
    async def connected(self, role):
        url = make_url(self.url(role))
        connection = await asyncpg.connect(
            host=url.query["host"],
            port=int(str(url.query["port"])),
            user=role,
            database=self._database,
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def refuses(self, role, statement):
        async with self.connected(role) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        return True


@pytest.fixture(scope="module")
async def roles():
    """PostgreSQL, set up by the statements of the page and by nothing else."""
    first, second, *_ = blocks("sql")
    async with running_postgres() as server:
        await server.create_database("saga")
        roles = DatabaseRoles(server)
        async with roles.connected("saga") as administrator:
            await administrator.execute(first)
        await upgrade(roles.url("saga_owner"))
        async with roles.connected("saga_owner") as owner:
            await owner.execute(second)
            await owner.execute(
                "CREATE SCHEMA IF NOT EXISTS saga_engine"
            )  # exists: changes nothing
        yield roles


async def test_a_participants_role_has_the_rights_that_its_barrier_needs(roles):
    """And no more; the page's third block of statements grants them."""
    granted = blocks("sql")[2]
    owner = create_async_engine(roles.url("saga"))
    await barrier.create_table(owner, None)
    await owner.dispose()
    async with roles.connected("saga") as administrator:
        await administrator.execute(granted)
    async with roles.connected("payments") as connection:
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            assert await connection.fetchval(
                "SELECT has_table_privilege('saga_barrier', $1)", right
            ), right
    engine = create_async_engine(roles.url("payments"))
    await ParticipantDatabase(engine, Settings()).prepare(create_barrier=False)
    assert await barrier.delete_older_than(engine, timedelta(days=30)) == 0
    await engine.dispose()
    assert await roles.refuses("payments", "TRUNCATE saga_barrier")
    assert await roles.refuses("payments", "SELECT * FROM saga_engine.run")


@pytest.fixture(scope="module")
async def service_roles(roles):
    """The roles in a database of a service, with event tables and the page's blocks about them."""
    async with roles.connected("saga") as administrator:
        await administrator.execute("CREATE DATABASE orders OWNER saga_owner")
    service_roles = roles.of_database("orders")
    await upgrade(service_roles.url("saga_owner"), EVENT_DATABASE)
    *_, of_events, of_projections, _, of_consumers = blocks("sql")
    async with (
        projection_database(service_roles.url("saga")),
        consumer_database(service_roles.url("saga")),
    ):
        pass  # they have created the tables of the projection and of the consumer
    async with service_roles.connected("saga") as administrator:
        await administrator.execute(of_events)
        await administrator.execute(of_projections)
        await administrator.execute(of_consumers)
    return service_roles


async def test_a_services_role_has_the_rights_that_its_events_need(service_roles):
    """And no more: it can change no event. The page's fourth block from the end grants them."""
    url = service_roles.url("orders")
    event = placed()
    async with Events(url, settings=Settings()) as events:
        await events.append(Append("order-1", [event]))
        assert len([each async for each in events.read("order-1")]) == 1
        assert len([each async for each in events.read_all()]) == 1
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await append_in(connection, Append("order-1", [event], 1))
        tx = SqlAlchemyTransaction(connection)
        await snapshot_table.write(tx, "order-1", "a", StoredSnapshot(1, {}))
        await snapshot_table.write(tx, "order-1", "a", StoredSnapshot(2, {}))
        assert await snapshot_table.read(tx, "order-1", "a") == StoredSnapshot(2, {})
    await engine.dispose()
    for statement in (
        "UPDATE saga_engine.stream_event SET data = '{}'",
        "INSERT INTO saga_engine.stream_event (stream, position) VALUES ('order-9', 7)",
        "DELETE FROM saga_engine.stream_event",
        "TRUNCATE saga_engine.stream_event",
        "UPDATE saga_engine.event_log SET id = gen_random_uuid()",
        "SELECT setval('saga_engine.event_position', 1)",
        "DROP TRIGGER announce_positions ON saga_engine.stream_event",
        "SELECT saga_engine.draw_positions(1)",
    ):
        assert await service_roles.refuses("orders", statement)


async def test_a_projectors_role_has_the_rights_that_projections_need(service_roles):
    """And no more: it can append no event. The page's third block from the end grants them."""
    url = service_roles.url("order_views")
    async with Events(service_roles.url("orders"), settings=Settings()) as events:
        await append_one(events, "order-2", placed(), placed("poison"))
        position = await append_one(events, "order-3", placed())
    async with (
        running_service(url) as (service, emitted),
        Database(url, Settings(), EVENT_DATABASE) as database,
    ):
        [stopped] = await emitted.wait_for(ProjectionStopped)
        await emitted.wait_for(ProjectionsMeasured)
        assert (await service.readiness())["database"] is None
        operator = Operator("ann", "a test")
        async with database.transaction() as tx:
            await projection_actions.skip(tx, "orders", stopped.position, operator)
        await wait_for_position(database, "orders", position)
        assert not emitted.matching(DatabaseUnavailable)
    for statement in (
        "SELECT saga_engine.announce_positions()",
        "INSERT INTO saga_engine.stream_event SELECT * FROM saga_engine.stream_event",
        "DELETE FROM saga_engine.stream_event",
        "DELETE FROM saga_engine.projection",
    ):
        assert await service_roles.refuses("order_views", statement)


async def test_the_user_and_the_role_of_a_projector_have_the_rights_that_feeds_need(
    broker, service_roles
):
    """A consumer with its own queue receives the events of orders."""
    database_url, broker_url = service_roles.url("order_views"), broker.url("projector")
    async with raw_channel(broker.url("billing")) as channel:
        await channel.queue_declare("billing", durable=True, arguments=CONSUMER_QUEUE)
        await channel.queue_bind("billing", "saga.feed", "order.order-placed")
        received = await receive_from(channel, "billing")
        async with Events(service_roles.url("orders"), settings=Settings()) as events:
            await append_one(events, "order-4", placed())
            last = await append_one(events, "order-4", cancelled())
        feed = order_feed("restricted", unroutable="stop", streams=["order-4"])
        async with (
            running_feeds(database_url, broker_url, [feed]) as emitted,
            Database(database_url, Settings(), EVENT_DATABASE) as database,
        ):
            [stopped] = await emitted.wait_for(FeedStopped)
            await received.wait_for(1)
            operator = Operator("ann", "a test")
            async with database.transaction() as tx:
                await feed_actions.discard(
                    tx, FeedKey("restricted", Sink.EXCHANGE), stopped.position, operator
                )
            await wait_for_feed(database, last, "restricted")
            assert not emitted.matching(DatabaseUnavailable)
        assert len(received.ids) == 1


async def publish_order(channel, customer):
    """Publish an order of a customer as a feed does."""
    headers = {f"ce-{name}": value for name, value in attributes_of(len(customer)).items()}
    await channel.basic_publish(
        orjson.dumps({"customer": customer, "total": "12.50"}),
        exchange=FEED,
        routing_key="order.order-placed",
        properties=Basic.Properties(headers=headers),
    )


async def test_the_role_of_a_projector_has_the_rights_that_rebuilds_need(service_roles):
    """The page's last block but one of statements grants them."""
    async with service_roles.connected("saga") as administrator:
        await administrator.execute(blocks("sql")[-2])
    url = service_roles.url("order_views")
    async with Database(url, Settings(), EVENT_DATABASE) as database:
        async with running_projector(url, [orders_projection(poison="")]) as emitted:
            await wait_for_registration(database)
            await begin(database)
            await wait_until_ready(database)
            assert (await switch(database)).version == 2
            assert not emitted.matching(DatabaseUnavailable)
        expired = {"projection_previous_retention": 0.001}
        async with running_projector(url, [orders_projection(poison="")], **expired) as emitted:
            await emitted.wait_for(ProjectionVersionRemoved)


async def test_the_user_and_the_role_of_a_consumer_have_the_rights_that_it_needs(
    broker, service_roles
):
    """And no more: it reads no event log. The page's last block of statements grants them."""
    url = service_roles.url("billing")
    consumer = billing_consumer(from_queue("billing", keys=["order.#"]))
    settings = {"broker_url": broker.url("billing"), "projection_monitor_interval": 0.02}
    async with (
        running_consumer_service(url, [consumer], **settings) as emitted,
        consumer_database(url, creates_tables=False) as database,
    ):
        operator = Operator("ann", "a test")
        await emitted.wait_for(ConsumerAcquired)
        async with raw_channel(broker.url("projector")) as channel:
            await channel.confirm_delivery()
            for customer in ("ada", "poison"):
                await publish_order(channel, customer)
        await emitted.wait_for(ConsumerStopped)
        async with database.transaction() as tx:
            await consumer_actions.retry(tx, "billing", operator)
        await emitted.wait_for(ConsumerStopped, 2)
        [failure] = await open_failures(database)
        async with database.transaction() as tx:
            await consumer_actions.skip(tx, "billing", failure.id, operator)
        await emitted.wait_for(ConsumersMeasured)
        assert len(await invoices(database)) == 1
        assert not emitted.matching(DatabaseUnavailable)
    for statement in (
        "SELECT FROM saga_engine.stream_event",
        "SELECT FROM saga_engine.event_log",
        "DELETE FROM saga_engine.consumer",
        "TRUNCATE saga_engine.consumed_event",
        "DELETE FROM invoice",
    ):
        assert await service_roles.refuses("billing", statement)


async def test_the_user_of_a_consumer_may_read_its_streams(broker, service_roles):
    consumer = billing_consumer(from_stream("orders"))
    arguments = {"x-queue-type": "stream"}
    await broker.server.rabbitmqctl("set_permissions", "-p", "shop", "guest", *[".*"] * 3)
    async with raw_channel(broker.server.url_of("shop")) as channel:
        for stream in ("orders-0", "others"):
            await channel.queue_declare(stream, durable=True, arguments=arguments)
    stream_url = broker.server.stream_url_of("shop").replace("guest:guest", f"billing:{SECRET}")
    settings = {"broker_url": broker.url("billing"), "broker_stream_url": stream_url}
    url = service_roles.url("billing")
    async with running_consumer_service(
        url, [consumer], projection_monitor_interval=0.02, **settings
    ) as emitted:
        await emitted.wait_for(ConsumersMeasured, waiting={"billing": 0}, lag_s={"billing": 0.0})
    others = billing_consumer(from_stream("others"))
    async with running_consumer_service(url, [others], **settings) as emitted:
        [refused] = await emitted.wait_for(ConsumerSourceUnavailable)
    assert "Stream 'others' cannot be read: RabbitMQ says AccessRefused" in refused.problem


class RestrictedPrograms:
    """The programs of the page, each as its own user and role."""

    def __init__(self, broker, roles, owned, group):
        self.broker, self.roles, self.owned, self.group = broker, roles, owned, group
        self.worker: EventRecorder
        self.client: Client

    def settings(self, user, role=None, **changes):
        return Settings(
            broker_url=self.broker.url(user),
            database_url=role and self.roles.url(role),
            **{**FAST_SETTINGS, **changes},
        )

    async def run(self, make, settings):
        events, stop = EventRecorder(), asyncio.Event()
        served = await self.owned.enter_async_context(make(settings, Emitter(events)))
        running = self.group.create_task(served.run(stop))

        async def end():
            stop.set()
            await running

        self.owned.push_async_callback(end)
        await events.wait_for(ProcessReady)
        return events


@asynccontextmanager
async def running_programs(
    broker, roles, monkeypatch, *, answered_by="payments", has_read_models=False
):
    def make_worker(settings, emit):
        worker = Worker([buy_saga], settings, emit)
        if not has_read_models:
            return worker
        return WorkerWithReadModels(worker, ReadModels(settings, emit), emit)

    monkeypatch.setenv("SHOP_DATABASE_URL", roles.url("saga"))
    async with asyncio.TaskGroup() as group, AsyncExitStack() as owned:
        programs = RestrictedPrograms(broker, roles, owned, group)
        strict = {
            name: Settings.load(**{name: value}).__getattribute__(name)
            for name, value in rules().items()
        }
        programs.worker = await programs.run(
            make_worker,
            programs.settings("engine", "saga_worker", read_model_interval=0.05, **strict),
        )
        for module, user in (("stock", "stock"), ("payments", answered_by)):
            # What is imported already may have the URL of a server that is gone.
            monkeypatch.delitem(sys.modules, f"tests.security.{module}", raising=False)
            participants = load_objects(f"tests.security.{module}", Participant, 60.0)
            await programs.run(
                lambda settings, emit, given=participants: ParticipantService(
                    given, settings, emit
                ),
                programs.settings(user),
            )
        programs.client = await owned.enter_async_context(
            Client(settings=programs.settings("shop"))
        )
        yield programs


async def test_runs_complete_and_compensate_under_exactly_the_documented_permissions(
    broker, roles, monkeypatch
):
    async with running_programs(broker, roles, monkeypatch) as programs:
        for order, status in (({}, Status.COMPLETED), ({"card": "declined"}, Status.COMPENSATED)):
            handle = await programs.client.start("buy", order, key=f"k-{status}")
            ending = await programs.client.result(handle.run_id, timeout=30)
            assert ending.status is status
        assert not programs.worker.matching(MessageDeadLettered)
        # A participant declares its queue and binds it again when it comes back.
        await broker.server.rabbitmqctl("close_all_connections", "--vhost", "shop", "test")
        handle = await programs.client.start("buy", {}, key="after")
        assert (await programs.client.result(handle.run_id, timeout=30)).status is Status.COMPLETED


async def test_a_worker_with_events_has_the_rights_that_statistics_need(broker, roles, monkeypatch):
    """Also to stop at an event; the owner fills a table again, which a worker cannot."""
    owner_url, name = roles.url("saga_owner"), RUN_STATISTICS.name
    async with (
        running_programs(broker, roles, monkeypatch, has_read_models=True) as programs,
        Database(owner_url, Settings()) as database,
    ):

        async def run_once(key):
            handle = await programs.client.start("buy", {"card": "declined"}, key=key)
            ending = await programs.client.result(handle.run_id, timeout=30)
            assert ending.status is Status.COMPENSATED

        await run_once("counted")
        for model in READ_MODELS:
            await wait_for_position(database, model.name, await last_position(database))
            assert await table_rows(database, model)
        async with database.transaction() as tx:
            await tx.execute(text(f"{STATISTICS} ADD CONSTRAINT few CHECK (runs < 0) NOT VALID"))
        await run_once("refused")
        await programs.worker.wait_for(ProjectionStopped, projection=name)
        async with database.transaction() as tx:
            await tx.execute(text(f"{STATISTICS} DROP CONSTRAINT few"))
        filled = await saga_engine("projections", "rebuild", name, database_url=owner_url)
        assert filled.exit_code == 0, filled
        await run_once("counted again")
        await wait_for_position(database, name, await last_position(database))
        assert not programs.worker.matching(InternalErrorCaught)
        assert not programs.worker.matching(DatabaseUnavailable)
    assert await roles.refuses("saga_worker", "DELETE FROM saga_engine.run_statistics")


async def test_a_service_cannot_answer_a_command_of_another_service(broker, roles, monkeypatch):
    """Stock knows the correlation id of a payment, and RabbitMQ names stock as the sender."""
    monkeypatch.setenv("SHOP_DATABASE_URL", roles.url("saga"))
    async with running_programs(broker, roles, monkeypatch) as programs:
        seen = await _correlation_id_of_a_charge(programs)
        async with raw_channel(broker.url("stock")) as channel:
            forged = Basic.Properties(
                correlation_id=seen, delivery_mode=2, message_id="forged", user_id="stock"
            )
            await channel.basic_publish(
                b"{}", exchange="saga.replies", routing_key="saga.replies", properties=forged
            )
            event = await programs.worker.wait_for_dead_letter(
                "unauthorized_sender", message_id="forged"
            )
        assert event.problem == (
            "payment.charge may be answered by payments only, and this came from user stock."
        )
        async with raw_channel(broker.url("stock")) as channel:
            lying = Basic.Properties(correlation_id=seen, user_id="payments")
            with pytest.raises(ChannelPreconditionFailed):
                await publish("saga.replies", "saga.replies", lying)(channel)


async def _correlation_id_of_a_charge(programs):
    handle = await programs.client.start("buy", {})
    await programs.client.result(handle.run_id, timeout=30)
    async with programs.roles.connected("saga") as connection:
        return await connection.fetchval(
            "SELECT saga_engine.sign_token(token_key, event #>> '{metadata,correlation_id}')"
            " FROM saga_engine.journal, jsonb_array_elements(events) AS event,"
            " saga_engine.engine_identity WHERE run_id = $1"
            " AND event #>> '{metadata,correlation_id}' LIKE '%.a.1.charge' LIMIT 1",
            handle.run_id,
        )


def consume(queue):
    return lambda channel: channel.basic_consume(queue, _nothing)


def publish(exchange, key, properties=None):
    async def act(channel):
        await channel.basic_publish(
            b"{}", exchange=exchange, routing_key=key, properties=properties
        )
        await channel.basic_qos(prefetch_count=1)  # a refusal comes before this is answered

    return act


def bind(queue, exchange, key):
    return lambda channel: channel.queue_bind(queue, exchange, key)


def declare(queue):
    return lambda channel: channel.queue_declare(queue, durable=True)


def delete(queue):
    return lambda channel: channel.queue_delete(queue)


def purge(queue):
    return lambda channel: channel.queue_purge(queue)


async def _nothing(_):
    pass


FORBIDDEN = [
    *(("engine", act) for act in (declare("saga.mine"), delete("saga.replies"))),
    *(("engine", act) for act in (publish("", "saga.replies"), publish("saga.replies", "x"))),
    ("engine", consume("saga.participant.payments")),
    *(
        ("stock", consume(queue))
        for queue in ("saga.participant.payments", "saga.replies", "saga.requests")
    ),
    *(
        ("stock", publish(exchange, "payment.charge"))
        for exchange in ("saga.commands", "saga.requests", "saga.events", "saga.dead-letters", "")
    ),
    *(("stock", act("saga.participant.payments")) for act in (declare, delete, purge)),
    ("stock", delete("saga.replies")),
    ("stock", bind("saga.participant.stock", "saga.commands", "payment.charge")),
    ("stock", bind("saga.participant.stock", "saga.commands", "#")),
    ("stock", bind("saga.participant.payments", "saga.commands", "stock.take")),
    *(
        ("shop", consume(queue))
        for queue in ("saga.requests", "saga.replies", "saga.participant.stock")
    ),
    *(
        ("shop", publish(exchange, "x"))
        for exchange in ("saga.commands", "saga.replies", "saga.events", "")
    ),
    ("shop", publish("saga.requests", "drop")),
    ("shop", declare("saga.participant.stock")),
    ("projector", publish("saga.events", "x")),
    ("projector", publish("saga.commands", "stock.take")),
    ("projector", bind("billing", "saga.feed", "#")),
    ("billing", bind("billing", "saga.feed", "#")),
    ("billing", bind("billing", "saga.feed", "run.#")),
    ("billing", bind("billing", "saga.events", "order.#")),
    ("billing", publish("saga.feed", "order.order-placed")),
    ("billing", consume("saga.requests")),
    ("operator", consume("saga.replies")),
    ("operator", declare("saga.mine")),
    ("operator", publish("saga.commands", "stock.take")),
]


@pytest.fixture(scope="module")
async def declared_queues(broker):
    """The queues that the forbidden acts are about; each is declared by its owner."""
    quorum = {"x-queue-type": "quorum"}
    for user, queue, arguments in (
        ("stock", "saga.participant.stock", quorum),
        ("payments", "saga.participant.payments", quorum),
        ("billing", "billing", CONSUMER_QUEUE),
    ):
        async with raw_channel(broker.url(user)) as channel:
            await channel.queue_declare(queue, durable=True, arguments=arguments)


@pytest.mark.parametrize(
    ("user", "act"),
    FORBIDDEN,
    ids=[f"{number}-{user}" for number, (user, _) in enumerate(FORBIDDEN)],
)
@pytest.mark.usefixtures("declared_queues")
async def test_no_user_has_more_permissions(broker, user, act):
    async with raw_channel(broker.url(user)) as channel:
        with pytest.raises(ChannelAccessRefused):
            await act(channel)


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_copy_cannot_go_where_its_sender_may_not_write(broker, header):
    """The header that topic permissions overlook before RabbitMQ 4.0 stays in its exchange."""
    queues = ["saga.requests", "saga.dead-letters", "saga.participant.payments"]
    async with raw_channel(broker.url("payments")) as channel:
        arguments = {"x-queue-type": "quorum"}
        await channel.queue_declare(queues[-1], durable=True, arguments=arguments)
    async with raw_channel(broker.url("setup")) as channel:
        before = [
            (await channel.queue_declare(each, passive=True)).message_count for each in queues
        ]
    copies = Basic.Properties(headers={header: [*queues, "payment.charge"]})
    async with raw_channel(broker.url("stock")) as channel:
        await publish("saga.replies", "saga.nowhere", copies)(channel)
    async with raw_channel(broker.url("setup")) as channel:
        after = [(await channel.queue_declare(each, passive=True)).message_count for each in queues]
    assert after == before


async def test_a_client_receives_only_messages_about_known_runs(broker):
    async with raw_channel(broker.url("shop")) as channel:
        await channel.queue_declare("saga.client.mine", exclusive=True)
        with pytest.raises(ChannelAccessRefused):
            await channel.queue_bind("saga.client.mine", "saga.events", "finished.#")


async def test_the_operator_can_redrive_under_its_own_name(broker, roles, monkeypatch):
    async with running_programs(broker, roles, monkeypatch) as programs:
        async with raw_channel(broker.url("stock")) as channel:
            await channel.basic_publish(b"{", exchange="saga.replies", routing_key="saga.replies")
            await programs.worker.wait_for_dead_letter("uncorrelated_reply")
        settings = {
            "broker_url": broker.url("operator"),
            "database_url": roles.url("saga_operator"),
        }
        ran = await saga_engine("dead-letters", "redrive", "--all", "--yes", "--json", **settings)
        assert ran.exit_code == 0, ran
        await programs.worker.wait_for(MessageDeadLettered, 2, reason="uncorrelated_reply")
        for arguments in (("list",), ("incidents",), ("dead-letters", "list")):
            ran = await saga_engine(*arguments, **settings)
            assert ran.exit_code == 0, ran


async def test_a_changed_rabbitmq_password_is_reported_until_it_is_right_again(
    broker, roles, monkeypatch
):
    async with running_programs(broker, roles, monkeypatch) as programs:
        await broker.server.rabbitmqctl("change_password", "engine", "another")
        await broker.server.rabbitmqctl("close_all_connections", "--vhost", "shop", "test")

        def refused(fact):
            return "refuses this user or password" in fact.problem

        async with asyncio.timeout(30):
            while not any(map(refused, programs.worker.matching(BrokerConnectionChanged))):
                await programs.worker.wait_for(
                    BrokerConnectionChanged,
                    len(programs.worker.matching(BrokerConnectionChanged)) + 1,
                )
        assert not any(
            SECRET in fact.problem for fact in programs.worker.matching(BrokerConnectionChanged)
        )
        await broker.server.rabbitmqctl("change_password", "engine", SECRET)
        handle = await programs.client.start("buy", {})
        assert (await programs.client.result(handle.run_id, timeout=30)).status is Status.COMPLETED


async def test_a_revoked_permission_costs_time_and_no_run(broker, roles, monkeypatch):
    [given] = [
        line for line in lines_of("sh", "rabbitmqctl set_permissions") if " payments " in line
    ]
    async with running_programs(broker, roles, monkeypatch) as programs:
        await broker.server.rabbitmqctl(
            "set_permissions", "-p", "shop", "payments", "^$", "^$", "^$"
        )
        await broker.server.rabbitmqctl("close_all_connections", "--vhost", "shop", "test")
        handle = await programs.client.start("buy", {})
        await broker.server.rabbitmqctl(*shlex.split(given)[1:])
        ending = await programs.client.result(handle.run_id, timeout=60)
        assert ending.status is Status.COMPLETED


TABLES = """
    SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'saga_engine' AND c.relkind IN ('r', 'p') ORDER BY c.relname"""
FUNCTIONS = """
    SELECT p.oid, p.proname, p.prosecdef, p.proconfig FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = 'saga_engine' ORDER BY p.proname"""
TRIES = {
    "SELECT": "SELECT FROM saga_engine.{table} LIMIT 0",
    "INSERT": "INSERT INTO saga_engine.{table} DEFAULT VALUES",
    "UPDATE": "UPDATE saga_engine.{table} SET {column} = NULL WHERE false",
    "DELETE": "DELETE FROM saga_engine.{table} WHERE false",
    "TRUNCATE": "TRUNCATE saga_engine.{table}",
    "TRIGGER": "CREATE TRIGGER t AFTER INSERT ON saga_engine.{table}"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP": "DROP TABLE saga_engine.{table}",
    "ALTER": "ALTER TABLE saga_engine.{table} DISABLE TRIGGER ALL",
    "POLICY": "CREATE POLICY p ON saga_engine.{table}",
}
CALLED = {
    "saga_worker": {
        *("add_partitions", "missing_partitions", "purge_expired"),
        *("announce_positions", "event_horizon", "draw_positions"),
    },
    "saga_shop": {"request_start"},
    "saga_operator": {
        *("record_actions", "request_cancel", "request_resolve", "cancel_start"),
        *("lock_dead_letters", "resolve_dead_letters", "purge_dead_letters"),
    },
}
KEPT_FROM_WORKERS = {
    "run": {"DELETE"},
    "journal": {"UPDATE", "DELETE"},
    "incident": {"DELETE"},
    "dead_letter": {"UPDATE", "DELETE"},
    "dead_letter_dropped": {"DELETE"},
    "definition": {"UPDATE", "DELETE"},
    "audit": {"INSERT", "DELETE"},
    "engine_identity": {"UPDATE", "DELETE"},
    "schema_revision": {"INSERT", "UPDATE", "DELETE"},
    "start_grant": {"SELECT", "INSERT", "UPDATE", "DELETE"},
}


async def refused_of(roles, role, table, column):
    """Each way to touch a table that the role is refused, tried out."""
    found = set()
    async with roles.connected(role) as connection:
        for name, statement in TRIES.items():
            try:
                await connection.execute("BEGIN")
                await connection.execute(statement.format(table=table, column=column))
            except asyncpg.InsufficientPrivilegeError:
                found.add(name)
            except asyncpg.PostgresError:
                pass  # the privilege is there, and the statement fails for another reason
            finally:
                await connection.execute("ROLLBACK")
    return found


@pytest.mark.parametrize("role", CALLED)
async def test_no_role_has_more_table_privileges(roles, role):
    async with roles.connected("saga_owner") as owner:
        tables = [row["relname"] for row in await owner.fetch(TABLES)]
    assert {"pending_request", "run", "audit", "engine_identity", "start_grant"} <= set(tables)
    for table in tables:
        column = "outcome" if table == "audit" else await first_column(roles, table)
        refused = await refused_of(roles, role, table, column)
        assert {"TRUNCATE", "TRIGGER", "DROP", "ALTER", "POLICY"} <= refused, table
        if role == "saga_shop":
            assert refused == set(TRIES), table
        elif role == "saga_operator":
            readable = set() if table == "engine_identity" else {"SELECT"}
            assert refused == set(TRIES) - readable, table
        else:
            parent = re.sub(r"_(default|[0-9]{4}_[0-9]{2})$", "", table)
            assert KEPT_FROM_WORKERS.get(parent, set()) <= refused, table


async def first_column(roles, table):
    async with roles.connected("saga_owner") as owner:
        return await owner.fetchval(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0"
            " AND attidentity = '' ORDER BY attnum LIMIT 1",
            f"saga_engine.{table}",
        )


async def test_each_role_can_call_only_its_functions(roles):
    async with roles.connected("saga_owner") as owner:
        functions = await owner.fetch(FUNCTIONS)
        for role, expected in CALLED.items():
            may = {
                row["proname"]
                for row in functions
                if await owner.fetchval(
                    "SELECT has_function_privilege($1, $2::oid, 'EXECUTE')", role, row["oid"]
                )
            }
            assert may == expected, role
    for row in functions:
        if row["prosecdef"]:
            assert any(each.startswith("search_path=pg_catalog") for each in row["proconfig"])


async def test_only_the_owner_reads_the_key_of_the_correlation_ids(roles):
    statement = "SELECT token_key FROM saga_engine.engine_identity"
    assert await roles.refuses("saga_operator", statement)
    assert await roles.refuses("saga_shop", statement)
    assert await roles.refuses("saga_operator", "SELECT saga_engine.sign_token('', '')")
    assert await roles.refuses(
        "saga_worker",
        "SELECT saga_engine.add_month_partition('run', now()::timestamp + interval '9 year')",
    )


@asynccontextmanager
async def as_role(roles, role="saga_shop"):
    """A connection of a service, in a transaction."""
    engine = create_async_engine(roles.url(role))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def test_a_service_needs_only_its_function_to_start_its_sagas(broker, roles, monkeypatch):
    async with running_programs(broker, roles, monkeypatch) as programs:
        async with as_role(roles) as connection:
            mine = await start_in_transaction(connection, "buy", {}, key="recorded")
            again = await start_in_transaction(connection, buy_saga, {}, key="recorded")
            with pytest.raises(Conflict, match="another input"):
                await start_in_transaction(connection, "buy", {"card": "declined"}, key="recorded")
            with pytest.raises(StoreRefused, match="may not start saga 'pay-out'"):
                await start_in_transaction(connection, "pay-out", {})
        assert (again.run_id, again.existing, mine.version) == (mine.run_id, True, buy_saga.version)
        ending = await programs.client.result(mine.run_id, timeout=30)
        assert ending.status is Status.COMPLETED


async def test_an_operator_acts_through_functions_and_cannot_act_for_another(
    broker, roles, monkeypatch
):
    async with running_programs(broker, roles, monkeypatch) as programs:
        handle = await programs.client.start("buy", {}, key="for-the-operator")
        await programs.client.result(handle.run_id, timeout=30)
        settings = {"database_url": roles.url("saga_operator")}
        arguments = ("cancel", str(handle.run_id), "--reason", "x", "--operator", "the-chief")
        ran = await saga_engine(*arguments, **settings)
        assert (ran.exit_code, "Refused" in ran.err) == (4, True), ran
        async with roles.connected("saga_operator") as connection:
            [act] = await connection.fetch(
                "SELECT operator, role, outcome FROM saga_engine.audit WHERE run_id = $1",
                handle.run_id,
            )
        assert tuple(act) == ("the-chief", "saga_operator", "refused")
        async with raw_channel(broker.url("stock")) as channel:
            await channel.basic_publish(b"{", exchange="saga.replies", routing_key="saga.replies")
            await programs.worker.wait_for_dead_letter("uncorrelated_reply")
        ran = await saga_engine(
            *("dead-letters", "discard", "--all", "--yes", "--reason", "junk"), **settings
        )
        assert ran.exit_code == 0, ran
        async with roles.connected("saga_operator") as connection:
            role = await connection.fetchval(
                "SELECT role FROM saga_engine.audit WHERE action = 'discard' LIMIT 1"
            )
        assert role == "saga_operator"


def as_run_id(milliseconds):
    """A UUIDv7 of that time, in SQL."""
    time = f"lpad(to_hex(({milliseconds})::bigint), 12, '0')"
    return (
        f"(left({time}, 8) || '-' || right({time}, 4) || '-7'"
        " || substr(gen_random_uuid()::text, 16))::uuid"
    )


TODAY = as_run_id("extract(epoch FROM now()) * 1000")
ONE = "ARRAY[gen_random_uuid()]"


def a_start(*, saga="'buy'", version="NULL", run=TODAY, key="NULL", kept="NULL", body="'{}'"):
    arguments = f"{saga}, {version}, {run}, {key}, NULL, {kept}, {body}, true, NULL"
    return ("saga_shop", f"SELECT saga_engine.request_start({arguments})")


def operate(call):
    return ("saga_operator", f"SELECT saga_engine.{call}")


def acts(*, by="'{x}'", action="'{cancel}'", reason="'{x}'"):
    return operate(f"record_actions({ONE}, {by}, {action}, {ONE}, '{{x}}', {reason})")


HOSTILE_CALLS = {
    "a run id of long ago": a_start(run=as_run_id("1000")),
    "a random run id": a_start(run="gen_random_uuid()"),
    "no run id": a_start(run="NULL"),
    "no body": a_start(body="NULL"),
    "a key of a megabyte": a_start(key="repeat('k', 1000000)", kept="sha256('x')"),
    "a key without a digest": a_start(key="'k'"),
    "no saga": a_start(saga="NULL"),
    "a version below one": a_start(version="-1"),
    "an act of a long reason": acts(reason="ARRAY[repeat('x', 3000)]"),
    "an act of another form": acts(action="'{x y}'"),
    "an act by no person": acts(by="NULL"),
    "acts without an end": operate("record_actions(NULL, NULL, NULL, NULL, NULL, NULL)"),
    "a cancel not on record": operate(f"request_cancel({ONE}, {ONE}, '{{x}}')"),
    "a cancel of nothing": operate("request_cancel(NULL, NULL, NULL)"),
    "a cancel of a start not on record": operate(
        "cancel_start(gen_random_uuid(), gen_random_uuid())"
    ),
    "a cancel of no start": operate("cancel_start(NULL, NULL)"),
    "arrays of two lengths": operate(f"request_resolve({ONE}, '{{}}', '{{x,y}}')"),
    "a state that is none": operate("resolve_dead_letters('{1}', 'open', 'x', 'x')"),
    "letters without end": operate("lock_dead_letters(array_fill(1::bigint, '{2000}'))"),
}


@pytest.mark.parametrize("hostile", HOSTILE_CALLS)
async def test_a_call_beyond_a_limit_is_refused(roles, hostile):
    role, statement = HOSTILE_CALLS[hostile]
    async with roles.connected(role) as connection:
        with pytest.raises(asyncpg.DataError):
            await connection.execute(statement)


BODIES = [
    *("", "{", "null", "[]", "{}", '{"input":1e400}', '{"run_id":"x","input":{}}'),
    *('{"input":{"sku":"\\u0000"}}', '{"input":' + "[" * 1100 + "]" * 1100 + "}"),
    *('{"input":"' + "x" * 600_000 + '"}', '{"input":' + "9" * 5000 + "}"),
]
SAID = '{"operator":"x","reason":"x","resolution":"skip"'
RESULTS = [
    *("", ', "result":' + "[" * 1100 + "]" * 1100, ', "result":' + "9" * 5000),
    *(', "incident_number":"x"', ', "incident_number":1e400', ', "result":"' + "x" * 600_000 + '"'),
]


async def test_rows_of_a_role_harm_no_other_role(broker, roles, monkeypatch):
    """Every body that passes a function ends as a dead letter; runs beside it complete."""
    async with running_programs(broker, roles, monkeypatch) as programs:
        async with roles.connected("saga_shop") as connection:
            for body in BODIES:
                await connection.execute(
                    "SELECT saga_engine.request_start("
                    "'buy', 1, $1, $2, NULL, sha256('x'), $3, true, NULL)",
                    *(uuid7(), f"key {len(body)} {body[:20]}", body),
                )
        async with roles.connected("saga_operator") as connection:
            for body in [*BODIES, *(SAID + each + "}" for each in RESULTS)]:
                run_id, act = uuid7(), uuid7()
                await connection.execute(
                    "SELECT saga_engine.record_actions($1, '{x}', '{skip}', $2, '{x}', '{x}')",
                    *([act], [run_id]),
                )
                refused = pytest.raises(asyncpg.DataError) if body in BODIES else nullcontext()
                with refused:
                    await connection.execute(
                        "SELECT saga_engine.request_resolve($1, $2, $3)", [run_id], [act], [body]
                    )
        async with as_role(roles) as connection:
            mine = await start_in_transaction(connection, "buy", {})
        sent = await programs.client.start("buy", {})
        for run_id in (mine.run_id, sent.run_id):
            ending = await programs.client.result(run_id, timeout=60)
            assert ending.status is Status.COMPLETED
        await programs.worker.wait_for(MessageDeadLettered, len(BODIES) + len(RESULTS))
        assert not programs.worker.matching(InternalErrorCaught)
        async with roles.connected("saga_owner") as owner:
            assert await owner.fetchval("SELECT count(*) FROM saga_engine.pending_request") == 0
            waiting = "SELECT count(*) FROM saga_engine.audit WHERE outcome IS NULL"
            assert await owner.fetchval(waiting) == len(BODIES), "of these no request was recorded"
            kept = "SELECT count(*) FROM saga_engine.business_key WHERE key LIKE 'key %'"
            assert await owner.fetchval(kept) == 0, "what never became a run gives its key back"


async def test_a_worker_without_schema_privileges_adds_partitions(roles):
    async with roles.connected("saga_owner") as owner:
        last = await owner.fetchval(
            "SELECT max(relname) FROM pg_class WHERE relname ~ '^run_[0-9]{4}_[0-9]{2}$'"
        )
        await owner.execute(
            f"DROP TABLE saga_engine.{last}, saga_engine.{last.replace('run', 'journal')}"
        )
    url = roles.url("saga_worker")
    async with Database(url, Settings(database_url=url)) as database:
        made = await maintain(database, retention_days=0)
    assert made.created == 2
