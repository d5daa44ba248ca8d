"""Two engines with two databases on one virtual host by mistake: slow, said, and no harm."""

from datetime import timedelta

from saga_engine.saga.retry import Retry
from saga_engine.settings import Settings
from saga_engine.store import dead_letters
from saga_engine.store.database import Database
from saga_engine.telemetry.events import MessageDeadLettered, RunStarted
from tests.worker.engine import engine_on
from tests.worker.parcels import parcels
from tests.worker.promises import check_promises

STUBBORN = Retry(attempts=50, initial=timedelta(milliseconds=1), maximum=timedelta(milliseconds=1))
SOON = timedelta(milliseconds=300)
RUNS = 6


async def test_a_reply_that_reaches_the_wrong_engine_is_set_aside_and_asked_for_again(
    broker_url, migrated_url, postgres, migrated_template
):
    other_url = await postgres.create_database("shared_other", template=migrated_template)
    saga = parcels(timeout=SOON, retry=STUBBORN)
    async with engine_on(broker_url, migrated_url) as engine:
        one = await engine.worker(saga)
        two = await engine.worker(saga, database_url=other_url)
        await engine.shop()
        asker = await engine.asker()
        runs = {await asker.start() for _ in range(RUNS)}
        await one.facts.until(MessageDeadLettered, 3)
        await two.facts.until(MessageDeadLettered, 3)
        started = [{each.run_id for each in worker.facts.of(RunStarted)} for worker in (one, two)]
        assert started[0] | started[1] == runs  # whoever takes a request has the run
        assert not started[0] & started[1]
        for url in (migrated_url, other_url):
            async with Database(url, Settings()) as database:
                await check_promises(database, settled=False)
                async with database.transaction() as tx:
                    letters = await dead_letters.listing(tx, limit=100)
                assert {each.letter.reason for each in letters} == {"foreign_correlation_id"}
        [told, *_] = one.facts.of(MessageDeadLettered)
        assert "another engine" in told.problem
    await postgres.drop_database("shared_other")
