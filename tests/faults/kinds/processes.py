"""Workers and participants are killed, stopped, told to stop, and die at every named place."""

import asyncio
import signal
from functools import partial

from tests.faults.crashing import PARTICIPANT, WORKER
from tests.faults.fault import PARTICIPANTS, WORKERS, Fault
from tests.faults.processes import UNAVAILABLE, lasting

PASSAGES = 12  # At most so many of a place's passages go by before the one that kills.
STORM = 5  # Times that every worker is killed, one right after the other.
PATIENCE = 90.0  # Seconds in which a place must be come to: the sweep and timers are rare.


async def kill(members, site, random):
    member = random.choice(members(site))
    await member.program.kill()
    over = await site.now()
    await member.ready()
    return over


async def kill_all_workers(site, _random):
    for worker in site.workers:
        await worker.program.kill()
    over = await site.now()
    for worker in site.workers:
        await worker.ready()
    return over


async def kill_again_and_again(site, _random):
    """Every worker every 2 seconds, counted from when it is ready; a participant every third."""
    for number in range(STORM):
        for worker in site.workers:
            await worker.ready()
        await lasting(2.0)
        for worker in site.workers:
            await worker.program.kill()
        if number % 3 == 0:
            await site.participants[0].program.kill()
    over = await site.now()
    for member in site.members:
        await member.ready()
    return over


async def pause(members, site, random):
    """SIGSTOP, longer than a lock is waited for, and SIGCONT."""
    member = random.choice(members(site))
    member.program.signal(signal.SIGSTOP)
    await lasting(random.uniform(2.5, 6.0))
    stopped = member.program.is_stopped()
    member.program.signal(signal.SIGCONT)
    assert stopped, "it was not stopped"


async def drain(members, site, random):
    """SIGTERM; it must leave with 0, and its successor goes on."""
    member = random.choice(members(site))
    code = await member.program.drain()
    assert code in (0, UNAVAILABLE), (
        f"P7: a drained {member.program} left with {code}: {member.program.tail}"
    )
    await member.program.start()
    over = await site.now()
    await member.ready()
    return over


async def crash(members, place, site, random):
    """A process that kills itself at a place is started, and after it one that does not."""
    member = random.choice(members(site))
    passages = 1 if place.startswith("in-") else random.randint(1, PASSAGES)
    await member.program.kill(crash_at=f"{place}:{passages}")
    try:
        died = await _dies(site, member, place, random)
    finally:
        for each in members(site):
            await each.program.disarm()
    over = await site.now()
    for each in members(site):
        await each.ready()
    assert died, f"{place} was not come to in {PATIENCE:g} s"
    return over


async def _dies(site, member, place, random):
    """Wait for its death; what brings it to its place is done meanwhile."""
    async with asyncio.TaskGroup() as group:
        luring = group.create_task(_lure(site, member, place, random))
        died = await member.program.crashes(patience=PATIENCE)
        luring.cancel()
    return died


LEAVINGS, AGEING = 4, 11.0
"""How often a worker dies and leaves commands behind, and seconds in which these are swept."""


async def _lure(site, member, place, random):
    if place == "in-sweep":
        # The other worker leaves commands behind, and stays away while they age: when it comes
        # back it sweeps as well.
        other = random.choice([each for each in site.workers if each is not member])
        await member.ready()
        await other.program.kill(crash_at="after-commit:2")
        times = 1
        while await other.program.crashes(patience=PATIENCE):
            if times % LEAVINGS == 0:
                await lasting(AGEING)
            await other.program.start(crash_at="after-commit:2")
            times += 1
    if place == "in-dead-letter-intake":
        await member.ready()
        while True:
            await site.throw_rubbish()
            await lasting(0.5)


def workers(site):
    return site.workers


def participants(site):
    return site.participants


FAULTS = (
    Fault("SIGKILL of a worker", partial(kill, workers), times=4, few=2, mixes=WORKERS),
    Fault(
        "SIGKILL of a participant",
        partial(kill, participants),
        times=4,
        few=1,
        mixes=PARTICIPANTS,
    ),
    Fault("SIGKILL of every worker", kill_all_workers, times=4, few=1, mixes=WORKERS),
    Fault("every worker killed every 2 s", kill_again_and_again, times=2, few=1),
    Fault("SIGSTOP of a worker", partial(pause, workers), times=3, few=1, mixes=WORKERS),
    Fault("SIGSTOP of a participant", partial(pause, participants), times=3, mixes=PARTICIPANTS),
    Fault("SIGTERM of a worker", partial(drain, workers), times=3, few=1, mixes=WORKERS),
    Fault("SIGTERM of a participant", partial(drain, participants), times=3, mixes=PARTICIPANTS),
    *(
        Fault(
            f"worker dies {place}",
            partial(crash, workers, place),
            times=2 if place == "in-sweep" else 3,
            few=int(place in ("after-commit", "after-confirm")),
        )
        for place in WORKER
    ),
    *(
        Fault(
            f"participant dies {place}",
            partial(crash, participants, place),
            times=2,
            few=int(place == "after-effect"),
        )
        for place in PARTICIPANT
    ),
)
