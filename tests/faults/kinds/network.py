"""What a network does between a process and a server: to one process's connections at a time."""

from contextlib import asynccontextmanager
from functools import partial

from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import Fault
from tests.kit.programs import sleep, wait_until_true

TRAFFIC_TIMEOUT_S = 10.0  # Seconds in which somebody says something on every leg.
TROUBLE_EVENTS = "broker_connection.changed|database.unavailable|internal_error.caught"
REFUSED_MESSAGES = "out of reach|cannot be reached|ConnectionRefused"
CUT_MESSAGES = REFUSED_MESSAGES + "|(cut|lost) the connection"
"""A participant tells how an outage of its database began: with a connection that was cut."""

PROXY_BY_LEG = {
    "worker and RabbitMQ": lambda site, random: random.choice(site.workers).broker,
    "worker and PostgreSQL": lambda site, random: random.choice(site.workers).database,
    "participant and RabbitMQ": lambda site, random: random.choice(site.participants).broker,
    "participant and PostgreSQL": lambda site, random: random.choice(site.participants).database,
}


async def _wait_until_open(proxy):
    """Wait until something leads through it, so that there is something to break."""

    async def is_open():
        return proxy.open > 0

    await wait_until_true(is_open)


@asynccontextmanager
async def _expect_affected_bytes(proxy):
    """Do a fault in the block, and assert that some byte was held, lost or late by it."""
    await _wait_until_open(proxy)
    before = proxy.meddled
    yield

    async def has_meddled():
        return proxy.meddled > before

    await _wait_for_effect(has_meddled)


async def _wait_for_effect(it_has):
    try:
        await wait_until_true(it_has, patience=TRAFFIC_TIMEOUT_S)
    except TimeoutError:
        raise AssertionError("it did not come about: nobody said anything") from None


async def cut(leg, environment, random):
    proxy = leg(environment, random)
    await _wait_until_open(proxy)
    assert proxy.cut() > 0


async def cut_everything(environment, _random):
    """Every connection of every process, at once."""
    assert sum(proxy.cut() for member in environment.members for proxy in member.proxies) > 0


async def stall(leg, environment, random):
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.stall()
        await sleep(random.uniform(3.0, 7.0))
        proxy.heal()
        return await environment.now()


async def drop_server_data(leg, environment, random):
    """The server's words are lost: what was asked for happens, and nobody hears of it."""
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.half_open()
        await sleep(random.uniform(1.0, 4.0))
        proxy.heal()
        return await environment.now()


async def drop_open_connections(leg, environment, random):
    """Open connections lead nowhere for ever, nobody says so, and new ones work at once."""
    proxy = leg(environment, random)
    await _wait_until_open(proxy)
    lost, over = proxy.vanish(), await environment.now()

    async def is_missed():
        return any(pair.swallowed for pair in lost)

    await _wait_for_effect(is_missed)
    return over


async def refuse(leg, environment, random):
    proxy = leg(environment, random)
    hearing = EventLogWatcher([member for member in environment.members if proxy in member.proxies])
    await _wait_until_open(proxy)
    await proxy.refuse()
    await sleep(random.uniform(2.0, 6.0))
    await proxy.accept()
    over = await environment.now()
    of_a_participant = any(proxy is each.database for each in environment.participants)
    await hearing.wait_for_any(
        TROUBLE_EVENTS, problem=CUT_MESSAGES if of_a_participant else REFUSED_MESSAGES
    )
    return over


async def delay(leg, environment, random):
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.delay_s = random.uniform(0.05, 0.25)
        await sleep(random.uniform(3.0, 6.0))
        proxy.heal()
        return await environment.now()


async def throttle(leg, environment, random):
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.bytes_per_s = 64_000.0
        await sleep(random.uniform(3.0, 6.0))
        proxy.heal()
        return await environment.now()


async def refuse_all_for_a_minute(environment, _random):
    """A node that refuses connections for 60 s, for everybody."""
    hearing = EventLogWatcher(environment.members)
    for member in environment.members:
        await member.broker.refuse()
    await hearing.wait_for_all("broker_connection.changed", problem="out of reach")
    await sleep(60.0)
    for member in environment.members:
        await member.broker.accept()


KINDS = {
    "cut": (cut, 3),
    "stalled": (stall, 2),
    "half-open": (drop_server_data, 3),
    "vanished": (drop_open_connections, 2),
    "refused": (refuse, 2),
    "delayed": (delay, 2),
    "throttled": (throttle, 2),
}
CI_KINDS = (
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
            ci_times=int(f"{kind} between {between}" in CI_KINDS),
            # Healed is a proxy, and not a fault: two of these on one would end each other.
            exclusive_resources=(between,) if kind != "vanished" else None,
        )
        for kind, (inject, times) in KINDS.items()
        for between, leg in PROXY_BY_LEG.items()
    ),
    Fault("every connection cut", cut_everything, times=4, ci_times=1, exclusive_resources=()),
    Fault("RabbitMQ refuses connections for 60 s", refuse_all_for_a_minute, times=1),
)
