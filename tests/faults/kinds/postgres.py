"""
Faults of PostgreSQL: crash, restart, terminated sessions, read-only mode, failover, full disk.

Workers and participants share the server, so each fault affects both. The logs of the server and of
the processes show that it had an effect.
"""

import os
import signal
from contextlib import AsyncExitStack
from functools import partial
from random import Random

import asyncpg

from tests.faults.environment import OTHER_ROLE, ROLE, FaultEnvironment, asyncpg_url
from tests.faults.fault import POSTGRESQL, RESTART_RESUME_LIMIT_S, Fault
from tests.faults.log_watcher import expect_logged
from tests.faults.standby import standby
from tests.faults.tablespace import UNAVAILABLE_REASON, Tablespace
from tests.kit.programs import sleep, wait_until_true

TERMINATED_MESSAGE = "terminating connection due to administrator command"


async def kill(environment: FaultEnvironment, random: Random):
    """SIGKILL, like a power cut: the server recovers from its WAL when it starts again."""
    async with expect_logged(environment, server="automatic recovery in progress"):
        environment.postgres.kill()
        await sleep(random.uniform(0.5, 2.0))
        await environment.postgres.restart()
        return await environment.database_now()


async def restart(environment: FaultEnvironment, _random: Random):
    async with expect_logged(environment, server="received fast shutdown request"):
        await environment.postgres.restart()
        return await environment.database_now()


async def restart_again_and_again(environment: FaultEnvironment, random: Random):
    """Restart in mode `immediate` every few seconds, so that each start is a recovery."""
    async with expect_logged(environment, server="received immediate shutdown request"):
        for _ in range(4):
            await sleep(random.uniform(2.0, 4.0))
            os.kill(environment.postgres.pid, signal.SIGQUIT)
            await environment.postgres.restart()
        return await environment.database_now()


async def end_every_session(environment: FaultEnvironment, _random: Random):
    async with expect_logged(environment, server=TERMINATED_MESSAGE):
        assert await _end_sessions(environment, 1.0) > 0
        return await environment.database_now()


async def end_sessions_again_and_again(environment: FaultEnvironment, random: Random):
    """Terminate half of the sessions several times a second."""
    async with expect_logged(
        environment, server=TERMINATED_MESSAGE, process="database.unavailable"
    ):
        for _ in range(20):
            await sleep(random.uniform(0.1, 0.4))
            await _end_sessions(environment, 0.5)
        return await environment.database_now()


async def _end_sessions(environment: FaultEnvironment, share):
    return len(await environment.execute(_END, ROLE, share))


async def take_every_connection(environment: FaultEnvironment, random: Random):
    """Another application takes all connections after those of the engine were terminated."""
    async with AsyncExitStack() as held:
        await _limit(environment, 0)  # so that the engine does not reconnect first
        try:
            await _end_sessions(environment, 1.0)
            await _hold_all_connections(environment, held)
        finally:
            await _limit(environment, -1)
        async with expect_logged(environment, process="SQLSTATE 53300"):
            await sleep(random.uniform(2.0, 4.0))


async def _limit(environment: FaultEnvironment, connections):
    await environment.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {connections}")


async def _hold_all_connections(environment: FaultEnvironment, held):
    url = asyncpg_url(environment.as_role(environment.engine_url, OTHER_ROLE))
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=5)
        except asyncpg.TooManyConnectionsError:
            return
        held.callback(connection.terminate)


async def read_only(environment: FaultEnvironment, random: Random):
    """Make the server read-only for a while, like a demoted primary."""
    async with expect_logged(environment, process="SQLSTATE 25006") as logs:
        await _set_writable(environment, allowed=False)
        try:
            await logs.wait_for_process_log("SQLSTATE 25006")
            await sleep(random.uniform(1.0, 4.0))
        finally:
            await _set_writable(environment, allowed=True)
        return await environment.database_now()


async def _set_writable(environment: FaultEnvironment, *, allowed):
    change = "RESET default_transaction_read_only" if allowed else _READ_ONLY
    await environment.execute(f"ALTER SYSTEM {change}")
    await environment.execute("SELECT pg_reload_conf()")


async def lose_the_primary(environment: FaultEnvironment, _random: Random):
    """The primary crashes for good, and its standby is promoted."""
    async with standby(environment) as other:
        old = environment.postgres
        old.kill()
        await other.promote()
        environment.switch_postgres(other.server)
        over = await environment.database_now()
    await old.__aexit__()
    return over


async def fail_over(environment: FaultEnvironment, _random: Random):
    """
    A standby is promoted, and the old primary continues, but read-only.

    Connections to the old primary stay open: processes must detect that and reconnect.
    """
    async with (
        standby(environment) as other,
        expect_logged(environment, process="SQLSTATE 25006") as logs,
    ):
        old = environment.postgres
        await _set_writable(environment, allowed=False)
        await _wait_for_writers_to_end(environment)
        await other.promote()
        environment.switch_postgres(other.server)
        over = await environment.database_now()
        await logs.wait_for_process_log("SQLSTATE 25006")

        async def has_resumed():
            [[completed]] = await environment.execute(_COMPLETED, over)
            return completed > 0

        try:
            await wait_until_true(has_resumed, patience=20.0)
        except TimeoutError:
            raise AssertionError("no run completes while the old primary is read-only") from None
        finally:
            await old.__aexit__()
        return over


async def _wait_for_writers_to_end(environment: FaultEnvironment):
    since = await environment.database_now()

    async def has_ended():
        [[writers]] = await environment.execute(_WRITERS, ROLE, since)
        return not writers

    await wait_until_true(has_ended)


async def fill_the_disk(environment: FaultEnvironment, random: Random):
    """Fill the disk of tables that grow: of runs, of effects and of events."""
    async with (
        Tablespace(environment) as space,
        expect_logged(environment, process="SQLSTATE 53100") as logs,
    ):
        space.fill()
        try:
            await logs.wait_for_process_log("SQLSTATE 53100")
            await sleep(random.uniform(2.0, 4.0))
        finally:
            space.free()
        return await environment.database_now()


async def point_at_dead_address(environment: FaultEnvironment, _random: Random):
    """Drop all data of open and new connections, for longer than every timeout."""
    async with expect_logged(environment, process="did not answer in time"):
        for member in environment.processes:
            member.database_proxy.drop_all_data()
        await sleep(20.0)
        for member in environment.processes:
            member.database_proxy.clear_faults()
        return await environment.database_now()


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
        "every session is terminated",
        end_every_session,
        times=2,
        ci_times=1,
        exclusive_resources=POSTGRESQL,
    ),
    Fault(
        "sessions are terminated continuously",
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
    Fault("PostgreSQL does not answer for 20 s", point_at_dead_address, times=1),
)
