"""What a handler's signature must say."""

import functools

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import DefinitionError
from saga_engine.participant import CommandContext, Participant

HERE = "test_handler.py:"


class Charge(BaseModel):
    order_id: str


@pytest.fixture
def payments():
    return Participant("payments")


def refused(payments, function):
    with pytest.raises(DefinitionError) as found:
        payments.command("payment.charge")(function)
    assert HERE in found.value.location
    return str(found.value)


def test_a_plain_function_is_refused_because_it_would_block_the_others(payments):
    def charge(command: Charge) -> None: ...

    assert "async def" in refused(payments, charge)


def test_an_object_that_is_not_a_function_is_refused(payments):
    with pytest.raises(DefinitionError, match="not to a function"):
        payments.command("payment.charge")(functools.partial(print))


def test_a_handler_takes_one_payload(payments):
    async def none() -> None: ...
    async def two(first: Charge, second: Charge) -> None: ...

    assert "has 0 payload parameters" in refused(payments, none)
    assert "has 2 payload parameters" in refused(payments, two)


def test_every_parameter_and_the_result_are_annotated(payments):
    async def no_parameter(command) -> None: ...
    async def no_result(command: Charge): ...
    async def unknown(command: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is the point
    async def starred(*command: Charge) -> None: ...
    async def no_schema(command: Payload) -> None: ...

    assert "has no annotation" in refused(payments, no_parameter)
    assert "result of no_result has no annotation" in refused(payments, no_result)
    assert "Missing" in refused(payments, unknown)
    assert "is variadic or positional-only" in refused(payments, starred)
    assert "not a payload type" in refused(payments, no_schema)


class Payload:
    """Nothing pydantic understands."""


def test_a_transaction_needs_a_database(payments):
    async def charge(command: Charge, tx: AsyncConnection) -> None: ...

    assert "has no database" in refused(payments, charge)


def test_a_handler_may_take_transaction_and_context_in_any_order():
    payments = Participant("payments", database="postgresql+asyncpg://unused@127.0.0.1/none")

    @payments.command("payment.charge")
    async def charge(tx: AsyncConnection, about: CommandContext, command: Charge) -> None: ...

    assert list(payments.handlers) == ["payment.charge"]
