"""Faults of the network between a process and a server, for one process at a time."""

from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter
from random import Random

from tests.faults.environment import FaultEnvironment
from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import RESTART_RESUME_LIMIT_S, Fault
from tests.kit.programs import sleep, wait_until_true
from tests.kit.proxy import TcpProxy

TRAFFIC_TIMEOUT_S = 10.0  # Within this time every connection has traffic.
TROUBLE_EVENTS = "broker_connection.changed|database.unavailable|internal_error.caught"
REFUSED_MESSAGES = "out of reach|cannot be reached|ConnectionRefused"
CUT_MESSAGES = REFUSED_MESSAGES + "|(cut|lost) the connection"
"""A participant reports the start of a database outage: a cut connection."""

PROXY_BY_LEG = {
    "worker and RabbitMQ": lambda each, random: random.choice(each.workers).broker_proxy,
    "worker and PostgreSQL": lambda each, random: random.choice(each.workers).database_proxy,
    "participant and RabbitMQ": lambda each, random: random.choice(each.participants).broker_proxy,
    "participant and PostgreSQL": lambda each, random: (
        random.choice(each.participants).database_proxy
    ),
    # The one that has the feed: the connection of the other has no traffic.
    "projector and RabbitMQ": lambda each, _random: max(
        (projector.broker_proxy for projector in each.projectors), key=attrgetter("last_read")
    ),
    "projector and PostgreSQL": lambda each, random: random.choice(each.projectors).database_proxy,
}
"""Chooses a process of an environment, and the proxy to one of its servers."""


async def _wait_until_open(proxy: TcpProxy):
    """Wait until the proxy has a connection that the fault can affect."""

    async def is_open():
        return proxy.open_connections > 0

    await wait_until_true(is_open)


@asynccontextmanager
async def _expect_affected_bytes(proxy: TcpProxy):
    """Assert that the fault in the block holds, drops or delays at least one byte."""
    await _wait_until_open(proxy)
    await _wait_for_traffic(proxy)
    before = proxy.affected_bytes
    yield

    async def has_effect():
        return proxy.affected_bytes > before

    await _wait_for_effect(has_effect)


async def _wait_for_traffic(proxy: TcpProxy):
    """Wait until the process goes on after the fault before: a feed may still wait for confirms."""
    last_read = proxy.last_read

    async def has_traffic():
        return proxy.last_read > last_read

    await _wait_for_effect(has_traffic)


async def _wait_for_effect(condition):
    try:
        await wait_until_true(condition, patience=TRAFFIC_TIMEOUT_S)
    except TimeoutError:
        raise AssertionError("the fault had no effect: there was no traffic") from None


async def cut(leg, environment: FaultEnvironment, random: Random):
    proxy = leg(environment, random)
    await _wait_until_open(proxy)
    assert proxy.reset() > 0


async def cut_everything(environment: FaultEnvironment, _random: Random):
    """Cut every connection of every process at once."""
    assert sum(proxy.reset() for member in environment.processes for proxy in member.proxies) > 0


async def stall(leg, environment: FaultEnvironment, random: Random):
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.pause()
        await sleep(random.uniform(3.0, 7.0))
        proxy.clear_faults()
        return await environment.database_now()


async def drop_server_data(leg, environment: FaultEnvironment, random: Random):
    """Drop the data of the server: requests are processed, their answers are lost."""
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.drop_server_data()
        await sleep(random.uniform(1.0, 4.0))
        proxy.clear_faults()
        return await environment.database_now()


async def drop_open_connections(leg, environment: FaultEnvironment, random: Random):
    """Drop all data of open connections without closing them; new connections work."""
    proxy = leg(environment, random)
    await _wait_until_open(proxy)
    dropped, over = proxy.drop_open_connections(), await environment.database_now()

    async def has_dropped():
        return any(pair.dropped_bytes for pair in dropped)

    await _wait_for_effect(has_dropped)
    return over


async def refuse(leg, environment: FaultEnvironment, random: Random):
    proxy = leg(environment, random)
    hearing = EventLogWatcher(
        [member for member in environment.processes if proxy in member.proxies]
    )
    await _wait_until_open(proxy)
    await proxy.refuse()
    await sleep(random.uniform(2.0, 6.0))
    await proxy.accept()
    over = await environment.database_now()
    of_a_participant = any(proxy is each.database_proxy for each in environment.participants)
    await hearing.wait_for_any(
        TROUBLE_EVENTS, problem=CUT_MESSAGES if of_a_participant else REFUSED_MESSAGES
    )
    return over


async def delay(leg, environment: FaultEnvironment, random: Random):
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.delay_s = random.uniform(0.05, 0.25)
        await sleep(random.uniform(3.0, 6.0))
        proxy.clear_faults()
        return await environment.database_now()


async def throttle(leg, environment: FaultEnvironment, random: Random):
    proxy = leg(environment, random)
    async with _expect_affected_bytes(proxy):
        proxy.bytes_per_s = 64_000.0
        await sleep(random.uniform(3.0, 6.0))
        proxy.clear_faults()
        return await environment.database_now()


async def refuse_all_for_a_minute(environment: FaultEnvironment, _random: Random):
    """RabbitMQ refuses all connections for 60 s."""
    hearing = EventLogWatcher(environment.processes)
    for member in environment.processes:
        await member.broker_proxy.refuse()
    await hearing.wait_for_all("broker_connection.changed", problem="out of reach")
    await sleep(60.0)
    for member in environment.processes:
        await member.broker_proxy.accept()


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
    "half-open between projector and RabbitMQ",
)

FAULTS = (
    *(
        Fault(
            f"{kind} between {between}",
            partial(inject, leg),
            times=times,
            ci_times=int(f"{kind} between {between}" in CI_KINDS),
            # A proxy ends all its faults at once, so two of these must not share one.
            exclusive_resources=(between,) if kind != "vanished" else None,
        )
        for kind, (inject, times) in KINDS.items()
        for between, leg in PROXY_BY_LEG.items()
    ),
    Fault(
        "every connection cut",
        cut_everything,
        times=4,
        ci_times=1,
        resume_limit_s=RESTART_RESUME_LIMIT_S,  # as after a restart, each process connects again
        exclusive_resources=(),
    ),
    Fault("RabbitMQ refuses connections for 60 s", refuse_all_for_a_minute, times=1),
)
