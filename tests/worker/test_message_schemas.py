"""A worker starts although the schemas of its commands and replies cannot be registered."""

from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine import Saga
from saga_engine.schemas import registry
from saga_engine.schemas.saga_schemas import schemas_of_saga
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import Emitter, SchemaBroken
from saga_engine.worker.message_schemas import register_message_schemas
from tests.kit.events import EventRecorder


class Order(BaseModel):
    sku: str


class Other(BaseModel):
    sku: int


class Third(BaseModel):
    sku: float


def saga(name: str, payload: Any = Order) -> Saga:
    """A saga of one step, which sends a payload."""
    made = Saga(name, version=1, input=Order)

    @made.step(command="stock.reserve")
    def reserve(_: Order) -> payload:
        return payload()

    return made


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


async def test_a_lock_of_another_process_is_reported(database, migrated_url, recorder):
    sagas = [saga("buy"), saga("sell")]
    settings = Settings(database_lock_timeout=0.05)
    async with database.transaction() as tx, Database(migrated_url, settings) as other:
        await registry.lock_subjects(tx, [*schemas_of_saga(sagas[0])])
        await register_message_schemas(other.transaction, sagas, settings, Emitter(recorder))
    (found,) = recorder.matching(SchemaBroken)
    assert found.subject == "buy"
    assert found.problem.startswith("The schemas of buy were not registered: ")
    assert "saga-engine schemas check" in found.fix


async def test_a_saga_with_too_many_schemas_is_reported_and_the_others_are_registered(
    database, recorder
):
    settings = Settings(max_schema_versions=2)
    for each in (Order, Other):
        sagas = [saga("buy", each)]
        await register_message_schemas(database.transaction, sagas, settings, Emitter(recorder))
    recorder.clear()
    sagas = [saga("buy", Third), saga("sell")]
    await register_message_schemas(database.transaction, sagas, settings, Emitter(recorder))
    (found,) = recorder.matching(SchemaBroken)
    assert "buy/reserve would have more than 2 registered schemas" in found.problem
    async with database.transaction() as tx:
        assert [each.subject for each in await registry.read(tx)] == [
            *("buy/reserve", "buy/reserve", "sell/reserve")
        ]
