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
from tests.broker.links import raw_channel
from tests.faults.fault import RABBITMQ, RESTART_RESUMES_S, Fault
from tests.faults.hearing import Hearing
from tests.faults.processes import eventually, lasting
from tests.faults.site import USER, VHOST

LASTS = 5.0
DEAD_PEER_S = 33.0
"""Seconds after which a silent peer is taken for dead: three heartbeats and a second each."""

STOCK = participant_queue("stock")
LIMIT = 10  # Messages in a queue that is full.
EVERYTHING, NOTHING = (".*",) * 3, ("^$",) * 3
MINUTES_30 = 1_800_000  # RabbitMQ's consumer timeout, in milliseconds.


async def kill(site, _random):
    """SIGKILL, as a power cut; it is over when it accepts connections again."""
    hearing = Hearing(site.members)
    await site.rabbit.flush()
    site.rabbit.kill()
    await site.rabbit.restart()
    over = await site.now()
    await hearing.everyone("link.changed", role="consume", phase="connecting")
    return over


async def restart(site, _random):
    """SIGTERM: it says goodbye to everybody, and is back some seconds later."""
    hearing = Hearing(site.members)
    await site.rabbit.restart()
    over = await site.now()
    await hearing.everyone("link.changed", role="consume", phase="connecting")
    return over


async def wipe(site, _random):
    """It comes back without data; who deploys it makes user and policy, the engine its queues."""
    hearing = Hearing(site.members)
    await site.rubbish_is_aside()
    site.rabbit.kill()
    await site.rabbit.restart(empty=True)
    await hearing.everyone("link.changed", problem="refuses this user")
    await site.prepare_broker()
    site.requests_lost = True


async def stop(site, random):
    """SIGSTOP, for longer than confirms are waited for."""
    hearing = Hearing(site.members)
    os.kill(site.rabbit.pid, signal.SIGSTOP)
    await lasting(random.uniform(8.0, 11.0))
    os.kill(site.rabbit.pid, signal.SIGCONT)
    over = await site.now()
    await hearing.anyone("messages.published", outcome="unknown")
    return over


async def stop_until_given_up(site, _random):
    """SIGSTOP, for longer than a silent peer is taken for alive."""
    hearing = Hearing(site.members)
    os.kill(site.rabbit.pid, signal.SIGSTOP)
    await lasting(DEAD_PEER_S + 2.0)
    os.kill(site.rabbit.pid, signal.SIGCONT)
    over = await site.now()
    for role in ("consume", "publish"):
        await hearing.everyone("link.changed", role=role, phase="connecting")
    return over


async def alarm(set_off, clear, site, _random):
    """It takes no publishes for a while; what is consumed is acknowledged all the same."""
    hearing = Hearing(site.workers)
    async with _undone(site.rabbit.ctl, *clear):
        await site.rabbit.ctl(*set_off)
        await hearing.everyone("link.changed", role="publish", phase="blocked")
        await lasting(LASTS)
    over = await site.now()
    await hearing.everyone("link.changed", role="publish", phase="connected")
    return over


async def delete_queue(queue, consumers, site, _random):
    """What is in it is lost; whoever consumed it must notice, and make it again."""
    await site.rubbish_is_aside()
    hearing = Hearing(consumers(site))
    async with raw_channel(site.broker_url) as channel:
        await channel.queue_delete(queue)
    if queue == REQUESTS:
        site.requests_lost = True
    over = await site.now()
    await hearing.everyone("link.changed", problem="queue is gone")
    return over


async def replace_queue(site, _random):
    """A participant's queue is a classic one; it says so, and goes on when that is gone."""
    hearing = Hearing(site.participants)
    async with _shut_out(site.participants), raw_channel(site.broker_url) as channel:
        await channel.queue_delete(STOCK)
        await channel.queue_declare(STOCK, durable=True)
    await hearing.everyone("link.changed", problem="exists with other arguments")
    async with raw_channel(site.broker_url) as channel:
        await channel.queue_delete(STOCK)


async def unbind(queue, exchange, keys, site, _random):
    """Messages come back, for no queue takes them, until somebody of ours binds it again."""
    hearing = Hearing(site.members)
    async with raw_channel(site.broker_url) as channel:
        for key in keys:
            await channel.queue_unbind(queue, exchange, key)
    over = await site.now()
    await hearing.anyone("messages.published", exchange=exchange, outcome="returned")
    return over


async def delete_exchange(exchange, senders, site, _random):
    hearing = Hearing(senders(site))
    async with raw_channel(site.broker_url) as channel:
        await channel.exchange_delete(exchange)
    over = await site.now()
    await hearing.anyone("link.changed", role="publish", problem="NOT_FOUND")
    return over


async def fill_up(site, _random):
    """A queue that nobody takes from reaches its limit of length, and takes no more."""
    hearing = Hearing(site.workers)
    async with _shut_out(site.participants), _undone(site.clear_policy, "full"):
        await site.set_policy("full", priority=99, **{"max-length": LIMIT})
        await hearing.anyone("messages.published", exchange=COMMANDS, outcome="nacked")
        await lasting(LASTS)


async def reach_delivery_limit(site, _random):
    """Participants lose their connections while they hold commands, until the broker has enough."""
    [[before]] = await site.execute(_GIVEN_UP)

    async def is_given_up():
        for participant in site.participants:
            participant.broker.cut()
        await lasting(0.5)
        [[now]] = await site.execute(_GIVEN_UP)
        return now > before

    async with _undone(site.clear_policy, "impatient"):
        site.gives_up = True
        await site.set_policy("impatient", priority=99, **{"delivery-limit": 1})
        await eventually(is_given_up)


async def time_consumers_out(site, _random):
    """A slow command takes longer than RabbitMQ lets a consumer hold a message."""
    hearing = Hearing(site.participants)
    await site.rabbit.ctl("eval", _SET.format("channel_tick_interval", 500))
    async with _undone(site.rabbit.ctl, "eval", _SET.format("consumer_timeout", MINUTES_30)):
        await site.rabbit.ctl("eval", _SET.format("consumer_timeout", 2000))
        await _close_connections(site)  # A channel reads how often it looks when it is opened.
        await hearing.anyone("link.changed", problem="PRECONDITION_FAILED.*timeout", patience=40.0)


async def revoke_permissions(site, _random):
    """The user may do nothing any more, for a while."""
    hearing = Hearing(site.members)
    async with _undone(_permit, site, EVERYTHING):
        await _permit(site, NOTHING)
        await _close_connections(site)
        await hearing.everyone("link.changed", problem="ACCESS_REFUSED|may not")
        await lasting(LASTS)


async def rotate_password(site, _random):
    """The user's password is another one, for a while."""
    hearing = Hearing(site.members)
    async with _undone(site.rabbit.ctl, "change_password", USER, site.password):
        await site.rabbit.ctl("change_password", USER, site.password[::-1])
        await _close_connections(site)
        await hearing.everyone("link.changed", problem="refuses this user or password")
        await lasting(LASTS)


async def _permit(site, permissions):
    await site.rabbit.ctl("set_permissions", "-p", VHOST, USER, *permissions)


async def _close_connections(site):
    """What a connection may do is looked up when it is opened."""
    await site.rabbit.ctl("close_all_connections", "--vhost", VHOST, "the suite")


@asynccontextmanager
async def _shut_out(members):
    """These cannot connect for the time of the block."""
    for member in members:
        await member.broker.refuse()
    try:
        yield
    finally:
        for member in members:
            await member.broker.accept()


@asynccontextmanager
async def _undone(undo, *arguments):
    """Whether the fault came about or not, it does not stay."""
    try:
        yield
    finally:
        await undo(*arguments)


def _workers(site):
    return site.workers


def _participants(site):
    return site.participants


MEMORY = ("set_vm_memory_high_watermark", "0.0001"), ("set_vm_memory_high_watermark", "0.4")
DISK = ("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "50MB")
_SET = "application:set_env(rabbit, {}, {})."
_GIVEN_UP = """
    SELECT count(*) FROM saga_engine.dead_letter WHERE reason = 'broker_delivery_limit'"""

restarted = partial(Fault, resumes_s=RESTART_RESUMES_S)

FAULTS = (
    restarted("SIGKILL of RabbitMQ", kill, times=2, few=1, mixes=RABBITMQ),
    restarted("RabbitMQ restarts", restart, times=1, mixes=RABBITMQ),
    restarted("RabbitMQ loses its data", wipe, times=1),
    Fault("SIGSTOP of RabbitMQ", stop, times=2, mixes=RABBITMQ),
    Fault("SIGSTOP of RabbitMQ for 35 s", stop_until_given_up, times=1),
    Fault("RabbitMQ's memory alarm", partial(alarm, *MEMORY), times=1, mixes=RABBITMQ),
    Fault("RabbitMQ's disk alarm", partial(alarm, *DISK), times=1),
    *(
        Fault(f"{queue} is deleted", partial(delete_queue, queue, consumers), times=1)
        for queue, consumers in (
            *((each, _workers) for each in (REPLIES, REQUESTS, DEAD_LETTERS)),
            (STOCK, _participants),
        )
    ),
    Fault(f"{STOCK} becomes a classic queue", replace_queue, times=1),
    Fault(
        "the binding of replies is deleted",
        partial(unbind, REPLIES, REPLIES, [REPLIES]),
        times=1,
        mixes=RABBITMQ,
    ),
    Fault(
        "a command's binding is deleted",
        partial(unbind, STOCK, COMMANDS, ["stock.reserve"]),
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
    Fault("RabbitMQ's consumer timeout", time_consumers_out, times=1),
    Fault("the permissions are revoked for a while", revoke_permissions, times=1),
    Fault("the password is another one for a while", rotate_password, times=1),
)
