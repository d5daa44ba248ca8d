"""
Faults of projectors: the process that runs a projection or a feed is killed, stopped or crashes.

Of the two projectors one has the lease. A fault hits that one, so the other must take over. So it
is with the read models, which the workers run.
"""

import asyncio
import signal
from functools import partial
from random import Random

from tests.faults.crash_points import PROJECTOR_CRASH_POINTS, READ_MODEL_CRASH_POINTS
from tests.faults.environment import FaultEnvironment, ManagedProcess, projectors_of, workers_of
from tests.faults.fault import PROJECTORS, Fault
from tests.faults.kinds.processes import CRASH_TIMEOUT_S, MAX_CALLS
from tests.kit.programs import EXIT_UNAVAILABLE, sleep, wait_until_true

REPEATED_KILLS = 8
BEYOND_LEASE_S = (6.0, 8.0)  # The setting projection_lease is 5 s.


async def _owner(environment: FaultEnvironment, random: Random) -> ManagedProcess:
    """The process that runs one of the projections and feeds now, chosen at random."""
    by_pid = {each.program.pid: each for each in environment.projectors}
    found: list[ManagedProcess] = []

    async def has_owner():
        rows = await environment.execute(_OWNERS)
        pids = (int(row["owner"].split(":")[1]) for row in rows)
        found[:] = [by_pid[pid] for pid in pids if pid in by_pid]
        return bool(found)

    await wait_until_true(has_owner)
    return random.choice(found)


async def kill(environment: FaultEnvironment, random: Random):
    member = await _owner(environment, random)
    await member.program.kill()
    over = await environment.database_now()
    await member.wait_until_ready()
    return over


async def kill_again_and_again(environment: FaultEnvironment, random: Random):
    """Kill a projector every 0.2 to 2 s, ready or not."""
    for _ in range(REPEATED_KILLS):
        await sleep(random.uniform(0.2, 2.0))
        await random.choice(environment.projectors).program.kill()
    over = await environment.database_now()
    for member in environment.projectors:
        await member.wait_until_ready()
    return over


async def pause(environment: FaultEnvironment, random: Random):
    """SIGSTOP until another process has its lease; after SIGCONT it believes to have it."""
    member = await _owner(environment, random)
    member.program.signal(signal.SIGSTOP)
    await sleep(random.uniform(*BEYOND_LEASE_S))
    stopped = member.program.is_stopped()
    member.program.signal(signal.SIGCONT)
    assert stopped, "it was not stopped"


async def shut_down(environment: FaultEnvironment, random: Random):
    """SIGTERM: the process must exit with 0, and its leases end."""
    member = await _owner(environment, random)
    code = await member.program.terminate()
    assert code in (0, EXIT_UNAVAILABLE), (
        f"P7: {member.program} exited after SIGTERM with {code}: {member.program.tail}"
    )
    await member.program.start()
    over = await environment.database_now()
    await member.wait_until_ready()
    return over


async def crash(processes, crash_point, environment: FaultEnvironment, random: Random):
    """Start processes that kill themselves at a crash point, until one has; then others."""
    crash_at = f"{crash_point}:{random.randint(1, MAX_CALLS)}"
    members = processes(environment)
    for member in members:
        await member.program.kill(crash_at=crash_at)
    waiting = [member.program.wait_for_crash(patience=CRASH_TIMEOUT_S) for member in members]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in waiting]
            done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in others:
                each.cancel()
            crashed = any(each.result() for each in done)
    finally:
        for member in members:
            await member.program.cancel_crash()
    over = await environment.database_now()
    for member in members:
        await member.wait_until_ready()
    assert crashed, f"{crash_point} was not reached in {CRASH_TIMEOUT_S:g} s"
    return over


_OWNERS = """
    SELECT owner FROM saga_engine.projection WHERE leased_until > clock_timestamp()
    UNION ALL SELECT owner FROM saga_engine.feed WHERE leased_until > clock_timestamp()"""

FAULTS = (
    Fault("SIGKILL of a projector", kill, times=3, ci_times=1, exclusive_resources=PROJECTORS),
    Fault(
        "a projector killed every 0.2 to 2 s",
        kill_again_and_again,
        times=2,
        exclusive_resources=PROJECTORS,
    ),
    Fault("SIGSTOP of a projector", pause, times=2, ci_times=1, exclusive_resources=PROJECTORS),
    Fault("SIGTERM of a projector", shut_down, times=2, exclusive_resources=PROJECTORS),
    *(
        Fault(
            f"projector crashes {crash_point}",
            partial(crash, projectors_of, crash_point),
            times=2,
        )
        for crash_point in PROJECTOR_CRASH_POINTS
    ),
    *(
        Fault(f"worker crashes {crash_point}", partial(crash, workers_of, crash_point), times=1)
        for crash_point in READ_MODEL_CRASH_POINTS
    ),
)
