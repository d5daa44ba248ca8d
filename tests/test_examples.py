"""Every example runs on a real database and a broker, with the documented results."""

import asyncio
import importlib
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine import Client, Rejected
from saga_engine.events import Append, Consumer, EventData, Events, Feed, Recorded, replay
from saga_engine.events.consumers.source_options import QueueSourceOptions
from saga_engine.events.event_store.event_types import event_type_of
from saga_engine.events.event_store.schema_registration import register_events
from saga_engine.events.feeds.feed_table import StoredFeed
from saga_engine.loading import load_objects
from saga_engine.participant import Participant
from saga_engine.participant.service import ParticipantService
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import Emitter
from saga_engine.worker.worker import Worker
from tests.kit.avro_events import avro_schemas, read_framed
from tests.kit.connections import raw_channel
from tests.kit.consumers import running_consumers
from tests.kit.feeds import (
    bind_queue,
    receive_from,
    running_feeds,
    stored_feed,
    wait_for_feed,
)
from tests.kit.greeter import run_services
from tests.kit.kafka_topics import read_topic
from tests.kit.projections import running_projector
from tests.kit.streams import stream_url


@asynccontextmanager
async def running_example(sagas: str, services: str, settings: Settings):
    """Run the sagas and services of an example; yield a client."""
    async with (
        ParticipantService(
            load_objects(services, Participant, settings.import_timeout), settings, Emitter()
        ) as service,
        Worker(load_objects(sagas, Saga, settings.import_timeout), settings, Emitter()) as worker,
        run_services(service, worker),
        Client(settings=settings) as client,
    ):
        yield client


async def run_to_end(client: Client, saga: str, data: dict[str, object], key: str | None = None):
    handle = await client.start(saga, data, key=key)
    async with asyncio.timeout(60):
        return await client.result(handle.run_id)


@pytest.fixture
def settings(migrated_url, broker_url) -> Settings:
    return Settings(database_url=migrated_url, broker_url=broker_url)


async def test_a_trip_is_booked_completely_or_compensated(settings):
    async with running_example("examples.trip.saga", "examples.trip.services", settings) as client:
        booked = await run_to_end(client, "book-trip", {"trip_id": "t-1", "city": "Lisbon"})
        refused = await run_to_end(client, "book-trip", {"trip_id": "t-2", "city": "Atlantis"})
    assert (booked.status, booked.result["book_flight"]) == ("completed", {"number": "TP-t-1"})
    assert (refused.status, refused.error.code) == ("compensated", "no_such_city")


async def test_the_client_of_the_readme_books_both_trips(settings, monkeypatch):
    monkeypatch.setenv("SAGA_ENGINE_BROKER_URL", settings.require_broker_url())
    module = importlib.import_module("examples.trip.client")
    async with running_example("examples.trip.saga", "examples.trip.services", settings):
        assert await module.book(module.Trip(trip_id="t-1", city="Lisbon")) == "completed"
        assert await module.book(module.Trip(trip_id="t-2", city="Atlantis")) == "compensated"


async def test_a_reservation_and_its_start_are_committed_together(settings, monkeypatch):
    monkeypatch.setenv("SAGA_ENGINE_DATABASE_URL", settings.require_database_url())
    module = importlib.import_module("examples.trip.start_in_transaction")
    async with running_example("examples.trip.saga", "examples.trip.services", settings) as client:
        await module.main()
        handle = await client.start("book-trip", {"trip_id": "t-3", "city": "Porto"}, key="t-3")
        assert handle.existing
        assert (await client.result(handle.run_id, timeout=60)).status == "completed"
        database = create_async_engine(settings.require_database_url())
        async with database.connect() as connection:
            await module.reserve(connection, module.Trip(trip_id="t-4", city="Porto"))
            await connection.rollback()
            reserved = await connection.scalars(text("SELECT trip_id FROM reservation"))
            assert reserved.all() == ["t-3"]
        await database.dispose()
        handle = await client.start("book-trip", {"trip_id": "t-4", "city": "Porto"}, key="t-4")
        assert not handle.existing


async def test_create_order_is_compensated_before_its_pivot_only(settings):
    order = {"order_id": 7, "consumer_id": 1, "restaurant_id": 2, "total": "61.70"}
    examples = ("examples.create_order.sagas", "examples.create_order.services")
    async with running_example(*examples, settings) as client:
        approved = await run_to_end(client, "create-order", order)
        unknown = await run_to_end(client, "create-order", order | {"consumer_id": 0})
        declined = await run_to_end(client, "create-order", order | {"total": "1000.01"})
    assert approved.status == "completed"
    assert (unknown.status, unknown.error.code) == ("compensated", "unknown_consumer")
    assert (declined.status, declined.error.code) == ("compensated", "card_declined")


CHECKOUT: dict[str, object] = {"customer": "mara", "items": {"tea": 2, "pot": 1}, "card": "ok"}


async def events_of_orders(events: Events) -> dict[str, list[Recorded]]:
    """The events of all orders by their stream, with what caused them."""
    found: dict[str, list[Recorded]] = {}
    async for event in events.read_all(streams={"order-*"}):
        found.setdefault(event.stream, []).append(event)
    return found


async def test_each_step_of_a_checkout_and_its_events_are_committed_together(settings, monkeypatch):
    monkeypatch.setenv("SHOP_DATABASE_URL", settings.require_database_url())
    monkeypatch.delitem(sys.modules, "examples.shop.services", raising=False)
    async with (
        running_example("examples.shop.sagas", "examples.shop.services", settings) as client,
        Events(settings=settings) as events,
    ):
        paid = await run_to_end(client, "checkout", CHECKOUT | {"order_id": "o-1"})
        declined = CHECKOUT | {"order_id": "o-2", "card": "declined"}
        unpaid = await run_to_end(client, "checkout", declined)
        unknown = CHECKOUT | {"order_id": "o-3", "items": {"coffee": 1}}
        refused = await run_to_end(client, "checkout", unknown)
        repeated = await run_to_end(client, "checkout", CHECKOUT | {"order_id": "o-1"})
        recorded = await events_of_orders(events)
    assert (paid.status, paid.result["create"]) == ("completed", {"total": "33.90"})
    assert (unpaid.status, unpaid.error.code) == ("compensated", "card_declined")
    assert (refused.status, refused.error.code) == ("compensated", "unknown_item")
    assert (repeated.status, repeated.error.code) == ("compensated", "order_exists")
    assert {stream: [event.type for event in each] for stream, each in recorded.items()} == {
        "order-o-1": ["order-created", "order-confirmed"],
        "order-o-2": ["order-created", "order-cancelled"],
    }
    orders = importlib.import_module("examples.shop.orders").orders
    assert replay(orders, recorded["order-o-1"]).status == "confirmed"
    assert {event.correlation_id for event in recorded["order-o-1"]} == {str(paid.run_id)}
    assert {event.actor for event in recorded["order-o-1"]} == {"checkout"}


def test_the_commands_of_the_shop_reject_what_its_state_does_not_allow():
    shop = importlib.import_module("examples.shop.orders")
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    create = shop.CreateOrder(customer="mara", items={"tea": 2, "pot": 1}, created_at=now)
    assert shop.create(shop.Order(), create).total == Decimal("33.90")
    coffee = create.model_copy(update={"items": {"coffee": 1}})
    nothing = create.model_copy(update={"items": {}})
    confirm = shop.ConfirmOrder(charge_id="c-1")
    for function, status, command, code in [
        (shop.create, "created", create, "order_exists"),
        (shop.create, "new", nothing, "no_items"),
        (shop.create, "new", coffee, "unknown_item"),
        (shop.confirm, "new", confirm, "not_open"),
        (shop.confirm, "cancelled", confirm, "not_open"),
    ]:
        with pytest.raises(Rejected) as rejected:
            function(shop.Order(status=status), command)
        assert rejected.value.failure.code == code
    cancel = shop.CancelOrder(reason="too late")
    assert shop.cancel(shop.Order(status="cancelled"), cancel) is None
    assert shop.cancel(shop.Order(status="confirmed"), cancel).reason == "too late"


@pytest.mark.parametrize(
    "wrong", [{"customer": ""}, {"items": {"tea": 0}}, {"items": {"tea": 1001}}, {"order_id": "*"}]
)
def test_a_checkout_that_the_shop_cannot_store_is_not_started(wrong):
    messages = importlib.import_module("examples.shop.messages")
    with pytest.raises(ValidationError):
        messages.Checkout.model_validate(CHECKOUT | {"order_id": "o-1"} | wrong)


async def test_an_order_of_version_1_reads_as_one_of_version_2(migrated_url):
    module = importlib.import_module("examples.shop.orders")
    created: dict[str, Any] = {
        "customer": "mara",
        "items": {"tea": 2},
        "total": "9.00",
        "created_at": "2026-11-30T12:00:00Z",
    }
    async with Events(migrated_url, settings=Settings()) as events:
        old = EventData("order-created", 1, created)
        new = EventData("order-created", 2, created | {"currency": "EUR"})
        await events.append(Append("order-1", [old]), Append("order-2", [new]))
        confirmed = [
            await events.handle(module.orders, each, module.ConfirmOrder(charge_id="c-1"))
            for each in (1, 2)
        ]
    assert confirmed[0].state == confirmed[1].state
    assert confirmed[0].state.total == module.PRICES["tea"] * 2


async def test_the_shop_publishes_what_happens_to_its_orders(migrated_url, broker_url):
    module = importlib.import_module("examples.shop.orders")
    feed = importlib.import_module("examples.shop.feeds").shop_feed
    create = module.CreateOrder(
        customer="mara", items={"tea": 1}, created_at=datetime(2026, 11, 30, 12, tzinfo=UTC)
    )
    async with raw_channel(broker_url) as channel, Events(migrated_url) as events:
        await bind_queue(channel, "shipping", "order.*")
        received = await receive_from(channel, "shipping")
        for number in (1, 2):
            await events.handle(module.orders, number, create)
        await events.handle(module.orders, 1, module.ConfirmOrder(charge_id="c-1"))
        await events.handle(module.orders, 2, module.CancelOrder(reason="too late"))
        async with running_feeds(migrated_url, broker_url, [feed]):
            await received.wait_for(4)
        received.check([each async for each in events.read_all()])


async def append_shop_orders(events: Events) -> None:
    """Orders of every status; one was created by version 1 of the shop, which had no currency."""
    shop = importlib.import_module("examples.shop.orders")
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    old: Any = {
        "customer": "ivo",
        "items": {"cup": 1},
        "total": "8.00",
        "created_at": now.isoformat(),
    }
    await events.append(Append("order-0", [EventData("order-created", 1, old)]))
    for number in (1, 2, 3):
        create = shop.CreateOrder(customer="mara", items={"tea": number}, created_at=now)
        await events.handle(shop.orders, number, create)
    for number in (0, 1):
        await events.handle(shop.orders, number, shop.ConfirmOrder(charge_id="c-1"))
    await events.handle(shop.orders, 2, shop.CancelOrder(reason="too late"))


async def register_schemas(database: Database) -> None:
    """Register those of all versions, as the projectors of the shop did when they started."""
    classes = [
        each
        for module in ("first_version", "orders")
        for each in vars(importlib.import_module(f"examples.shop.{module}")).values()
        if isinstance(each, type)
    ]
    types = [each for each in map(event_type_of, classes) if each]
    async with database.transaction() as tx:
        await register_events(tx, types, Settings())


@pytest.fixture
def consumer_of(monkeypatch):
    """The consumer of the shop, which reads from a source."""

    def load(source: str) -> Consumer:
        monkeypatch.setenv("SHOP_INVOICES_FROM", source)
        monkeypatch.delitem(sys.modules, "examples.shop.consumers", raising=False)
        consumer: Consumer = importlib.import_module("examples.shop.consumers").invoices
        return consumer

    return load


async def write_invoices(
    url: str, consumer: Consumer, feed: Feed, *, broker_url: str = "", **settings: Any
) -> StoredFeed:
    """Publish orders, and let the consumer of the shop write their invoices; return the feed."""
    consumers = importlib.import_module("examples.shop.consumers")
    check_invoices = importlib.import_module("examples.shop.check_invoices").check_invoices
    await importlib.import_module("examples.shop.create_tables").create_tables(url)
    consuming = partial(running_consumers, url, [consumer], broker_url=broker_url, **settings)
    async with (
        Events(url, settings=Settings()) as events,
        Database(url, Settings(), EVENT_DATABASE) as database,
    ):
        await register_schemas(database)
        await append_shop_orders(events)
        if isinstance(consumer.source, QueueSourceOptions):
            async with consuming():
                pass  # it declares its queue, which keeps events from now on
        async with running_feeds(url, broker_url, [feed], **settings):
            await wait_for_feed(database, await events.position(), feed.name)
        async with consuming():
            checked = await check_invoices(url)
        assert (checked.invoices, checked.differences) == (4, [])
        async with database.transaction() as tx:
            rows = (await tx.connection.execute(select(consumers.shop_invoice))).all()
            await tx.connection.execute(update(consumers.shop_invoice).values(status="open"))
        wrong = (await check_invoices(url, wait=0)).differences
        assert [each.partition(":")[0] for each in wrong] == [
            f"shop_invoice {order_id}" for order_id in (0, 1, 2)
        ]
        stored = await stored_feed(database, feed.name)
    assert sorted((row.order_id, row.status, row.currency) for row in rows) == [
        ("0", "paid", "EUR"),
        ("1", "paid", "EUR"),
        ("2", "void", "EUR"),
        ("3", "open", "EUR"),
    ]
    return stored


@pytest.mark.rabbitmq
async def test_the_shop_writes_invoices_from_a_queue(migrated_url, rabbitmq_url, consumer_of):
    feed = importlib.import_module("examples.shop.feeds").shop_feed
    await write_invoices(migrated_url, consumer_of("queue"), feed, broker_url=rabbitmq_url)


@pytest.mark.rabbitmq
async def test_the_shop_writes_invoices_from_a_stream_of_10_partitions(
    migrated_url, rabbitmq, rabbitmq_url, consumer_of
):
    feed = importlib.import_module("examples.shop.stream_feeds").stream_feed
    (options,) = feed.sinks.values()
    assert (options.partitions, options.max_age) == (10, timedelta(days=7))
    urls = {"broker_url": rabbitmq_url, "broker_stream_url": stream_url(rabbitmq, rabbitmq_url)}
    stored = await write_invoices(migrated_url, consumer_of("stream"), feed, **urls)
    assert stored.differences == ()


async def test_the_shop_writes_invoices_from_a_topic_of_10_partitions(
    migrated_url, kafka, consumer_of
):
    """On one server the topic has one replica; in everything else it is as declared."""
    feed = importlib.import_module("examples.shop.kafka_feeds").kafka_feed
    (options,) = feed.sinks.values()
    assert (options.partitions, options.replication) == (10, 3)
    assert (options.retention, options.compression) == (timedelta(days=7), "snappy")
    assert options.max_message_bytes == 1_048_576
    settings = {"kafka_bootstrap_servers": kafka.servers, "kafka_replication": 1}
    stored = await write_invoices(migrated_url, consumer_of("kafka"), feed, **settings)
    difference = "The replication of topic 'shop-orders' is 1; the feed declares 3."
    assert stored.differences == (difference,)
    async with Database(migrated_url, Settings(), EVENT_DATABASE) as database:
        schemas = await avro_schemas(database)
    orders = [
        read_framed(record.value, schemas)[1]
        for record in await read_topic(kafka.servers, "shop-orders")
        if record.headers["ce_type"] == "order-created"
    ]
    created_at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    old = {"customer": "ivo", "items": {"cup": 1}, "total": "8.00", "created_at": created_at}
    new = {"customer": "mara", "currency": "EUR", "created_at": created_at}
    assert sorted(orders, key=itemgetter("total")) == [
        new | {"items": {"tea": 3}, "total": "13.50"},
        new | {"items": {"tea": 1}, "total": "4.50"},
        old,
        new | {"items": {"tea": 2}, "total": "9.00"},
    ]


async def test_the_shops_read_model_is_what_a_replay_of_its_orders_says(migrated_url):
    shop = importlib.import_module("examples.shop.orders")
    model = importlib.import_module("examples.shop.projections")
    replay_module = importlib.import_module("examples.shop.replay")
    await importlib.import_module("examples.shop.create_tables").create_tables(migrated_url)
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    async with (
        Events(migrated_url, settings=Settings()) as events,
        running_projector(migrated_url, [model.shop_orders]),
    ):
        for number, customer in enumerate(["mara", "ivo", "mara", "mara"]):
            items = {"cup": number + 1}
            create = shop.CreateOrder(customer=customer, items=items, created_at=now)
            await events.handle(shop.orders, number, create)
        await events.handle(shop.orders, 0, shop.ConfirmOrder(charge_id="c-1"))
        await events.handle(shop.orders, 2, shop.CancelOrder(reason="too late"))
        comparison = await replay_module.compare(migrated_url)
    assert comparison.differences == []
    assert comparison.statuses() == {
        "0": "confirmed",
        "1": "created",
        "2": "cancelled",
        "3": "created",
    }
    database = create_async_engine(migrated_url)
    async with database.begin() as connection:
        row = await model.order_by_id(connection, "3")
        assert (row.items, row.total, row.created_at) == ({"cup": 4}, Decimal(32), now)
        assert await model.order_by_id(connection, "4") is None
        of_mara = await model.orders_by_customer(connection, "mara")
        assert sorted(row.order_id for row in of_mara) == ["0", "2", "3"]
        customers = (await connection.execute(select(model.shop_customer))).all()
        assert sorted(customers) == [
            ("ivo", "EUR", 1, shop.PRICES["cup"] * 2),
            ("mara", "EUR", 3, shop.PRICES["cup"] * 8),
        ]
        await connection.execute(update(model.shop_customer).values(orders=2))
    await database.dispose()
    wrong = (await replay_module.compare(migrated_url)).differences
    assert [text.partition(":")[0] for text in wrong] == [
        "shop_customer ivo EUR",
        "shop_customer mara EUR",
    ]
