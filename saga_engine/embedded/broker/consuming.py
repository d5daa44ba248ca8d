"""Handlers of basic.qos, consume, cancel, get, ack, nack, reject and recover."""

import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pamqp import base, commands

from saga_engine.embedded.broker.channel import Channel, Subscription
from saga_engine.embedded.broker.refusal import (
    ConnectionException,
    access_refused,
    not_implemented,
    precondition_failed,
)


def _qos(channel: Channel, method: commands.Basic.Qos) -> None:
    if method.prefetch_size:
        raise not_implemented("prefetch_size!=0")
    if method.global_:
        channel.global_prefetch = method.prefetch_count
    else:
        channel.prefetch = method.prefetch_count
    channel.send(commands.Basic.QosOk())


def _consume(channel: Channel, method: commands.Basic.Consume) -> None:
    queue = channel.peer.virtual_host.queue(method.queue, channel.peer)
    consumer_tag = method.consumer_tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
    if consumer_tag in channel.subscriptions:
        raise ConnectionException(
            530, f"NOT_ALLOWED - attempt to reuse consumer tag '{consumer_tag}'"
        )
    if queue.has_exclusive_consumer or (method.exclusive and queue.consumers):
        raise access_refused(f"queue '{queue.name}' in vhost '/' in exclusive use")
    priority = (method.arguments or {}).get("x-priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise precondition_failed(f"invalid arg 'x-priority': {priority!r}")
    subscription = Subscription(
        channel, queue, consumer_tag, no_ack=method.no_ack, priority=priority
    )
    channel.subscriptions[consumer_tag] = subscription
    if not method.nowait:
        channel.send(commands.Basic.ConsumeOk(consumer_tag))
    queue.subscribe(subscription, exclusive=method.exclusive)


def _cancel(channel: Channel, method: commands.Basic.Cancel) -> None:
    channel.cancel(method.consumer_tag or "")
    if not method.nowait:
        channel.send(commands.Basic.CancelOk(method.consumer_tag))


def _get(channel: Channel, method: commands.Basic.Get) -> None:
    queue = channel.peer.virtual_host.queue(method.queue, channel.peer)
    queued = queue.get()
    if queued is None:
        channel.send(commands.Basic.GetEmpty())
    else:
        channel.send_get_ok(queue, queued, no_ack=method.no_ack)


def _ack(channel: Channel, method: commands.Basic.Ack) -> None:
    channel.acknowledge(method.delivery_tag, multiple=method.multiple)


def _nack(channel: Channel, method: commands.Basic.Nack) -> None:
    channel.reject(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)


def _reject(channel: Channel, method: commands.Basic.Reject) -> None:
    channel.reject(method.delivery_tag or 0, multiple=False, requeue=method.requeue)


def _recover(channel: Channel, method: commands.Basic.Recover) -> None:
    if not method.requeue:
        raise not_implemented("requeue=false")
    channel.recover()
    channel.send(commands.Basic.RecoverOk())


def _flow(channel: Channel, method: commands.Channel.Flow) -> None:
    if not method.active:
        raise not_implemented("active=false")
    channel.send(commands.Channel.FlowOk(active=True))


HANDLERS: Mapping[type[base.Frame], Callable[[Channel, Any], None]] = MappingProxyType(
    {
        commands.Basic.Qos: _qos,
        commands.Basic.Consume: _consume,
        commands.Basic.Cancel: _cancel,
        commands.Basic.Get: _get,
        commands.Basic.Ack: _ack,
        commands.Basic.Nack: _nack,
        commands.Basic.Reject: _reject,
        commands.Basic.Recover: _recover,
        commands.Channel.Flow: _flow,
    }
)
