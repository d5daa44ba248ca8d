"""What befalls RabbitMQ itself: it dies, halts, fills up, forgets, refuses, is tampered with."""

import os
import signal
from contextlib import asynccontextmanager
from functools import partial

from saga_engine.protocol.topology import (
    COMMANDS,
    DEAD_LETTERS,
    REPLIES,
    REQUESTS,
    participant_queue,
)
from tests.faults.environment import USER, VHOST
from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import RABBITMQ, RESTART_RESUME_LIMIT_S, Fault
from tests.kit.connections import raw_channel
from tests.kit.programs import sleep, wait_until_true

FAULT_SECONDS = 5.0
PEER_TIMEOUT_S = 33.0
"""Seconds after which a silent peer is taken for dead: three heartbeats and a second each."""

STOCK_QUEUE = participant_queue("stock")
QUEUE_LENGTH_LIMIT = 10  # Messages in a queue that is full.
EVERYTHING, NOTHING = (".*",) * 3, ("^$",) * 3
MINUTES_30 = 1_800_000  # RabbitMQ's consumer timeout, in milliseconds.


async def kill(environment, _random):
    """SIGKILL, as a power cut; it is over when it accepts connections again."""
    hearing = EventLogWatcher(environment.members)
    await environment.rabbit.flush()
    environment.rabbit.kill()
    await environment.rabbit.restart()
    over = await environment.now()
    await hearing.wait_for_all(
        "broker_connection.changed", connection="consume", state="connecting"
    )
    return over


async def restart(environment, _random):
    """SIGTERM: it says goodbye to everybody, and is back some seconds later."""
    hearing = EventLogWatcher(environment.members)
    await environment.rabbit.restart()
    over = await environment.now()
    await hearing.wait_for_all(
        "broker_connection.changed", connection="consume", state="connecting"
    )
    return over


async def wipe(environment, _random):
    """It comes back without data; who deploys it makes user and policy, the engine its queues."""
    hearing = EventLogWatcher(environment.members)
    await environment.rubbish_is_aside()
    environment.rabbit.kill()
    await environment.rabbit.restart(empty=True)
    await hearing.wait_for_all("broker_connection.changed", problem="refuses this user")
    await environment.prepare_broker()
    environment.requests_lost = True


async def stop(environment, random):
    """SIGSTOP, for longer than confirms are waited for."""
    hearing = EventLogWatcher(environment.members)
    os.kill(environment.rabbit.pid, signal.SIGSTOP)
    await sleep(random.uniform(8.0, 11.0))
    os.kill(environment.rabbit.pid, signal.SIGCONT)
    over = await environment.now()
    await hearing.wait_for_any("messages.published", outcome="unknown")
    return over


async def stop_beyond_heartbeat(environment, _random):
    """SIGSTOP, for longer than a silent peer is taken for alive."""
    hearing = EventLogWatcher(environment.members)
    os.kill(environment.rabbit.pid, signal.SIGSTOP)
    await sleep(PEER_TIMEOUT_S + 2.0)
    os.kill(environment.rabbit.pid, signal.SIGCONT)
    over = await environment.now()
    for role in ("consume", "publish"):
        await hearing.wait_for_all("broker_connection.changed", connection=role, state="connecting")
    return over


async def alarm(set_off, clear, environment, _random):
    """It takes no publishes for a while; what is consumed is acknowledged all the same."""
    hearing = EventLogWatcher(environment.workers)
    async with _restored(environment.rabbit.ctl, *clear):
        await environment.rabbit.ctl(*set_off)
        await hearing.wait_for_all(
            "broker_connection.changed", connection="publish", state="blocked"
        )
        await sleep(FAULT_SECONDS)
    over = await environment.now()
    await hearing.wait_for_all("broker_connection.changed", connection="publish", state="connected")
    return over


async def delete_queue(queue, consumers, environment, _random):
    """What is in it is lost; whoever consumed it must notice, and make it again."""
    await environment.rubbish_is_aside()
    hearing = EventLogWatcher(consumers(environment))
    async with raw_channel(environment.broker_url) as channel:
        await channel.queue_delete(queue)
    if queue == REQUESTS:
        environment.requests_lost = True
    over = await environment.now()
    await hearing.wait_for_all("broker_connection.changed", problem="queue is gone")
    return over


async def replace_queue(environment, _random):
    """A participant's queue is a classic one; it says so, and goes on when that is gone."""
    hearing = EventLogWatcher(environment.participants)
    async with (
        _expect_access_refused(environment.participants),
        raw_channel(environment.broker_url) as channel,
    ):
        await channel.queue_delete(STOCK_QUEUE)
        await channel.queue_declare(STOCK_QUEUE, durable=True)
    await hearing.wait_for_all("broker_connection.changed", problem="exists with other arguments")
    async with raw_channel(environment.broker_url) as channel:
        await channel.queue_delete(STOCK_QUEUE)


async def unbind(queue, exchange, keys, environment, _random):
    """Messages come back, for no queue takes them, until somebody of ours binds it again."""
    hearing = EventLogWatcher(environment.members)
    async with raw_channel(environment.broker_url) as channel:
        for key in keys:
            await channel.queue_unbind(queue, exchange, key)
    over = await environment.now()
    await hearing.wait_for_any("messages.published", exchange=exchange, outcome="unroutable")
    return over


async def delete_exchange(exchange, senders, environment, _random):
    hearing = EventLogWatcher(senders(environment))
    async with raw_channel(environment.broker_url) as channel:
        await channel.exchange_delete(exchange)
    over = await environment.now()
    await hearing.wait_for_any(
        "broker_connection.changed", connection="publish", problem="NOT_FOUND"
    )
    return over


async def fill_up(environment, _random):
    """A queue that nobody takes from reaches its limit of length, and takes no more."""
    hearing = EventLogWatcher(environment.workers)
    async with (
        _expect_access_refused(environment.participants),
        _restored(environment.clear_policy, "full"),
    ):
        await environment.set_policy("full", priority=99, **{"max-length": QUEUE_LENGTH_LIMIT})
        await hearing.wait_for_any("messages.published", exchange=COMMANDS, outcome="nacked")
        await sleep(FAULT_SECONDS)


async def reach_delivery_limit(environment, _random):
    """Participants lose their connections while they hold commands, until the broker has enough."""
    [[before]] = await environment.execute(_DELIVERY_LIMIT_LETTERS)

    async def is_given_up():
        for participant in environment.participants:
            participant.broker.cut()
        await sleep(0.5)
        [[now]] = await environment.execute(_DELIVERY_LIMIT_LETTERS)
        return now > before

    async with _restored(environment.clear_policy, "impatient"):
        environment.gives_up = True
        await environment.set_policy("impatient", priority=99, **{"delivery-limit": 1})
        await wait_until_true(is_given_up)


async def trigger_consumer_timeout(environment, _random):
    """A slow command takes longer than RabbitMQ lets a consumer hold a message."""
    hearing = EventLogWatcher(environment.participants)
    await environment.rabbit.ctl("eval", _SET.format("channel_tick_interval", 500))
    async with _restored(
        environment.rabbit.ctl, "eval", _SET.format("consumer_timeout", MINUTES_30)
    ):
        await environment.rabbit.ctl("eval", _SET.format("consumer_timeout", 2000))
        await _close_connections(
            environment
        )  # A channel reads how often it looks when it is opened.
        await hearing.wait_for_any(
            "broker_connection.changed", problem="PRECONDITION_FAILED.*timeout", patience=40.0
        )


async def revoke_permissions(environment, _random):
    """The user may do nothing any more, for a while."""
    hearing = EventLogWatcher(environment.members)
    async with _restored(_set_permissions, environment, EVERYTHING):
        await _set_permissions(environment, NOTHING)
        await _close_connections(environment)
        await hearing.wait_for_all("broker_connection.changed", problem="ACCESS_REFUSED|may not")
        await sleep(FAULT_SECONDS)


async def rotate_password(environment, _random):
    """The user's password is another one, for a while."""
    hearing = EventLogWatcher(environment.members)
    async with _restored(environment.rabbit.ctl, "change_password", USER, environment.password):
        await environment.rabbit.ctl("change_password", USER, environment.password[::-1])
        await _close_connections(environment)
        await hearing.wait_for_all(
            "broker_connection.changed", problem="refuses this user or password"
        )
        await sleep(FAULT_SECONDS)


async def _set_permissions(environment, permissions):
    await environment.rabbit.ctl("set_permissions", "-p", VHOST, USER, *permissions)


async def _close_connections(environment):
    """What a connection may do is looked up when it is opened."""
    await environment.rabbit.ctl("close_all_connections", "--vhost", VHOST, "the suite")


@asynccontextmanager
async def _expect_access_refused(members):
    """These cannot connect for the time of the block."""
    for member in members:
        await member.broker.refuse()
    try:
        yield
    finally:
        for member in members:
            await member.broker.accept()


@asynccontextmanager
async def _restored(restore, *arguments):
    """Whether the fault came about or not, it does not stay."""
    try:
        yield
    finally:
        await restore(*arguments)


def _workers(environment):
    return environment.workers


def _participants(environment):
    return environment.participants


MEMORY = ("set_vm_memory_high_watermark", "0.0001"), ("set_vm_memory_high_watermark", "0.4")
DISK = ("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "50MB")
_SET = "application:set_env(rabbit, {}, {})."
_DELIVERY_LIMIT_LETTERS = """
    SELECT count(*) FROM saga_engine.dead_letter WHERE reason = 'broker_delivery_limit'"""

restarted = partial(Fault, resume_limit_s=RESTART_RESUME_LIMIT_S)

FAULTS = (
    restarted("SIGKILL of RabbitMQ", kill, times=2, ci_times=1, exclusive_resources=RABBITMQ),
    restarted("RabbitMQ restarts", restart, times=1, exclusive_resources=RABBITMQ),
    restarted("RabbitMQ loses its data", wipe, times=1),
    Fault("SIGSTOP of RabbitMQ", stop, times=2, exclusive_resources=RABBITMQ),
    Fault("SIGSTOP of RabbitMQ for 35 s", stop_beyond_heartbeat, times=1),
    Fault(
        "RabbitMQ's memory alarm", partial(alarm, *MEMORY), times=1, exclusive_resources=RABBITMQ
    ),
    Fault("RabbitMQ's disk alarm", partial(alarm, *DISK), times=1),
    *(
        Fault(f"{queue} is deleted", partial(delete_queue, queue, consumers), times=1)
        for queue, consumers in (
            *((each, _workers) for each in (REPLIES, REQUESTS, DEAD_LETTERS)),
            (STOCK_QUEUE, _participants),
        )
    ),
    Fault(f"{STOCK_QUEUE} becomes a classic queue", replace_queue, times=1),
    Fault(
        "the binding of replies is deleted",
        partial(unbind, REPLIES, REPLIES, [REPLIES]),
        times=1,
        exclusive_resources=RABBITMQ,
    ),
    Fault(
        "a command's binding is deleted",
        partial(unbind, STOCK_QUEUE, COMMANDS, ["stock.reserve"]),
        times=1,
    ),
    # Not with what keeps participants from binding their queues again: a run's attempts would be
    # over before, and that it then waits for a person is right.
    Fault(
        "the exchange of commands is deleted",
        partial(delete_exchange, COMMANDS, _workers),
        times=1,
    ),
    Fault(
        "the exchange of replies is deleted",
        partial(delete_exchange, REPLIES, _participants),
        times=1,
    ),
    Fault("a queue is full: publishes nacked", fill_up, times=1),
    Fault("the delivery limit is reached", reach_delivery_limit, times=1),
    Fault("RabbitMQ's consumer timeout", trigger_consumer_timeout, times=1),
    Fault("the permissions are revoked for a while", revoke_permissions, times=1),
    Fault("the password is another one for a while", rotate_password, times=1),
)
