"""The models of consumers are compared with the registered schemas of what they read."""

from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.events import Consumer, Received, from_queue
from saga_engine.events.consumers.reader_schemas import check_readers
from saga_engine.events.event_store.schema_registration import register_events
from saga_engine.events.handlers.event_handler import named_event
from saga_engine.schemas import registry
from saga_engine.settings import Settings
from tests.kit.command_line import saga_engine
from tests.kit.consumers import billing_consumer, consumer_database
from tests.kit.declared_schemas import declared_json
from tests.kit.read_model import Cancelled, Placed
from tests.kit.schema_pairs import INTEGER, record


@pytest.fixture
async def database(event_url):
    """With the schemas of what the shop writes."""
    async with consumer_database(event_url) as database:
        async with database.transaction() as tx:
            types = [named_event(each, "here")[1] for each in (Placed, Cancelled)]
            await register_events(tx, [each for each in types if each], Settings())
        yield database


class Known(BaseModel):
    customer: str


class Unknown(BaseModel):
    customer: str
    country: str


def reader(model, event="order-placed"):
    consumer = Consumer("billing", source=from_queue())

    async def invoice(event, received: Received, connection: AsyncConnection) -> None:
        """Write nothing."""

    invoice.__annotations__["event"] = model
    consumer.on(event)(invoice)
    return consumer


async def problems_of(database, consumer):
    async with database.transaction() as tx:
        found = await check_readers(tx, [consumer])
    problems = [problem for each in found for problem in each.problems]
    return problems, [each.schemas for each in found]


async def test_a_model_that_ignores_fields_reads_what_is_registered(database):
    assert await problems_of(database, reader(Known)) == ([], [1])
    assert await problems_of(database, billing_consumer()) == ([], [1, 1])


async def test_a_field_that_is_not_written_is_named(database):
    [problem], _ = await problems_of(database, reader(Unknown))
    assert "Consumer 'billing': cannot read order-placed version 1" in problem.problem
    assert "`country` is required in Unknown of the consumer and is absent in" in problem.problem
    assert __file__ in problem.location


async def test_a_newer_version_than_the_code_knows_is_named(database):
    newer = declared_json(record({"number": INTEGER}), version=2)
    async with database.transaction() as tx:
        await registry.lock_subjects(tx, [newer])
        await registry.insert(tx, [newer], Settings())
    [problem], _ = await problems_of(database, billing_consumer())
    assert "order-placed has version 2, and this code knows up to 1" in problem.problem


async def test_a_function_of_json_reads_everything(database):
    assert await problems_of(database, reader(dict[str, Any])) == ([], [])


async def test_an_event_without_a_registered_schema_is_named_with_the_next_action(database):
    [problem], [schemas] = await problems_of(database, reader(Known, "parcel-lost"))
    assert problem.problem == (
        "Consumer 'billing': no schema of parcel-lost is registered, so nothing was compared."
    )
    assert problem.fix.startswith("Register it with `saga-engine schemas register MODULE`")
    assert "SAGA_ENGINE_REGISTRY_DATABASE_URL" in problem.fix
    assert schemas == 0


@pytest.mark.parametrize("model", [Known, dict[str, Any]])
async def test_a_misspelt_event_is_named_with_the_nearest_registered_one(database, model):
    [problem], _ = await problems_of(database, reader(model, "order-placd"))
    assert "no schema of order-placd is registered" in problem.problem
    assert problem.fix.startswith("Correct the name, if you meant order-placed")
    assert __file__ in problem.location


@pytest.mark.parametrize("name", ["parcel-lost", "order-paid", "order-shipped"])
async def test_a_function_of_json_may_read_events_without_schemas(database, name):
    """Also one of another program whose name is like that of a registered one."""
    assert await problems_of(database, reader(dict[str, Any], name)) == ([], [])


async def test_an_event_that_the_module_itself_declares_may_be_registered_later(database):
    async with database.transaction() as tx:
        [read] = await check_readers(tx, [reader(Known, "parcel-lost")], {"parcel-lost"})
    assert (read.schemas, read.problems) == (0, ())


async def test_the_command_exits_8_if_nothing_is_registered(event_url):
    ran = await saga_engine("schemas", "check", "tests.kit.billing_module", database_url=event_url)
    assert (ran.exit_code, ran.out) == (8, "")
    assert "no schema of order-placed is registered" in ran.err


async def test_a_module_without_a_class_reports_that_nothing_was_compared(event_url):
    ran = await saga_engine(
        "schemas", "check", "tests.kit.published_orders", database_url=event_url
    )
    assert (ran.exit_code, ran.out) == (
        0,
        "No class of an event, a command or a reply is declared: nothing was compared.\n",
    )


@pytest.mark.usefixtures("database")
async def test_the_command_compares_with_the_registry(event_url):
    checked = ("schemas", "check", "tests.kit.billing_module")
    ran = await saga_engine(*checked, database_url=event_url)
    assert ran.exit_code == 0
    assert ran.out.splitlines() == [
        "billing reads order-placed: 1 schema is registered",
        "billing reads order-cancelled: 1 schema is registered",
    ]
    read = (await saga_engine(*checked, "--json", database_url=event_url)).json["reads"]
    assert [each["event"] for each in read] == ["order-placed", "order-cancelled"]
