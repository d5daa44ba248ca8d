"""Faults of processes: SIGKILL, SIGSTOP, SIGTERM, and a crash at every crash point."""

import asyncio
import signal
from functools import partial
from random import Random

from tests.faults.crash_points import PARTICIPANT_CRASH_POINTS, WORKER_CRASH_POINTS
from tests.faults.environment import FaultEnvironment, participants_of, workers_of
from tests.faults.fault import PARTICIPANTS, WORKERS, Fault
from tests.kit.programs import EXIT_UNAVAILABLE, sleep

MAX_CALLS = 12  # The process crashes at one of the first so many calls.
REPEATED_KILLS = 5  # How often every worker is killed in a row.
CRASH_TIMEOUT_S = 90.0  # Time to reach a crash point: some calls are rare.


async def kill(processes, environment: FaultEnvironment, random: Random):
    member = random.choice(processes(environment))
    await member.program.kill()
    over = await environment.database_now()
    await member.wait_until_ready()
    return over


async def kill_all_workers(environment: FaultEnvironment, _random: Random):
    for worker in environment.workers:
        await worker.program.kill()
    over = await environment.database_now()
    for worker in environment.workers:
        await worker.wait_until_ready()
    return over


async def kill_again_and_again(environment: FaultEnvironment, _random: Random):
    """Kill all workers 2 s after they are ready, repeatedly; a participant every third time."""
    for number in range(REPEATED_KILLS):
        for worker in environment.workers:
            await worker.wait_until_ready()
        await sleep(2.0)
        for worker in environment.workers:
            await worker.program.kill()
        if number % 3 == 0:
            await environment.participants[0].program.kill()
    over = await environment.database_now()
    for member in environment.processes:
        await member.wait_until_ready()
    return over


async def pause(processes, environment: FaultEnvironment, random: Random):
    """SIGSTOP for longer than the lock timeout, then SIGCONT."""
    member = random.choice(processes(environment))
    member.program.signal(signal.SIGSTOP)
    await sleep(random.uniform(2.5, 6.0))
    stopped = member.program.is_stopped()
    member.program.signal(signal.SIGCONT)
    assert stopped, "it was not stopped"


async def shut_down(processes, environment: FaultEnvironment, random: Random):
    """SIGTERM: the process must exit with 0, and its successor continues."""
    member = random.choice(processes(environment))
    code = await member.program.terminate()
    assert code in (0, EXIT_UNAVAILABLE), (
        f"P7: {member.program} exited after SIGTERM with {code}: {member.program.tail}"
    )
    await member.program.start()
    over = await environment.database_now()
    await member.wait_until_ready()
    return over


async def crash(processes, crash_point, environment: FaultEnvironment, random: Random):
    """Start a process that kills itself at a crash point, then one that does not."""
    member = random.choice(processes(environment))
    nth_call = 1 if crash_point.startswith("in-") else random.randint(1, MAX_CALLS)
    await member.program.kill(crash_at=f"{crash_point}:{nth_call}")
    try:
        crashed = await _wait_for_crash(environment, member, crash_point, random)
    finally:
        for each in processes(environment):
            await each.program.cancel_crash()
    over = await environment.database_now()
    for each in processes(environment):
        await each.wait_until_ready()
    assert crashed, f"{crash_point} was not reached in {CRASH_TIMEOUT_S:g} s"
    return over


async def _wait_for_crash(environment: FaultEnvironment, process, crash_point, random: Random):
    """Wait for the crash; meanwhile cause the calls that are otherwise rare."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_cause_rare_calls(environment, process, crash_point, random))
        crashed = await process.program.wait_for_crash(patience=CRASH_TIMEOUT_S)
        task.cancel()
    return crashed


CRASHES_WITH_COMMANDS, RESEND_SECONDS = 4, 11.0
"""How often a worker crashes with unpublished commands, and the time until they are resent."""


async def _cause_rare_calls(environment: FaultEnvironment, process, crash_point, random: Random):
    if crash_point == "in-outbox-resend":
        # The other worker leaves commands in the outbox, and is down until they are resent: after
        # its restart it would resend them too.
        other = random.choice([each for each in environment.workers if each is not process])
        await process.wait_until_ready()
        await other.program.kill(crash_at="after-commit:2")
        times = 1
        while await other.program.wait_for_crash(patience=CRASH_TIMEOUT_S):
            if times % CRASHES_WITH_COMMANDS == 0:
                await sleep(RESEND_SECONDS)
            await other.program.start(crash_at="after-commit:2")
            times += 1
    if crash_point == "in-dead-letter-insert":
        await process.wait_until_ready()
        while True:
            await environment.publish_malformed()
            await sleep(0.5)


FAULTS = (
    Fault(
        "SIGKILL of a worker",
        partial(kill, workers_of),
        times=3,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "SIGKILL of a participant",
        partial(kill, participants_of),
        times=3,
        ci_times=1,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "SIGKILL of every worker",
        kill_all_workers,
        times=3,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault("every worker killed every 2 s", kill_again_and_again, times=2, ci_times=1),
    Fault(
        "SIGSTOP of a worker",
        partial(pause, workers_of),
        times=2,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "SIGSTOP of a participant",
        partial(pause, participants_of),
        times=2,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "SIGTERM of a worker",
        partial(shut_down, workers_of),
        times=2,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "SIGTERM of a participant",
        partial(shut_down, participants_of),
        times=2,
        exclusive_resources=PARTICIPANTS,
    ),
    *(
        Fault(
            f"worker crashes {crash_point}",
            partial(crash, workers_of, crash_point),
            times=2,
            ci_times=int(crash_point in ("after-commit", "after-confirm")),
        )
        for crash_point in WORKER_CRASH_POINTS
    ),
    *(
        Fault(
            f"participant crashes {crash_point}",
            partial(crash, participants_of, crash_point),
            times=2,
            ci_times=int(crash_point == "after-effect"),
        )
        for crash_point in PARTICIPANT_CRASH_POINTS
    ),
)
