"""A consumer is declared with functions that take what they get."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError
from saga_engine.events import Consumer, Received, Recorded, from_queue
from saga_engine.events.consumers.event_reader import read_event
from saga_engine.payload.guard import NO_TIME_LIMIT
from saga_engine.settings import Settings
from tests.kit.consumers import attributes_of, message_of, no_avro
from tests.kit.read_model import Cancelled, Placed

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def consumer() -> Consumer:
    return Consumer("billing", source=from_queue())


def test_functions_are_found_by_the_name_of_their_event():
    billing = consumer()

    @billing.on(Placed)
    async def placed(event: Placed, received: Received, connection: object) -> None: ...

    @billing.on("order-cancelled")
    async def cancelled(event: dict[str, Any], recorded: Recorded, connection: object) -> None: ...

    assert [*billing.handlers] == ["order-placed", "order-cancelled"]
    assert billing.handlers["order-placed"].function is placed
    assert "billing" in repr(billing)
    assert billing.source_location.startswith(__file__)


class Shipped(BaseModel):
    carrier: str


def test_an_event_of_another_program_is_read_with_the_model_of_the_annotation():
    billing = consumer()

    @billing.on("order-shipped")
    async def shipped(event: Shipped, received: Received, connection: object) -> None: ...

    data = b'{"carrier": "pigeon", "weight": 7}'
    attributes = attributes_of(1, type="order-shipped", schemaversion="9")
    settings = Settings()
    event = read_event(message_of(attributes, body=data), billing.handlers, settings, NOW, no_avro)
    assert isinstance(event, Received)
    assert billing.handlers["order-shipped"].read(event, NO_TIME_LIMIT) == Shipped(carrier="pigeon")


async def takes_two(event: Placed, received: Received) -> None: ...


async def takes_another(event: Cancelled, received: Received, connection: object) -> None: ...


async def takes_a_text(event: Placed, received: str, connection: object) -> None: ...


async def returns_a_number(event: Placed, received: Received, connection: object) -> int:
    return 1


def is_plain(event: Placed, received: Received, connection: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (takes_two, "does not take what it gets"),
        (takes_another, "takes Cancelled, and gets Placed"),
        (takes_a_text, "Annotate it with Received"),
        (returns_a_number, "does not say that it returns None"),
        (is_plain, "is not an async function"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(function, problem):
    with pytest.raises(DefinitionError, match=problem):
        consumer().on(Placed)(function)


def test_an_event_has_one_function():
    billing = consumer()

    async def placed(event: Placed, received: Received, connection: object) -> None: ...

    billing.on(Placed)(placed)
    with pytest.raises(DefinitionError, match="two functions for 'order-placed'"):
        billing.on(Placed)(placed)
