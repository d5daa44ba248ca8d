import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.errors import DefinitionError
from saga_engine.participant import Participant

HERE = "test_participant.py:"


class Charge(BaseModel):
    order_id: str


@pytest.fixture
def payments():
    return Participant("payments")


@pytest.mark.parametrize("name", ["", "Payments", "pay ments", "a" * 65, "pay.#", 7, None])
def test_the_name_of_a_participant_is_valid_for_a_queue(name):
    with pytest.raises(DefinitionError, match="invalid name") as found:
        Participant(name)
    assert HERE in found.value.location


@pytest.mark.parametrize("name", ["", "payment.*", "#", "payment charge", "a" * 200, None])
def test_the_name_of_a_command_is_not_a_pattern(payments, name):
    with pytest.raises(DefinitionError, match="not a valid name for a command") as found:
        payments.command(name)
    assert HERE in found.value.location


def test_a_command_has_one_handler(payments):
    @payments.command("payment.charge")
    async def charge(command: Charge) -> None: ...

    with pytest.raises(DefinitionError, match=r"already handles payment\.charge") as found:
        payments.command("payment.charge")
    assert HERE in found.value.location


def test_a_compensation_undoes_a_command_of_the_same_participant(payments):
    with pytest.raises(DefinitionError, match="does not handle") as found:
        payments.compensation("payment.refund", of="payment.charge")
    assert HERE in found.value.location


def test_a_compensation_is_not_compensated(payments):
    @payments.command("payment.charge")
    async def charge(command: Charge) -> None: ...

    @payments.compensation("payment.refund", of="payment.charge")
    async def refund(command: Charge) -> None: ...

    with pytest.raises(DefinitionError, match="does not handle"):
        payments.compensation("payment.rebill", of="payment.refund")


def test_a_decorator_returns_the_function_unchanged(payments):
    async def charge(command: Charge) -> None: ...

    assert payments.command("payment.charge")(charge) is charge
    assert list(payments.handlers) == ["payment.charge"]


@pytest.mark.parametrize("database", [None, create_async_engine("postgresql+asyncpg://h/d")])
def test_batches_need_the_url_of_a_database(database):
    with pytest.raises(DefinitionError, match="batch=True"):
        Participant("payments", database=database, batch=True)
    assert Participant("payments", database="postgresql+asyncpg://h/d", batch=True).batch
