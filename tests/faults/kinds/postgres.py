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

from tests.faults.fault import POSTGRESQL, RESTART_RESUMES_S, Fault
from tests.faults.processes import eventually, lasting
from tests.faults.site import NEIGHBOUR, ROLE, plainly
from tests.faults.standby import standby
from tests.faults.tablespace import OBSTACLE, Tablespace
from tests.faults.witness import witnessed

ENDED = "terminating connection due to administrator command"


async def kill(site, random):
    """As a power cut: the server recovers from its log when it starts again."""
    async with witnessed(site, server="automatic recovery in progress"):
        site.postgres.kill()
        await lasting(random.uniform(0.5, 2.0))
        await site.postgres.restart()
        return await site.now()


async def restart(site, _random):
    async with witnessed(site, server="received fast shutdown request"):
        await site.postgres.restart()
        return await site.now()


async def restart_again_and_again(site, random):
    """Every few seconds, and without a farewell: `immediate` means recovery every time."""
    async with witnessed(site, server="received immediate shutdown request"):
        for _ in range(4):
            await lasting(random.uniform(2.0, 4.0))
            os.kill(site.postgres.pid, signal.SIGQUIT)
            await site.postgres.restart()
        return await site.now()


async def end_every_session(site, _random):
    async with witnessed(site, server=ENDED):
        assert await _end_sessions(site, 1.0) > 0
        return await site.now()


async def end_sessions_again_and_again(site, random):
    """Half of the sessions, wherever they are in a transaction, some times a second."""
    async with witnessed(site, server=ENDED, process="database.troubled"):
        for _ in range(20):
            await lasting(random.uniform(0.1, 0.4))
            await _end_sessions(site, 0.5)
        return await site.now()


async def _end_sessions(site, share):
    return len(await site.execute(_END, ROLE, share))


async def take_every_connection(site, random):
    """A neighbour opens connections until there are none left, and those we had are ended."""
    async with AsyncExitStack() as held:
        await _limit(site, 0)  # or we might be faster than the neighbour
        try:
            await _end_sessions(site, 1.0)
            await _hold_all_there_are(site, held)
        finally:
            await _limit(site, -1)
        async with witnessed(site, process="SQLSTATE 53300"):
            await lasting(random.uniform(2.0, 4.0))


async def _limit(site, connections):
    await site.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {connections}")


async def _hold_all_there_are(site, held):
    url = plainly(site.plain(site.engine_url, NEIGHBOUR))
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=5)
        except asyncpg.TooManyConnectionsError:
            return
        held.callback(connection.terminate)


async def read_only(site, random):
    """As on a server that was made a standby of another one, and then the primary again."""
    async with witnessed(site, process="SQLSTATE 25006") as witness:
        await _let_write(site, allowed=False)
        try:
            await witness.process_says("SQLSTATE 25006")
            await lasting(random.uniform(1.0, 4.0))
        finally:
            await _let_write(site, allowed=True)
        return await site.now()


async def _let_write(site, *, allowed):
    change = "RESET default_transaction_read_only" if allowed else _READ_ONLY
    await site.execute(f"ALTER SYSTEM {change}")
    await site.execute("SELECT pg_reload_conf()")


async def lose_the_primary(site, _random):
    """The primary dies and does not come back; its standby is promoted in its place."""
    async with standby(site) as other:
        old = site.postgres
        old.kill()
        await other.promote()
        site.move(other.server)
        over = await site.now()
    await old.__aexit__()
    return over


async def change_the_primary(site, _random):
    """
    A standby is promoted, and the old primary goes on, but read-only.

    Nobody cuts the connections that lead to the old one: who notices must do that himself.
    """
    async with standby(site) as other, witnessed(site, process="SQLSTATE 25006") as witness:
        old = site.postgres
        await _let_write(site, allowed=False)
        await _every_writer_has_ended(site)
        await other.promote()
        site.move(other.server)
        over = await site.now()
        await witness.process_says("SQLSTATE 25006")

        async def goes_on():
            [[completed]] = await site.execute(_COMPLETED, over)
            return completed > 0

        try:
            await eventually(goes_on, patience=20.0)
        except TimeoutError:
            raise AssertionError("nothing goes on while the old primary is read-only") from None
        finally:
            await old.__aexit__()
        return over


async def _every_writer_has_ended(site):
    since = await site.now()

    async def has_ended():
        [[writers]] = await site.execute(_WRITERS, ROLE, since)
        return not writers

    await eventually(has_ended)


async def fill_the_disk(site, random):
    """The journal and the participants' ledger are on a disk of their own, which is full."""
    async with Tablespace(site) as space, witnessed(site, process="SQLSTATE 53100") as witness:
        space.fill()
        try:
            await witness.process_says("SQLSTATE 53100")
            await lasting(random.uniform(2.0, 4.0))
        finally:
            space.free()
        return await site.now()


async def lead_nowhere(site, _random):
    """Everybody's connections and new ones as well, for longer than anybody waits."""
    async with witnessed(site, process="did not answer in time"):
        for member in site.members:
            member.database.black_hole()
        await lasting(20.0)
        for member in site.members:
            member.database.heal()
        return await site.now()


_END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = $1 AND application_name LIKE 'saga-engine%' AND random() < $2"""
_READ_ONLY = "SET default_transaction_read_only = on"
_WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND xact_start < $2"
_COMPLETED = """
    SELECT count(*) FROM saga_engine.run WHERE started_at > $1 AND status = 'completed'"""

restarted = partial(Fault, resumes_s=RESTART_RESUMES_S)

FAULTS = (
    restarted("PostgreSQL is killed and started", kill, times=2, few=1, mixes=POSTGRESQL),
    restarted("PostgreSQL is restarted, fast", restart, times=1, mixes=POSTGRESQL),
    restarted("PostgreSQL is restarted every 3 s", restart_again_and_again, times=1),
    Fault("every session is ended", end_every_session, times=2, few=1, mixes=POSTGRESQL),
    Fault(
        "sessions are ended all the time", end_sessions_again_and_again, times=1, mixes=POSTGRESQL
    ),
    Fault("PostgreSQL has no connections left", take_every_connection, times=1),
    Fault("PostgreSQL is read-only for a while", read_only, times=1, mixes=POSTGRESQL),
    restarted("the primary is lost, its standby promoted", lose_the_primary, times=1),
    restarted("the primary is read-only, its standby promoted", change_the_primary, times=1),
    Fault("PostgreSQL has no space left", fill_the_disk, times=1, obstacle=OBSTACLE),
    Fault("PostgreSQL leads nowhere for 20 s", lead_nowhere, times=1),
)
