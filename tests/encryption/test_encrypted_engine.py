"""With a codec no payload is in clear text in PostgreSQL, RabbitMQ or telemetry."""

from hashlib import sha256

import orjson
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.client import Client, start_in_transaction
from saga_engine.errors import InvalidInput
from saga_engine.participant import barrier
from saga_engine.settings import Settings
from saga_engine.telemetry.events import IncidentOpened
from saga_engine.vocabulary import Status
from tests.encryption.card_saga import (
    SECRET,
    CardParticipant,
    Order,
    all_written_rows,
    contains_secret,
    order_saga,
    record_all_writes,
    wire_tap,
)
from tests.kit.encryption_keys import encryption_settings
from tests.kit.engine import engine_harness
from tests.kit.participant_service import running_service

CARRIERS = ("saga.commands", "saga.replies", "saga.requests", "saga.events")
DIGEST = sha256(orjson.dumps({"card": SECRET, "scenario": "fine"})).hexdigest()
"""What would do to look whether the input was a guessed one."""

KEEPERS = (
    *(
        "saga_engine.run",
        "saga_engine.journal",
        "saga_engine.outbox",
        "saga_engine.pending_request",
    ),
    *("saga_engine.dead_letter", "saga_barrier"),
)


@pytest.fixture
async def engine(rabbitmq_url, migrated_url):
    own = create_async_engine(migrated_url)
    await barrier.create_table(own)
    await own.dispose()
    async with engine_harness(rabbitmq_url, migrated_url) as engine:
        await record_all_writes(engine.database)
        yield engine


async def everything_happens(engine, encrypted):
    """A run of each kind, from each kind of caller; what they leave behind."""
    worker = await engine.start_worker(order_saga(), **encrypted)
    own = Settings(broker_url=engine.broker_url, **encrypted)
    shop = CardParticipant(engine.database_url)
    async with (
        running_service(engine.broker_url, shop, **encrypted) as service,
        wire_tap(engine.broker_url) as tap,
        Client(settings=own) as client,
    ):
        runs = {
            mood: await client.start("order", Order(scenario=mood), key=mood)
            for mood in ("fine", "declined", "failing", "raising")
        }
        async with engine.database.transaction() as tx:
            recorded = await start_in_transaction(
                tx.connection, "order", Order(), key="recorded", settings=own
            )
        with pytest.raises(InvalidInput):
            await client.start("order", {"card": [SECRET]})
        endings = {
            mood: await client.result(runs[mood].run_id, timeout=30)
            for mood in ("fine", "declined", "failing")
        }
        await client.result(recorded.run_id, timeout=30)
        await worker.events.wait_for(IncidentOpened, cause="mapping_failed")
        await worker.events.wait_for_dead_letter("invalid_input")
    emitted = [*map(repr, worker.events), *map(repr, service.events)]
    return endings, tap.messages, await all_written_rows(engine.database), emitted


async def test_no_payload_is_in_clear_text_in_any_table_queue_or_log(engine):
    endings, carried, written, emitted = await everything_happens(engine, encryption_settings("k1"))
    assert endings["fine"].status == Status.COMPLETED
    assert endings["fine"].result == {
        "reserve": {"number": SECRET},
        "charge": {"number": SECRET},
    }
    assert (endings["declined"].error.code, endings["declined"].error.details) == (
        *("declined", {"card": SECRET}),
    )
    assert endings["failing"].error.message == f"Where is {SECRET}?"
    for exchange in CARRIERS:
        assert carried[exchange]
        assert not contains_secret(carried[exchange]), exchange
    assert written.keys() >= {*KEEPERS}
    for table, rows in written.items():
        assert not contains_secret(rows), table
    assert not contains_secret(emitted)
    assert not contains_secret(written["saga_engine.business_key"], DIGEST)


async def test_without_a_codec_the_same_checks_find_every_payload(engine):
    _, carried, written, _ = await everything_happens(engine, {})
    assert [exchange for exchange in CARRIERS if not contains_secret(carried[exchange])] == []
    assert [table for table in KEEPERS if not contains_secret(written[table])] == []
    assert contains_secret(written["saga_engine.business_key"], DIGEST)
