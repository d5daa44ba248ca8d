"""Handlers of methods that declare, check and delete exchanges, queues and bindings."""

import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pamqp import base, commands

from saga_engine.embedded.broker.arguments import QueueDeclaration
from saga_engine.embedded.broker.channel import Channel
from saga_engine.embedded.broker.exchange import Exchange
from saga_engine.embedded.broker.refusal import (
    access_refused,
    not_implemented,
    precondition_failed,
)
from saga_engine.embedded.broker.virtual_host import check_queue_name


def _declare_exchange(channel: Channel, method: commands.Exchange.Declare) -> None:
    virtual_host = channel.peer.virtual_host
    _reject_default_exchange(method.exchange)
    if method.passive:
        virtual_host.exchange(method.exchange)
    else:
        requested = Exchange(
            name=method.exchange,
            exchange_type=method.exchange_type,
            durable=method.durable,
            internal=method.internal,
        )
        virtual_host.declare_exchange(requested)
    if not method.nowait:
        channel.send(commands.Exchange.DeclareOk())


def _delete_exchange(channel: Channel, method: commands.Exchange.Delete) -> None:
    _reject_default_exchange(method.exchange)
    exchange = channel.peer.virtual_host.exchanges.get(method.exchange)
    if exchange and exchange.name.startswith("amq."):
        raise access_refused(f"exchange name '{exchange.name}' contains reserved prefix 'amq.*'")
    if exchange and method.if_unused and exchange.bindings:
        raise precondition_failed(f"exchange '{exchange.name}' in vhost '/' in use")
    channel.peer.virtual_host.exchanges.pop(method.exchange, None)
    if not method.nowait:
        channel.send(commands.Exchange.DeleteOk())


def _declare_queue(channel: Channel, method: commands.Queue.Declare) -> None:
    virtual_host, owner = channel.peer.virtual_host, channel.peer
    if method.passive:
        queue = virtual_host.queue(method.queue, owner)
    else:
        if method.queue and method.queue not in virtual_host.queues:
            check_queue_name(method.queue)
        declaration = QueueDeclaration(
            name=method.queue or f"amq.gen-{secrets.token_urlsafe(16)}",
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method.arguments or {},
        )
        queue = virtual_host.declare_queue(declaration, owner)
    if not method.nowait:
        channel.send(commands.Queue.DeclareOk(queue.name, len(queue), len(queue.consumers)))


def _delete_queue(channel: Channel, method: commands.Queue.Delete) -> None:
    virtual_host, deleted_count = channel.peer.virtual_host, 0
    if method.queue in virtual_host.queues:
        queue = virtual_host.queue(method.queue, channel.peer)
        if method.if_unused and queue.consumers:
            raise precondition_failed(f"queue '{queue.name}' in vhost '/' in use")
        if method.if_empty and len(queue):
            raise precondition_failed(f"queue '{queue.name}' in vhost '/' is not empty")
        deleted_count = virtual_host.delete_queue(queue)
    if not method.nowait:
        channel.send(commands.Queue.DeleteOk(deleted_count))


def _purge(channel: Channel, method: commands.Queue.Purge) -> None:
    purged_count = channel.peer.virtual_host.queue(method.queue, channel.peer).purge()
    if not method.nowait:
        channel.send(commands.Queue.PurgeOk(purged_count))


def _bind(channel: Channel, method: commands.Queue.Bind) -> None:
    _reject_default_exchange(method.exchange)
    queue = channel.peer.virtual_host.queue(method.queue, channel.peer)
    exchange = channel.peer.virtual_host.exchange(method.exchange)
    exchange.bindings.add((queue.name, method.routing_key))
    if not method.nowait:
        channel.send(commands.Queue.BindOk())


def _unbind(channel: Channel, method: commands.Queue.Unbind) -> None:
    exchange = channel.peer.virtual_host.exchanges.get(method.exchange)
    if exchange:
        exchange.bindings.discard((method.queue, method.routing_key))
    channel.send(commands.Queue.UnbindOk())


def _reject_default_exchange(exchange: str) -> None:
    if not exchange:
        raise access_refused("operation not permitted on the default exchange")


def _reject_exchange_binding(_: Channel, __: base.Frame) -> None:
    raise not_implemented("bindings between exchanges")


HANDLERS: Mapping[type[base.Frame], Callable[[Channel, Any], None]] = MappingProxyType(
    {
        commands.Exchange.Declare: _declare_exchange,
        commands.Exchange.Delete: _delete_exchange,
        commands.Exchange.Bind: _reject_exchange_binding,
        commands.Exchange.Unbind: _reject_exchange_binding,
        commands.Queue.Declare: _declare_queue,
        commands.Queue.Delete: _delete_queue,
        commands.Queue.Purge: _purge,
        commands.Queue.Bind: _bind,
        commands.Queue.Unbind: _unbind,
    }
)
