"""A consumer's event starts a run once: its id is the key of the run."""

from typing import Any

from saga_engine.client import start_in_transaction
from saga_engine.events import Consumer, Received, from_queue
from saga_engine.vocabulary import Status
from tests.kit.consumers import applying, order, registered_consumer
from tests.kit.event_database import connected
from tests.kit.greeter import ANN
from tests.kit.read_model import Placed

FORGET = "DELETE FROM saga_engine.consumed_event"


async def started_by(starts: Any, url: str) -> Any:
    """The handles of an event that takes effect twice, because its id was forgotten."""
    handles: list[Any] = []
    consumer = Consumer("billing", source=from_queue())

    @consumer.on(Placed)
    async def placed(_event: Placed, received: Received, connection: Any) -> None:
        handles.append(await starts(connection, str(received.id)))

    async with registered_consumer(url) as database, applying(database, consumer) as (batches, _):
        for _ in range(2):
            result = await batches.apply([order(1), order(1)])
            assert (result.applied, result.duplicates) == (1, 1)
            async with connected(url) as connection:
                await connection.execute(FORGET)
    return handles


async def test_a_run_is_started_in_the_transaction_of_its_event(settings, client, greeter):
    async def starts(connection: Any, key: str) -> Any:
        return await start_in_transaction(connection, "greet", ANN, key=key)

    first, again = await started_by(starts, settings.require_database_url())
    assert (first.existing, again.existing) == (False, True)
    assert (await client.result(first.run_id, timeout=20)).status is Status.COMPLETED
    assert greeter.greeted == ["Ann"]


async def test_a_run_is_started_over_the_broker(settings, client, greeter):
    async def starts(_connection: Any, key: str) -> Any:
        return await client.start("greet", ANN, key=key)

    first, again = await started_by(starts, settings.require_database_url())
    assert first.run_id == again.run_id
    await client.result(first.run_id, timeout=20)
    assert greeter.greeted == ["Ann"]
