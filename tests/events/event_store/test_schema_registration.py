"""Code that cannot read stored events is refused, with the number of events that it would lose."""

from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from saga_engine.errors import DefinitionError
from saga_engine.events import Append, EventData, Events, MessageContext
from saga_engine.events.event_store import schema_registration
from saga_engine.events.event_store.event_types import (
    add_upcaster,
    declare_event_type,
    event_type_of,
)
from saga_engine.events.event_store.schema_registration import register_events
from saga_engine.schemas import registry
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE


def placed_type(*required, version=1):
    """The event `order-placed`, whose class has these fields."""
    namespace = {"__annotations__": dict.fromkeys(required, str)}
    model = type("Placed", (BaseModel,), {"__module__": __name__, **namespace})
    return declare_event_type(model, "order-placed", version, "orders.py:7")


@pytest.fixture
async def database(event_url):
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        yield database


async def register(database, *event_types):
    async with database.transaction() as tx:
        await register_events(tx, event_types, Settings())


async def append(event_url, count, version=1):
    async with Events(event_url, settings=Settings()) as events:
        stored = [EventData("order-placed", version, {"customer": "mara"})] * count
        await events.append(Append("order-o-1", stored))


async def test_code_that_cannot_read_stored_events_is_refused(database, event_url):
    await register(database, placed_type("customer"))
    await append(event_url, 3)
    with pytest.raises(DefinitionError) as caught:
        await register(database, placed_type("customer", "currency"))
    assert str(caught.value) == (
        "orders.py:7: order-placed version 1 cannot read schema 1: `currency`"
        " is required in the class and is absent in schema 1; 3 events of"
        " schema 1 are stored. Give it a default, or raise the version to 2"
        " and declare an upcast from version 1."
    )
    async with database.transaction() as tx:
        assert [each.id for each in await registry.read(tx)] == [1]


async def test_a_schema_of_which_no_event_is_stored_breaks_nothing(database, event_url):
    await register(database, placed_type("customer"))
    await append(event_url, 3, version=2)
    await register(database, placed_type("customer", "currency"))


async def test_events_are_counted_among_the_newest_positions(database, event_url, monkeypatch):
    await register(database, placed_type("customer"))
    await append(event_url, 5)
    monkeypatch.setattr(schema_registration, "COUNTED_POSITIONS", 2)
    with pytest.raises(DefinitionError, match="more than 2 events of schema 1"):
        await register(database, placed_type("customer", "currency"))
    await append(event_url, 2, version=9)
    with pytest.raises(DefinitionError, match="more than 0 events of schema 1"):
        await register(database, placed_type("customer", "currency"))


async def test_a_single_event_is_counted_in_the_singular(database, event_url):
    await register(database, placed_type("customer"))
    await append(event_url, 1)
    with pytest.raises(DefinitionError, match=r"1 event of schema 1 is stored"):
        await register(database, placed_type("customer", "currency"))


async def test_an_event_is_stored_with_the_id_of_its_schema(database, event_url):
    placed = placed_type("customer").model
    async with Events(event_url, settings=Settings()) as events:
        await events.append(Append("order-o-1", [placed(customer="mara")]))
        await register(database, event_type_of(placed))
        context = MessageContext(correlation_id="c-1")
        data = EventData("order-placed", 1, {"customer": "ivo"})
        await events.append(Append("order-o-1", [placed(customer="ivo"), data]), context=context)
        first, second, third = [each async for each in events.read("order-o-1")]
    assert (first.schema_id, second.schema_id, third.schema_id) == (None, 1, None)
    assert second.correlation_id == "c-1"


async def test_events_of_another_schema_of_their_version_are_not_counted(database, event_url):
    old = placed_type("customer")
    await register(database, old)
    new = placed_type("customer", "currency")
    await register(database, new)
    async with Events(event_url, settings=Settings()) as events:
        stored = [new.model(customer="mara", currency="EUR")]
        await events.append(Append("order-o-1", stored))
    await register(database, placed_type("customer", "currency"))
    with pytest.raises(DefinitionError, match=r"1 event of schema 2"):
        await register(database, placed_type("country"))


async def test_an_upcaster_is_tried_on_the_newest_stored_events(database, event_url):
    class Coded(BaseModel):
        currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]

    class Priced(Coded):
        price: int

    old = declare_event_type(Coded, "order-placed", 1, "orders.py:7")
    await register(database, old)  # the pattern allows no example
    async with Events(event_url, settings=Settings()) as events:
        stored = [Coded(currency=each) for each in ("EUR", "USD")]
        await events.append(Append("order-o-1", stored))
    new = declare_event_type(Priced, "order-placed", 2, "orders.py:9")
    add_upcaster(
        new, 1, lambda data: data | {"price": {"EUR": 1}[data["currency"]]}, "orders.py:12"
    )
    with pytest.raises(DefinitionError) as caught:
        await register(database, new)
    assert caught.value.problem.startswith("Event 2 of order-o-1, 'order-placed' version 1: ")
    assert caught.value.location == "orders.py:9"


async def test_events_that_were_stored_before_any_schema_are_read(database, event_url):
    await append(event_url, 3)
    for required in (["customer", "currency"], ["currency"]):
        with pytest.raises(DefinitionError, match="Event 3 of order-o-1, 'order-placed' version 1"):
            await register(database, placed_type(*required))
    await register(database, placed_type("customer"))


async def test_stored_events_are_not_read_if_nothing_is_compared(database, event_url):
    await register(database, placed_type("note"))
    await append(event_url, 3)
    async with database.transaction() as tx:
        await registry.set_compatibility(tx, "order-placed", Compatibility.NONE)
    await register(database, placed_type("currency"))


async def test_a_class_that_is_rolled_back_to_before_stored_events_is_refused(database, event_url):
    await register(database, placed_type("currency"))
    await register(database, placed_type("customer"))
    async with Events(event_url, settings=Settings()) as events:
        data = declare(placed_type("customer"), customer="mara")
        await events.append(Append("order-o-1", [data]))
    with pytest.raises(DefinitionError, match="cannot read schema 2: `currency` is required"):
        await register(database, placed_type("currency"))


def declare(event_type, **fields):
    """An event as its class writes it, with its schema."""
    return event_type.write(event_type.payload_type.python_type(**fields))
