"""
What happens to transactions: COMMIT's answer is lost, others lock what is needed, or undo it.

None of it needs a server in trouble: it is what neighbours in the same database do, and people who
change its tables while the engine runs.
"""

from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from tests.faults.environment import asyncpg_url
from tests.faults.fault import Fault
from tests.faults.log_watcher import expect_logged
from tests.kit.programs import sleep, wait_until_true

LOCK_SECONDS = 20.0  # Seconds, as long as the longest that the promise names.
LOCKED_RUNS = 20  # Runs that somebody else holds.
LOCK_TIMEOUT_MESSAGE = "canceling statement due to lock timeout"


async def lose_commit_answers(members, environment, random):
    """What was committed is committed, and who did it hears nothing but the end of a connection."""
    proxies = [member.database for member in members(environment)]
    before = sum(proxy.answers_lost for proxy in proxies)
    for share, seconds in ((0.1, 4.0), (1.0, 1.0)):
        for proxy in proxies:
            proxy.leave_unanswered(
                lambda asked, share=share: b"COMMIT" in asked and random.random() < share
            )
        await sleep(seconds)
    for proxy in proxies:
        proxy.heal()
    assert sum(proxy.answers_lost for proxy in proxies) > before, "no COMMIT was left unanswered"


async def lock_runs(environment, _random):
    """Somebody locks unfinished runs and thinks; all the others must go on meanwhile."""
    async with expect_logged(environment, server=LOCK_TIMEOUT_MESSAGE):
        async with _external_transaction(environment.engine_url) as foreign:
            since = await environment.now()

            async def has_some():
                return len(await foreign.fetch(_HOLD_RUNS, LOCKED_RUNS)) > 1

            await wait_until_true(has_some)
            await sleep(LOCK_SECONDS)
            await _wait_for_other_runs(environment, since)
        return await environment.now()


async def lock_journal(environment, _random):
    async with expect_logged(environment, server=LOCK_TIMEOUT_MESSAGE):
        async with _external_transaction(environment.engine_url) as foreign:
            await foreign.execute("LOCK TABLE saga_engine.event IN EXCLUSIVE MODE")
            await sleep(LOCK_SECONDS)
        return await environment.now()


async def lock_ledger(environment, _random):
    """What the participants write to, for longer than anybody waits for their reply."""
    async with _external_transaction(environment.shop_url) as foreign:
        await foreign.execute("LOCK TABLE ledger IN EXCLUSIVE MODE")
        await sleep(LOCK_SECONDS / 2)
        [[waiting]] = await environment.execute(_WAITING, url=environment.shop_url)
    assert waiting, "nobody waited for the table"


async def stay_in_a_transaction(environment, _random):
    """A report that takes its time: what was deleted since it began cannot be forgotten."""
    async with _external_transaction(
        environment.engine_url, isolation="repeatable_read"
    ) as foreign:
        since = await environment.now()
        await foreign.execute("SELECT pg_current_xact_id(), count(*) FROM saga_engine.event")
        await sleep(LOCK_SECONDS)
        [[held]] = await environment.execute(_HELD, foreign.get_server_pid())
        assert held, "the transaction holds nothing"
        await _wait_for_other_runs(environment, since)


async def lock_in_the_wrong_order(environment, _random):
    """Somebody locks the journal before the runs, and the engine the runs before the journal."""
    for _ in range(40):
        if await _has_deadlocked(environment):
            return
    raise AssertionError("no deadlock came about")


async def abort_transactions(environment, _random):
    """A share of them ends as by a serialization failure or a deadlock, some only at COMMIT."""
    async with expect_logged(environment, process="SQLSTATE 40001"):
        await environment.execute(_CREATE_FAILING_TRIGGER)
        await environment.execute(_CREATE_FAILING_TRIGGER, url=environment.shop_url)
        troubled = [(table, environment.engine_url) for table in ("run", "event", "outbox")]
        tables = [(f"saga_engine.{table}", url) for table, url in troubled]
        tables += [("ledger", environment.shop_url), ("saga_barrier", environment.shop_url)]
        for table, url in tables:
            await _retry_until_done(environment, _TROUBLE_STATEMENTS.format(table), url)
        await _retry_until_done(environment, _TROUBLE_COMMITS, environment.engine_url)
        await sleep(6.0)
        await _retry_until_done(
            environment,
            "DROP TRIGGER trouble_commits ON saga_engine.outbox",
            environment.engine_url,
        )
        for table, url in tables:
            await _retry_until_done(environment, f"DROP TRIGGER trouble ON {table}", url)
        over = await environment.now()
        for url in (environment.engine_url, environment.shop_url):
            await environment.execute("DROP FUNCTION trouble", url=url)
        return over


async def change_tables(environment, _random):
    """Columns and an index come and go while statements that know the table are prepared."""
    async with expect_logged(environment, process="SQLSTATE 0A000") as witness:
        for change, back in _CHANGES:
            await _retry_until_done(environment, change, environment.engine_url)
            await sleep(2.0)
            await _retry_until_done(environment, back, environment.engine_url)
        over = await environment.now()
        await witness.wait_for_process_log("SQLSTATE 0A000")
        return over


async def _has_deadlocked(environment):
    try:
        async with _external_transaction(environment.engine_url) as foreign:
            await foreign.execute("SET LOCAL deadlock_timeout = '50ms'")
            await foreign.execute("LOCK TABLE saga_engine.event IN EXCLUSIVE MODE")
            await sleep(0.4)  # in which batches lock their runs, and wait for the journal
            await foreign.execute(_LOCK_RUNS)
    except asyncpg.DeadlockDetectedError:
        return True
    return False


@asynccontextmanager
async def _external_transaction(url, isolation=None):
    """Somebody else's transaction."""
    connection = await asyncpg.connect(asyncpg_url(url), timeout=5)
    try:
        async with connection.transaction(isolation=isolation):
            yield connection
    finally:
        connection.terminate()


async def _wait_for_other_runs(environment, since):
    [[completed]] = await environment.execute(_COMPLETED, since)
    assert completed, "P7: nothing went on meanwhile"


async def _retry_until_done(environment, statement, url):
    """Change a table as one should where others work: wait a moment for it, and then again."""

    async def has_changed():
        try:
            await environment.execute(statement, url=url)
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
            return False
        return True

    await wait_until_true(has_changed)


# The newest: theirs are the replies that come next. The oldest may wait for nothing but the time.
_HOLD_RUNS = """
    SELECT run_id FROM saga_engine.run WHERE finished_at IS NULL
    ORDER BY run_id DESC LIMIT $1 FOR UPDATE"""
_LOCK_RUNS = "SELECT FROM saga_engine.run WHERE finished_at IS NULL FOR UPDATE"
_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
_HELD = "SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = $1"
_COMPLETED = """
    SELECT count(*) FROM saga_engine.run WHERE started_at > $1 AND status = 'completed'"""

_CREATE_FAILING_TRIGGER = """
    CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF random() < 0.1 THEN
            RAISE EXCEPTION 'it was asked for'
                USING ERRCODE = CASE WHEN random() < 0.5 THEN '40001' ELSE '40P01' END;
        END IF;
        RETURN NULL;
    END $$"""
_TROUBLE_STATEMENTS = """
    CREATE TRIGGER trouble AFTER INSERT OR UPDATE ON {}
    FOR EACH STATEMENT EXECUTE FUNCTION public.trouble()"""
_TROUBLE_COMMITS = """
    CREATE CONSTRAINT TRIGGER trouble_commits AFTER INSERT ON saga_engine.outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.trouble()"""
_CHANGES = (
    (
        "ALTER TABLE saga_engine.run ADD COLUMN added text",
        "ALTER TABLE saga_engine.run DROP COLUMN added",
    ),
    (
        "ALTER TABLE saga_engine.run ALTER COLUMN key TYPE varchar(4000)",
        "ALTER TABLE saga_engine.run ALTER COLUMN key TYPE text",
    ),
    (
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS added ON saga_engine.outbox (run_id)",
        "DROP INDEX CONCURRENTLY saga_engine.added",
    ),
)


def _workers(environment):
    return environment.workers


def _participants(environment):
    return environment.participants


FAULTS = (
    Fault("workers' COMMIT is not answered", partial(lose_commit_answers, _workers), times=2),
    Fault(
        "participants' COMMIT is not answered", partial(lose_commit_answers, _participants), times=1
    ),
    Fault("transactions are undone by the server", abort_transactions, times=1),
    Fault("somebody locks in the wrong order", lock_in_the_wrong_order, times=2),
    Fault("somebody holds runs for 20 s", lock_runs, times=1),
    Fault("somebody holds the journal for 20 s", lock_journal, times=1),
    Fault("somebody holds the ledger for 10 s", lock_ledger, times=1),
    Fault("somebody stays in a transaction for 20 s", stay_in_a_transaction, times=1),
    Fault("tables are changed while they are used", change_tables, times=1),
)
