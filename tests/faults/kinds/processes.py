"""Workers and participants are killed, stopped, told to stop, and die at every named place."""

import asyncio
import signal
from functools import partial

from tests.faults.crash_points import PARTICIPANT_CRASH_POINTS, WORKER_CRASH_POINTS
from tests.faults.fault import PARTICIPANTS, WORKERS, Fault
from tests.kit.programs import EXIT_UNAVAILABLE, sleep

MAX_PASSAGES = 12  # At most so many of a place's passages go by before the one that kills.
REPEATED_KILLS = 5  # Times that every worker is killed, one right after the other.
CRASH_TIMEOUT_S = 90.0  # Seconds in which a place must be come to: the sweep and timers are rare.


async def kill(processes, environment, random):
    member = random.choice(processes(environment))
    await member.program.kill()
    over = await environment.now()
    await member.ready()
    return over


async def kill_all_workers(environment, _random):
    for worker in environment.workers:
        await worker.program.kill()
    over = await environment.now()
    for worker in environment.workers:
        await worker.ready()
    return over


async def kill_again_and_again(environment, _random):
    """Every worker every 2 seconds, counted from when it is ready; a participant every third."""
    for number in range(REPEATED_KILLS):
        for worker in environment.workers:
            await worker.ready()
        await sleep(2.0)
        for worker in environment.workers:
            await worker.program.kill()
        if number % 3 == 0:
            await environment.participants[0].program.kill()
    over = await environment.now()
    for member in environment.members:
        await member.ready()
    return over


async def pause(processes, environment, random):
    """SIGSTOP, longer than a lock is waited for, and SIGCONT."""
    member = random.choice(processes(environment))
    member.program.signal(signal.SIGSTOP)
    await sleep(random.uniform(2.5, 6.0))
    stopped = member.program.is_stopped()
    member.program.signal(signal.SIGCONT)
    assert stopped, "it was not stopped"


async def shut_down(processes, environment, random):
    """SIGTERM; it must leave with 0, and its successor goes on."""
    member = random.choice(processes(environment))
    code = await member.program.drain()
    assert code in (0, EXIT_UNAVAILABLE), (
        f"P7: a drained {member.program} left with {code}: {member.program.tail}"
    )
    await member.program.start()
    over = await environment.now()
    await member.ready()
    return over


async def crash(processes, crash_point, environment, random):
    """A process that kills itself at a place is started, and after it one that does not."""
    member = random.choice(processes(environment))
    passages = 1 if crash_point.startswith("in-") else random.randint(1, MAX_PASSAGES)
    await member.program.kill(crash_at=f"{crash_point}:{passages}")
    try:
        died = await _wait_for_crash(environment, member, crash_point, random)
    finally:
        for each in processes(environment):
            await each.program.disarm()
    over = await environment.now()
    for each in processes(environment):
        await each.ready()
    assert died, f"{crash_point} was not come to in {CRASH_TIMEOUT_S:g} s"
    return over


async def _wait_for_crash(environment, process, crash_point, random):
    """Wait for its death; what brings it to its place is done meanwhile."""
    async with asyncio.TaskGroup() as group:
        luring = group.create_task(_crash_in_sweep(environment, process, crash_point, random))
        died = await process.program.crashes(patience=CRASH_TIMEOUT_S)
        luring.cancel()
    return died


LEAVINGS, AGEING = 4, 11.0
"""How often a worker dies and leaves commands behind, and seconds in which these are swept."""


async def _crash_in_sweep(environment, process, crash_point, random):
    if crash_point == "in-sweep":
        # The other worker leaves commands behind, and stays away while they age: when it comes
        # back it sweeps as well.
        other = random.choice([each for each in environment.workers if each is not process])
        await process.ready()
        await other.program.kill(crash_at="after-commit:2")
        times = 1
        while await other.program.crashes(patience=CRASH_TIMEOUT_S):
            if times % LEAVINGS == 0:
                await sleep(AGEING)
            await other.program.start(crash_at="after-commit:2")
            times += 1
    if crash_point == "in-dead-letter-intake":
        await process.ready()
        while True:
            await environment.throw_rubbish()
            await sleep(0.5)


def workers(environment):
    return environment.workers


def participants(environment):
    return environment.participants


FAULTS = (
    Fault(
        "SIGKILL of a worker",
        partial(kill, workers),
        times=4,
        ci_times=2,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "SIGKILL of a participant",
        partial(kill, participants),
        times=4,
        ci_times=1,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "SIGKILL of every worker",
        kill_all_workers,
        times=4,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault("every worker killed every 2 s", kill_again_and_again, times=2, ci_times=1),
    Fault(
        "SIGSTOP of a worker",
        partial(pause, workers),
        times=3,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "SIGSTOP of a participant",
        partial(pause, participants),
        times=3,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "SIGTERM of a worker",
        partial(shut_down, workers),
        times=3,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "SIGTERM of a participant",
        partial(shut_down, participants),
        times=3,
        exclusive_resources=PARTICIPANTS,
    ),
    *(
        Fault(
            f"worker dies {place}",
            partial(crash, workers, place),
            times=2 if place == "in-sweep" else 3,
            ci_times=int(place in ("after-commit", "after-confirm")),
        )
        for place in WORKER_CRASH_POINTS
    ),
    *(
        Fault(
            f"participant dies {place}",
            partial(crash, participants, place),
            times=2,
            ci_times=int(place == "after-effect"),
        )
        for place in PARTICIPANT_CRASH_POINTS
    ),
)
