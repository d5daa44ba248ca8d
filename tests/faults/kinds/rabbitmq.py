"""Faults of RabbitMQ: crash, pause, lost data, alarms, deleted topology, revoked access."""

import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from random import Random

from saga_engine.protocol.topology import (
    COMMANDS,
    DEAD_LETTERS,
    REPLIES,
    REQUESTS,
    participant_queue,
)
from tests.faults.environment import USER, VHOST, FaultEnvironment, participants_of, workers_of
from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import RABBITMQ, RESTART_RESUME_LIMIT_S, Fault
from tests.kit.connections import raw_channel
from tests.kit.programs import sleep, wait_until_true

FAULT_SECONDS = 5.0
PEER_TIMEOUT_S = 33.0
"""Seconds after which a silent peer is disconnected: three heartbeats and a second each."""

STOCK_QUEUE = participant_queue("stock")
QUEUE_LENGTH_LIMIT = 10  # Messages in a full queue.
EVERYTHING, NOTHING = (".*",) * 3, ("^$",) * 3
MINUTES_30 = 1_800_000  # RabbitMQ's consumer timeout, in milliseconds.


async def kill(environment: FaultEnvironment, _random: Random):
    """SIGKILL, like a power cut; the fault ends when it accepts connections again."""
    hearing = EventLogWatcher(environment.consuming_processes)
    await environment.rabbit.sync_metadata()
    environment.rabbit.kill()
    await environment.rabbit.restart()
    over = await environment.database_now()
    await hearing.wait_for_all(
        "broker_connection.changed", connection="consume", state="connecting"
    )
    return over


async def restart(environment: FaultEnvironment, _random: Random):
    """SIGTERM and a start: it closes all connections, and is available after some seconds."""
    hearing = EventLogWatcher(environment.consuming_processes)
    await environment.rabbit.restart()
    over = await environment.database_now()
    await hearing.wait_for_all(
        "broker_connection.changed", connection="consume", state="connecting"
    )
    return over


async def wipe(environment: FaultEnvironment, _random: Random):
    """It restarts without data; the operator creates user and policy, the engine its queues."""
    hearing = EventLogWatcher(environment.processes)
    await environment.wait_for_malformed_dead_letters()
    environment.rabbit.kill()
    await environment.rabbit.restart(wipe_data=True)
    await hearing.wait_for_all("broker_connection.changed", problem="refuses this user")
    await environment.prepare_broker()
    environment.requests_lost = environment.feed_messages_lost = True


async def stop(environment: FaultEnvironment, random: Random):
    """SIGSTOP, for longer than the confirm timeout."""
    hearing = EventLogWatcher(environment.processes)
    os.kill(environment.rabbit.pid, signal.SIGSTOP)
    await sleep(random.uniform(8.0, 11.0))
    os.kill(environment.rabbit.pid, signal.SIGCONT)
    over = await environment.database_now()
    await hearing.wait_for_any("messages.published", outcome="unknown")
    return over


async def stop_beyond_heartbeat(environment: FaultEnvironment, _random: Random):
    """SIGSTOP, for longer than the heartbeat timeout."""
    hearing = EventLogWatcher(environment.consuming_processes)
    os.kill(environment.rabbit.pid, signal.SIGSTOP)
    await sleep(PEER_TIMEOUT_S + 2.0)
    os.kill(environment.rabbit.pid, signal.SIGCONT)
    over = await environment.database_now()
    for name in ("consume", "publish"):
        await hearing.wait_for_all("broker_connection.changed", connection=name, state="connecting")
    return over


async def alarm(raise_alarm, clear_alarm, environment: FaultEnvironment, _random: Random):
    """It accepts no publishes for a while; consuming and acknowledging continue."""
    hearing = EventLogWatcher(environment.workers)
    async with _restored(environment.rabbit.rabbitmqctl, *clear_alarm):
        await environment.rabbit.rabbitmqctl(*raise_alarm)
        await hearing.wait_for_all(
            "broker_connection.changed", connection="publish", state="blocked"
        )
        await sleep(FAULT_SECONDS)
    over = await environment.database_now()
    await hearing.wait_for_all("broker_connection.changed", connection="publish", state="connected")
    return over


async def delete_queue(queue, consumers, environment: FaultEnvironment, _random: Random):
    """Its messages are lost; the consumers must detect that, and declare it again."""
    await environment.wait_for_malformed_dead_letters()
    hearing = EventLogWatcher(consumers(environment))
    async with raw_channel(environment.broker_url) as channel:
        await channel.queue_delete(queue)
    if queue == REQUESTS:
        environment.requests_lost = True
    over = await environment.database_now()
    await hearing.wait_for_all("broker_connection.changed", problem="queue is gone")
    return over


async def replace_queue(environment: FaultEnvironment, _random: Random):
    """Replace a participant's queue by a classic one, and delete that after it was reported."""
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


async def unbind(queue, exchange, keys, environment: FaultEnvironment, _random: Random):
    """Messages are unroutable until a process restores the binding."""
    hearing = EventLogWatcher(environment.processes)
    async with raw_channel(environment.broker_url) as channel:
        for key in keys:
            await channel.queue_unbind(queue, exchange, key)
    over = await environment.database_now()
    await hearing.wait_for_any("messages.published", exchange=exchange, outcome="unroutable")
    return over


async def delete_exchange(exchange, senders, environment: FaultEnvironment, _random: Random):
    hearing = EventLogWatcher(senders(environment))
    async with raw_channel(environment.broker_url) as channel:
        await channel.exchange_delete(exchange)
    over = await environment.database_now()
    await hearing.wait_for_any(
        "broker_connection.changed", connection="publish", problem="NOT_FOUND"
    )
    return over


async def fill_up(environment: FaultEnvironment, _random: Random):
    """A queue without consumers reaches its length limit and rejects publishes."""
    hearing = EventLogWatcher(environment.workers)
    async with (
        _expect_access_refused(environment.participants),
        _restored(environment.clear_policy, "full"),
    ):
        await environment.set_policy("full", priority=99, **{"max-length": QUEUE_LENGTH_LIMIT})
        await hearing.wait_for_any("messages.published", exchange=COMMANDS, outcome="nacked")
        await sleep(FAULT_SECONDS)


async def reach_delivery_limit(environment: FaultEnvironment, _random: Random):
    """Cut participants while they hold commands, until the broker dead-letters one."""
    [[before]] = await environment.execute(_DELIVERY_LIMIT_DEAD_LETTERS)

    async def is_dead_lettered():
        for participant in environment.participants:
            participant.broker_proxy.reset()
        await sleep(0.5)
        [[now]] = await environment.execute(_DELIVERY_LIMIT_DEAD_LETTERS)
        return now > before

    async with _restored(environment.clear_policy, "low-delivery-limit"):
        environment.broker_drops_commands = True
        await environment.set_policy("low-delivery-limit", priority=99, **{"delivery-limit": 1})
        await wait_until_true(is_dead_lettered)


async def trigger_consumer_timeout(environment: FaultEnvironment, _random: Random):
    """A command takes longer than RabbitMQ's consumer timeout."""
    hearing = EventLogWatcher(environment.participants)
    await environment.rabbit.rabbitmqctl("eval", _SET.format("channel_tick_interval", 500))
    async with _restored(
        environment.rabbit.rabbitmqctl, "eval", _SET.format("consumer_timeout", MINUTES_30)
    ):
        await environment.rabbit.rabbitmqctl("eval", _SET.format("consumer_timeout", 2000))
        await _close_connections(environment)  # Channels read the interval when they open.
        await hearing.wait_for_any(
            "broker_connection.changed", problem="PRECONDITION_FAILED.*timeout", patience=40.0
        )


async def revoke_permissions(environment: FaultEnvironment, _random: Random):
    """Revoke all permissions of the user for a while; who publishes nothing need not notice."""
    hearing = EventLogWatcher(environment.consuming_processes)
    async with _restored(_set_permissions, environment, EVERYTHING):
        await _set_permissions(environment, NOTHING)
        await _close_connections(environment)
        await hearing.wait_for_all("broker_connection.changed", problem="ACCESS_REFUSED|may not")
        await sleep(FAULT_SECONDS)


async def rotate_password(environment: FaultEnvironment, _random: Random):
    """Change the user's password for a while."""
    hearing = EventLogWatcher(environment.processes)
    async with _restored(
        environment.rabbit.rabbitmqctl, "change_password", USER, environment.password
    ):
        await environment.rabbit.rabbitmqctl("change_password", USER, environment.password[::-1])
        await _close_connections(environment)
        await hearing.wait_for_all(
            "broker_connection.changed", problem="refuses this user or password"
        )
        await sleep(FAULT_SECONDS)


async def _set_permissions(environment: FaultEnvironment, permissions):
    await environment.rabbit.rabbitmqctl("set_permissions", "-p", VHOST, USER, *permissions)


async def _close_connections(environment: FaultEnvironment):
    """Close all connections: permissions are checked when a connection is opened."""
    await environment.rabbit.rabbitmqctl("close_all_connections", "--vhost", VHOST, "fault suite")


@asynccontextmanager
async def _expect_access_refused(members):
    """Refuse connections of these processes during the block."""
    for member in members:
        await member.broker_proxy.refuse()
    try:
        yield
    finally:
        for member in members:
            await member.broker_proxy.accept()


@asynccontextmanager
async def _restored(restore, *arguments):
    """Restore the state after the block, even if the fault failed."""
    try:
        yield
    finally:
        await restore(*arguments)


MEMORY = ("set_vm_memory_high_watermark", "0.0001"), ("set_vm_memory_high_watermark", "0.4")
DISK = ("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "50MB")
_SET = "application:set_env(rabbit, {}, {})."
_DELIVERY_LIMIT_DEAD_LETTERS = """
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
            *((each, workers_of) for each in (REPLIES, REQUESTS, DEAD_LETTERS)),
            (STOCK_QUEUE, participants_of),
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
        "the binding of a command is deleted",
        partial(unbind, STOCK_QUEUE, COMMANDS, ["stock.reserve"]),
        times=1,
    ),
    # Not mixed with faults that keep participants from binding their queues: the attempts of a run
    # would be used up, and its incident would be correct.
    Fault(
        "the exchange of commands is deleted",
        partial(delete_exchange, COMMANDS, workers_of),
        times=1,
    ),
    Fault(
        "the exchange of replies is deleted",
        partial(delete_exchange, REPLIES, participants_of),
        times=1,
    ),
    Fault("a queue is full: publishes nacked", fill_up, times=1),
    Fault("the delivery limit is reached", reach_delivery_limit, times=1),
    Fault("RabbitMQ's consumer timeout", trigger_consumer_timeout, times=1),
    Fault("permissions revoked for a while", revoke_permissions, times=1),
    Fault("password changed for a while", rotate_password, times=1),
)
