"""Two engines with two databases on one virtual host by mistake: slow, said, and no harm."""

from datetime import timedelta

from saga_engine.saga.retry import Retry
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.telemetry.events import MessageDeadLettered, RunStarted
from tests.kit.engine import engine_harness
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises

STUBBORN = Retry(attempts=50, initial=timedelta(milliseconds=1), maximum=timedelta(milliseconds=1))
SOON = timedelta(milliseconds=300)
RUNS = 6


async def test_a_reply_to_the_wrong_engine_is_dead_lettered_and_requested_again(
    broker_url, migrated_url, postgres, migrated_template
):
    other_url = await postgres.create_database("shared_other", template=migrated_template)
    saga = parcels(timeout=SOON, retry=STUBBORN)
    async with engine_harness(broker_url, migrated_url) as engine:
        one = await engine.start_worker(saga)
        two = await engine.start_worker(saga, database_url=other_url)
        await engine.start_participant()
        asker = await engine.connect_client()
        runs = {await asker.start() for _ in range(RUNS)}
        await one.events.wait_for(MessageDeadLettered, 3)
        await two.events.wait_for(MessageDeadLettered, 3)
        started = [
            {each.run_id for each in worker.events.matching(RunStarted)} for worker in (one, two)
        ]
        assert started[0] | started[1] == runs  # the engine that takes a request has the run
        assert not started[0] & started[1]
        for url in (migrated_url, other_url):
            async with Database(url, Settings()) as database:
                await check_promises(database, settled=False)
                async with database.transaction() as tx:
                    letters = await dead_letter_queries.read_page(tx, limit=100)
                assert {each.message.reason for each in letters} == {"uncorrelated_reply"}
        [event, *_] = one.events.matching(MessageDeadLettered)
        assert "another engine" in event.problem
    await postgres.drop_database("shared_other")
