"""What a network does between a process and a server: to one process's connections at a time."""

from contextlib import asynccontextmanager
from functools import partial

from tests.faults.fault import Fault
from tests.faults.hearing import Hearing
from tests.faults.processes import eventually, lasting

PATIENCE = 10.0  # Seconds in which somebody says something on every leg.
TROUBLE = "link.changed|database.troubled|fault.found"
REFUSED = "out of reach|cannot be reached|ConnectionRefused"
CUT = REFUSED + "|(cut|lost) the connection"
"""A participant tells how an outage of its database began: with a connection that was cut."""

LEGS = {
    "worker and RabbitMQ": lambda site, random: random.choice(site.workers).broker,
    "worker and PostgreSQL": lambda site, random: random.choice(site.workers).database,
    "participant and RabbitMQ": lambda site, random: random.choice(site.participants).broker,
    "participant and PostgreSQL": lambda site, random: random.choice(site.participants).database,
}


async def _open(proxy):
    """Wait until something leads through it, so that there is something to break."""

    async def is_open():
        return proxy.open > 0

    await eventually(is_open)


@asynccontextmanager
async def _meddling(proxy):
    """Do a fault in the block, and assert that some byte was held, lost or late by it."""
    await _open(proxy)
    before = proxy.meddled
    yield

    async def has_meddled():
        return proxy.meddled > before

    await _came_about(has_meddled)


async def _came_about(it_has):
    try:
        await eventually(it_has, patience=PATIENCE)
    except TimeoutError:
        raise AssertionError("it did not come about: nobody said anything") from None


async def cut(leg, site, random):
    proxy = leg(site, random)
    await _open(proxy)
    assert proxy.cut() > 0


async def cut_everything(site, _random):
    """Every connection of every process, at once."""
    assert sum(proxy.cut() for member in site.members for proxy in member.proxies) > 0


async def stall(leg, site, random):
    proxy = leg(site, random)
    async with _meddling(proxy):
        proxy.stall()
        await lasting(random.uniform(3.0, 7.0))
        proxy.heal()
        return await site.now()


async def half_open(leg, site, random):
    """The server's words are lost: what was asked for happens, and nobody hears of it."""
    proxy = leg(site, random)
    async with _meddling(proxy):
        proxy.half_open()
        await lasting(random.uniform(1.0, 4.0))
        proxy.heal()
        return await site.now()


async def vanish(leg, site, random):
    """Open connections lead nowhere for ever, nobody says so, and new ones work at once."""
    proxy = leg(site, random)
    await _open(proxy)
    lost, over = proxy.vanish(), await site.now()

    async def is_missed():
        return any(pair.swallowed for pair in lost)

    await _came_about(is_missed)
    return over


async def refuse(leg, site, random):
    proxy = leg(site, random)
    hearing = Hearing([member for member in site.members if proxy in member.proxies])
    await _open(proxy)
    await proxy.refuse()
    await lasting(random.uniform(2.0, 6.0))
    await proxy.accept()
    over = await site.now()
    of_a_participant = any(proxy is each.database for each in site.participants)
    await hearing.anyone(TROUBLE, problem=CUT if of_a_participant else REFUSED)
    return over


async def delay(leg, site, random):
    proxy = leg(site, random)
    async with _meddling(proxy):
        proxy.delay_s = random.uniform(0.05, 0.25)
        await lasting(random.uniform(3.0, 6.0))
        proxy.heal()
        return await site.now()


async def throttle(leg, site, random):
    proxy = leg(site, random)
    async with _meddling(proxy):
        proxy.bytes_per_s = 64_000.0
        await lasting(random.uniform(3.0, 6.0))
        proxy.heal()
        return await site.now()


async def refuse_all_for_a_minute(site, _random):
    """A node that refuses connections for 60 s, for everybody."""
    hearing = Hearing(site.members)
    for member in site.members:
        await member.broker.refuse()
    await hearing.everyone("link.changed", problem="out of reach")
    await lasting(60.0)
    for member in site.members:
        await member.broker.accept()


KINDS = {
    "cut": (cut, 3),
    "stalled": (stall, 2),
    "half-open": (half_open, 3),
    "vanished": (vanish, 2),
    "refused": (refuse, 2),
    "delayed": (delay, 2),
    "throttled": (throttle, 2),
}
CHOSEN = (
    "cut between worker and RabbitMQ",
    "half-open between worker and PostgreSQL",
    "stalled between participant and RabbitMQ",
    "vanished between participant and PostgreSQL",
)

FAULTS = (
    *(
        Fault(
            f"{kind} between {between}",
            partial(inject, leg),
            times=times,
            few=int(f"{kind} between {between}" in CHOSEN),
            # Healed is a proxy, and not a fault: two of these on one would end each other.
            mixes=(between,) if kind != "vanished" else None,
        )
        for kind, (inject, times) in KINDS.items()
        for between, leg in LEGS.items()
    ),
    Fault("every connection cut", cut_everything, times=4, few=1, mixes=()),
    Fault("RabbitMQ refuses connections for 60 s", refuse_all_for_a_minute, times=1),
)
