"""
What PostgreSQL does: it dies, restarts, ends sessions, takes none, takes no writes, is replaced.

Workers and participants share the server, so each of these is done to both. That it came about is
read from the server's log and from what the processes print.
"""

import os
import signal
from contextlib import AsyncExitStack
from functools import partial

import asyncpg

from tests.faults.environment import OTHER_ROLE, ROLE, asyncpg_url
from tests.faults.fault import POSTGRESQL, RESTART_RESUME_LIMIT_S, Fault
from tests.faults.log_watcher import expect_logged
from tests.faults.standby import standby
from tests.faults.tablespace import UNAVAILABLE_REASON, Tablespace
from tests.kit.programs import sleep, wait_until_true

TERMINATED_MESSAGE = "terminating connection due to administrator command"


async def kill(environment, random):
    """As a power cut: the server recovers from its log when it starts again."""
    async with expect_logged(environment, server="automatic recovery in progress"):
        environment.postgres.kill()
        await sleep(random.uniform(0.5, 2.0))
        await environment.postgres.restart()
        return await environment.now()


async def restart(environment, _random):
    async with expect_logged(environment, server="received fast shutdown request"):
        await environment.postgres.restart()
        return await environment.now()


async def restart_again_and_again(environment, random):
    """Every few seconds, and without a farewell: `immediate` means recovery every time."""
    async with expect_logged(environment, server="received immediate shutdown request"):
        for _ in range(4):
            await sleep(random.uniform(2.0, 4.0))
            os.kill(environment.postgres.pid, signal.SIGQUIT)
            await environment.postgres.restart()
        return await environment.now()


async def end_every_session(environment, _random):
    async with expect_logged(environment, server=TERMINATED_MESSAGE):
        assert await _end_sessions(environment, 1.0) > 0
        return await environment.now()


async def end_sessions_again_and_again(environment, random):
    """Half of the sessions, wherever they are in a transaction, some times a second."""
    async with expect_logged(
        environment, server=TERMINATED_MESSAGE, process="database.unavailable"
    ):
        for _ in range(20):
            await sleep(random.uniform(0.1, 0.4))
            await _end_sessions(environment, 0.5)
        return await environment.now()


async def _end_sessions(environment, share):
    return len(await environment.execute(_END, ROLE, share))


async def take_every_connection(environment, random):
    """A neighbour opens connections until there are none left, and those we had are ended."""
    async with AsyncExitStack() as held:
        await _limit(environment, 0)  # or we might be faster than the neighbour
        try:
            await _end_sessions(environment, 1.0)
            await _hold_all_connections(environment, held)
        finally:
            await _limit(environment, -1)
        async with expect_logged(environment, process="SQLSTATE 53300"):
            await sleep(random.uniform(2.0, 4.0))


async def _limit(environment, connections):
    await environment.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {connections}")


async def _hold_all_connections(environment, held):
    url = asyncpg_url(environment.plain(environment.engine_url, OTHER_ROLE))
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=5)
        except asyncpg.TooManyConnectionsError:
            return
        held.callback(connection.terminate)


async def read_only(environment, random):
    """As on a server that was made a standby of another one, and then the primary again."""
    async with expect_logged(environment, process="SQLSTATE 25006") as witness:
        await _set_writable(environment, allowed=False)
        try:
            await witness.wait_for_process_log("SQLSTATE 25006")
            await sleep(random.uniform(1.0, 4.0))
        finally:
            await _set_writable(environment, allowed=True)
        return await environment.now()


async def _set_writable(environment, *, allowed):
    change = "RESET default_transaction_read_only" if allowed else _READ_ONLY
    await environment.execute(f"ALTER SYSTEM {change}")
    await environment.execute("SELECT pg_reload_conf()")


async def lose_the_primary(environment, _random):
    """The primary dies and does not come back; its standby is promoted in its place."""
    async with standby(environment) as other:
        old = environment.postgres
        old.kill()
        await other.promote()
        environment.move(other.server)
        over = await environment.now()
    await old.__aexit__()
    return over


async def fail_over(environment, _random):
    """
    A standby is promoted, and the old primary goes on, but read-only.

    Nobody cuts the connections that lead to the old one: who notices must do that himself.
    """
    async with (
        standby(environment) as other,
        expect_logged(environment, process="SQLSTATE 25006") as witness,
    ):
        old = environment.postgres
        await _set_writable(environment, allowed=False)
        await _wait_for_writers_to_end(environment)
        await other.promote()
        environment.move(other.server)
        over = await environment.now()
        await witness.wait_for_process_log("SQLSTATE 25006")

        async def goes_on():
            [[completed]] = await environment.execute(_COMPLETED, over)
            return completed > 0

        try:
            await wait_until_true(goes_on, patience=20.0)
        except TimeoutError:
            raise AssertionError("nothing goes on while the old primary is read-only") from None
        finally:
            await old.__aexit__()
        return over


async def _wait_for_writers_to_end(environment):
    since = await environment.now()

    async def has_ended():
        [[writers]] = await environment.execute(_WRITERS, ROLE, since)
        return not writers

    await wait_until_true(has_ended)


async def fill_the_disk(environment, random):
    """The journal and the participants' ledger are on a disk of their own, which is full."""
    async with (
        Tablespace(environment) as space,
        expect_logged(environment, process="SQLSTATE 53100") as witness,
    ):
        space.fill()
        try:
            await witness.wait_for_process_log("SQLSTATE 53100")
            await sleep(random.uniform(2.0, 4.0))
        finally:
            space.free()
        return await environment.now()


async def point_at_dead_address(environment, _random):
    """Everybody's connections and new ones as well, for longer than anybody waits."""
    async with expect_logged(environment, process="did not answer in time"):
        for member in environment.members:
            member.database.black_hole()
        await sleep(20.0)
        for member in environment.members:
            member.database.heal()
        return await environment.now()


_END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = $1 AND application_name LIKE 'saga-engine%' AND random() < $2"""
_READ_ONLY = "SET default_transaction_read_only = on"
_WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND xact_start < $2"
_COMPLETED = """
    SELECT count(*) FROM saga_engine.run WHERE started_at > $1 AND status = 'completed'"""

restarted = partial(Fault, resume_limit_s=RESTART_RESUME_LIMIT_S)

FAULTS = (
    restarted(
        "PostgreSQL is killed and started",
        kill,
        times=2,
        ci_times=1,
        exclusive_resources=POSTGRESQL,
    ),
    restarted("PostgreSQL is restarted, fast", restart, times=1, exclusive_resources=POSTGRESQL),
    restarted("PostgreSQL is restarted every 3 s", restart_again_and_again, times=1),
    Fault(
        "every session is ended",
        end_every_session,
        times=2,
        ci_times=1,
        exclusive_resources=POSTGRESQL,
    ),
    Fault(
        "sessions are ended all the time",
        end_sessions_again_and_again,
        times=1,
        exclusive_resources=POSTGRESQL,
    ),
    Fault("PostgreSQL has no connections left", take_every_connection, times=1),
    Fault(
        "PostgreSQL is read-only for a while", read_only, times=1, exclusive_resources=POSTGRESQL
    ),
    restarted("the primary is lost, its standby promoted", lose_the_primary, times=1),
    restarted("the primary is read-only, its standby promoted", fail_over, times=1),
    Fault(
        "PostgreSQL has no space left",
        fill_the_disk,
        times=1,
        unavailable_reason=UNAVAILABLE_REASON,
    ),
    Fault("PostgreSQL leads nowhere for 20 s", point_at_dead_address, times=1),
)
