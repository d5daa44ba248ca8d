"""
Faults of transactions: lost COMMIT answers, locks, deadlocks, aborts, altered tables.

The server itself works: other applications in the same database cause these, and administrators who
alter tables while the engine runs.
"""

from contextlib import asynccontextmanager
from functools import partial
from random import Random

import asyncpg

from tests.faults.environment import (
    FaultEnvironment,
    asyncpg_url,
    participants_of,
    projectors_of,
    workers_of,
)
from tests.faults.event_workload import HELD
from tests.faults.fault import Fault
from tests.faults.log_watcher import expect_logged
from tests.kit.programs import sleep, wait_until_true

LOCK_SECONDS = 20.0  # The longest lock that the promise covers.
LOCKED_RUNS = 20  # Runs that another transaction locks.
LOCK_TIMEOUT_MESSAGE = "canceling statement due to lock timeout"


async def lose_commit_answers(members, environment: FaultEnvironment, random: Random):
    """Cut connections between a COMMIT and its answer, so that its outcome is unknown."""
    proxies = [member.database_proxy for member in members(environment)]
    before = sum(proxy.lost_answers for proxy in proxies)
    for share, seconds in ((0.1, 4.0), (1.0, 1.0)):
        for proxy in proxies:
            proxy.cut_before_answer(
                lambda request, share=share: b"COMMIT" in request and random.random() < share
            )
        await sleep(seconds)
    for proxy in proxies:
        proxy.clear_faults()
    assert sum(proxy.lost_answers for proxy in proxies) > before, "no COMMIT answer was lost"


async def lock_runs(environment: FaultEnvironment, _random: Random):
    """Another transaction locks unfinished runs; all other runs must continue."""
    async with expect_logged(environment, server=LOCK_TIMEOUT_MESSAGE):
        async with _external_transaction(environment.engine_url) as other:
            since = await environment.database_now()

            async def has_locked():
                return len(await other.fetch(_LOCK_NEWEST_RUNS, LOCKED_RUNS)) > 1

            await wait_until_true(has_locked)
            await sleep(LOCK_SECONDS)
            await _wait_for_other_runs(environment, since)
        return await environment.database_now()


async def lock_journal(environment: FaultEnvironment, _random: Random):
    async with expect_logged(environment, server=LOCK_TIMEOUT_MESSAGE):
        async with _external_transaction(environment.engine_url) as other:
            await other.execute("LOCK TABLE saga_engine.journal IN EXCLUSIVE MODE")
            await sleep(LOCK_SECONDS)
        return await environment.database_now()


async def lock_effect_log(environment: FaultEnvironment, _random: Random):
    """Lock the table of the participants, for longer than the timeout of their commands."""
    async with _external_transaction(environment.engine_url) as other:
        await other.execute("LOCK TABLE effect_log IN EXCLUSIVE MODE")
        await sleep(LOCK_SECONDS / 2)
        [[waiting]] = await environment.execute(_WAITING)
    assert waiting, "no transaction waited for the table"


async def hold_snapshot(environment: FaultEnvironment, _random: Random):
    """Keep a snapshot open, like a long report: vacuum cannot remove deleted rows."""
    async with _external_transaction(environment.engine_url, isolation="repeatable_read") as other:
        since = await environment.database_now()
        await other.execute("SELECT pg_current_xact_id(), count(*) FROM saga_engine.journal")
        await sleep(LOCK_SECONDS)
        [[has_snapshot]] = await environment.execute(_HAS_SNAPSHOT, other.get_server_pid())
        assert has_snapshot, "the transaction has no snapshot"
        await _wait_for_other_runs(environment, since)


async def hold_position(environment: FaultEnvironment, random: Random):
    """Another application appends and ends later: readers of all events wait for it."""
    async with _external_transaction(environment.engine_url) as other:
        since = await environment.database_now()
        [[held]] = await other.fetch(_APPEND, f"held-{random.getrandbits(64)}")
        await sleep(LOCK_SECONDS / 2)
        passed = await environment.execute(_PASSED, held)
        assert not passed, f"E2: {passed} passed position {held}, which is not committed"
        await _wait_for_other_runs(environment, since)


async def lock_in_the_opposite_order(environment: FaultEnvironment, _random: Random):
    """Cause deadlocks: another transaction locks the journal before the runs."""
    for _ in range(40):
        if await _has_deadlocked(environment):
            return
    raise AssertionError("there was no deadlock")


async def abort_transactions(environment: FaultEnvironment, _random: Random):
    """Abort a share of them with a serialization failure or deadlock, some at COMMIT."""
    async with expect_logged(environment, process="SQLSTATE 40001"):
        await environment.execute(_CREATE_FAILING_TRIGGER)
        for table in _ABORTED_TABLES:
            await _retry_until_done(environment, _CREATE_STATEMENT_TRIGGER.format(table))
        await _retry_until_done(environment, _CREATE_COMMIT_TRIGGER)
        await sleep(6.0)
        await _retry_until_done(environment, "DROP TRIGGER fail_commits ON saga_engine.outbox")
        for table in _ABORTED_TABLES:
            await _retry_until_done(environment, f"DROP TRIGGER fail_statements ON {table}")
        over = await environment.database_now()
        await environment.execute("DROP FUNCTION fail_randomly")
        return over


async def change_tables(environment: FaultEnvironment, _random: Random):
    """Alter columns and an index while prepared statements use the table."""
    async with expect_logged(environment, process="SQLSTATE 0A000") as logs:
        for change, back in _CHANGES:
            await _retry_until_done(environment, change)
            await sleep(2.0)
            await _retry_until_done(environment, back)
        over = await environment.database_now()
        await logs.wait_for_process_log("SQLSTATE 0A000")
        return over


async def _has_deadlocked(environment: FaultEnvironment):
    try:
        async with _external_transaction(environment.engine_url) as other:
            await other.execute("SET LOCAL deadlock_timeout = '50ms'")
            await other.execute("LOCK TABLE saga_engine.journal IN EXCLUSIVE MODE")
            await sleep(0.4)  # in which batches lock their runs, and wait for the journal
            await other.execute(_LOCK_RUNS)
    except asyncpg.DeadlockDetectedError:
        return True
    return False


@asynccontextmanager
async def _external_transaction(url, isolation=None):
    """A transaction of another application."""
    connection = await asyncpg.connect(asyncpg_url(url), timeout=5)
    try:
        async with connection.transaction(isolation=isolation):
            yield connection
    finally:
        connection.terminate()


async def _wait_for_other_runs(environment: FaultEnvironment, since):
    [[completed]] = await environment.execute(_COMPLETED, since)
    assert completed, "P7: no other run completed"


async def _retry_until_done(environment: FaultEnvironment, statement):
    """Alter a table while others use it: with a lock timeout, and retries."""

    async def has_changed():
        try:
            await environment.execute(statement)
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
            return False
        return True

    await wait_until_true(has_changed)


_ABORTED_TABLES = (
    *("saga_engine.run", "saga_engine.journal", "saga_engine.outbox"),
    *("effect_log", "saga_barrier"),
    *("saga_engine.stream_event", "saga_engine.projection", "saga_engine.feed", "event_record"),
)

# The newest runs, whose replies come next. The oldest may only wait for a timer.
_LOCK_NEWEST_RUNS = """
    SELECT run_id FROM saga_engine.run WHERE finished_at IS NULL
    ORDER BY run_id DESC LIMIT $1 FOR UPDATE"""
_LOCK_RUNS = "SELECT FROM saga_engine.run WHERE finished_at IS NULL FOR UPDATE"
_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
_HAS_SNAPSHOT = "SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = $1"
_APPEND = f"""
    INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
    VALUES ($1, 1, '{HELD}', 1, '{{}}', '{{}}') RETURNING position"""
_PASSED = """
    SELECT name FROM saga_engine.projection WHERE position >= $1
    UNION ALL SELECT name FROM saga_engine.feed WHERE position >= $1"""
_COMPLETED = """
    SELECT count(*) FROM saga_engine.run WHERE started_at > $1 AND status = 'completed'"""

_CREATE_FAILING_TRIGGER = """
    CREATE FUNCTION fail_randomly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF random() < 0.1 THEN
            RAISE EXCEPTION 'the fault suite wants it'
                USING ERRCODE = CASE WHEN random() < 0.5 THEN '40001' ELSE '40P01' END;
        END IF;
        RETURN NULL;
    END $$"""
_CREATE_STATEMENT_TRIGGER = """
    CREATE TRIGGER fail_statements AFTER INSERT OR UPDATE ON {}
    FOR EACH STATEMENT EXECUTE FUNCTION public.fail_randomly()"""
_CREATE_COMMIT_TRIGGER = """
    CREATE CONSTRAINT TRIGGER fail_commits AFTER INSERT ON saga_engine.outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.fail_randomly()"""
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


FAULTS = (
    Fault("COMMIT answers of workers are lost", partial(lose_commit_answers, workers_of), times=2),
    Fault(
        "COMMIT answers of participants are lost",
        partial(lose_commit_answers, participants_of),
        times=1,
    ),
    Fault(
        "COMMIT answers of projectors are lost",
        partial(lose_commit_answers, projectors_of),
        times=1,
    ),
    Fault("the server aborts transactions", abort_transactions, times=1),
    Fault("locks in the opposite order", lock_in_the_opposite_order, times=2),
    Fault("runs locked for 20 s", lock_runs, times=1),
    Fault("the journal locked for 20 s", lock_journal, times=1),
    Fault("the effect log locked for 10 s", lock_effect_log, times=1),
    Fault("a snapshot held for 20 s", hold_snapshot, times=1),
    Fault("an appended event not committed for 10 s", hold_position, times=1, ci_times=1),
    Fault("tables altered while in use", change_tables, times=1),
)
