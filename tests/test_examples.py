"""Every example runs on a real database and a broker, with the documented results."""

import asyncio
import importlib
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine import Client
from saga_engine.loading import load_objects
from saga_engine.participant import Participant
from saga_engine.participant.service import ParticipantService
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Emitter
from saga_engine.worker.worker import Worker
from tests.kit.greeter import run_services


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
