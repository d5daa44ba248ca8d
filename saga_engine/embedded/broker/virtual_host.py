"""
The virtual host `/`: exchanges, queues and the routing of messages.

Dead letters are routed in the next iteration of the event loop, so that a chain of dead-letter
queues does not recurse. The memory of queued messages is counted; a callback raises the alarm.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from pamqp import constants

from saga_engine.embedded.broker.arguments import QueueDeclaration
from saga_engine.embedded.broker.exchange import EXCHANGE_TYPES, Exchange
from saga_engine.embedded.broker.frames import Destination
from saga_engine.embedded.broker.message import (
    PublishedMessage,
    dead_lettered,
    is_dead_letter_cycle,
)
from saga_engine.embedded.broker.queue import REJECTED_REASON, Queue
from saga_engine.embedded.broker.refusal import (
    ChannelException,
    ConnectionException,
    access_refused,
    not_found,
    precondition_failed,
)

_ALARM_CLEAR_RATIO = 0.8  # The alarm ends below this share of the memory limit.


class RoutingResult(NamedTuple):
    """The number of queues that a message was routed to, and whether all of them accepted it."""

    queue_count: int
    accepted: bool


class VirtualHost:
    """What clients declared; `on_memory_alarm` is called when the memory alarm changes."""

    def __init__(self, memory_limit: int, on_memory_alarm: Callable[[bool], None]) -> None:
        self.exchanges: dict[str, Exchange] = {
            f"amq.{kind}": Exchange(name=f"amq.{kind}", exchange_type=kind)
            for kind in EXCHANGE_TYPES
        }
        self.queues: dict[str, Queue] = {}
        self._memory_limit = memory_limit
        self._memory_used = 0
        self._on_memory_alarm = on_memory_alarm
        self._memory_alarm = False

    def exchange(self, name: str) -> Exchange:
        """The exchange of that name; raises 404."""
        if name not in self.exchanges:
            raise not_found("exchange", name)
        return self.exchanges[name]

    def queue(self, name: str, owner: object) -> Queue:
        """The queue of that name; raises 404, or 405 if it is exclusive to another connection."""
        if name not in self.queues:
            raise not_found("queue", name)
        queue = self.queues[name]
        if queue.owner not in (None, owner):
            raise ChannelException(
                405,
                f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}'"
                " in vhost '/'",
            )
        return queue

    def declare_exchange(self, requested: Exchange) -> None:
        """Create an exchange, or check that the existing one is equal."""
        if requested.exchange_type not in EXCHANGE_TYPES:
            raise ConnectionException(
                503, f"COMMAND_INVALID - unknown exchange type '{requested.exchange_type}'"
            )
        existing = self.exchanges.get(requested.name)
        if existing is None:
            _check_name("exchange", requested.name)
            self.exchanges[requested.name] = requested
            return
        for name, text in (
            ("exchange_type", "type"),
            ("durable", "durable"),
            ("internal", "internal"),
        ):
            received, current = getattr(requested, name), getattr(existing, name)
            if received != current:
                raise precondition_failed(
                    f"inequivalent arg '{text}' for exchange '{requested.name}' in vhost '/':"
                    f" received '{received}' but current is '{current}'"
                )

    def declare_queue(self, declaration: QueueDeclaration, owner: object) -> Queue:
        """Create a queue, or check that the existing one is equal."""
        if declaration.name in self.queues:
            existing = self.queue(declaration.name, owner)
            declaration.check_equivalent(existing.declaration)
            return existing
        declaration.validate()
        exclusive_owner = owner if declaration.exclusive else None
        queue = Queue(declaration, exclusive_owner, self._dead_letter, self._change_memory_used)
        self.queues[declaration.name] = queue
        return queue

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue and its bindings; return the number of ready messages."""
        self.queues.pop(queue.name, None)
        for exchange in self.exchanges.values():
            exchange.remove_queue(queue.name)
        return queue.delete()

    def route(self, message: PublishedMessage) -> RoutingResult:
        """Add a message to every queue that is bound for it."""
        queues = self._queues_of(message)
        accepted = [queue.enqueue(message) for queue in queues]
        return RoutingResult(len(queues), all(accepted))

    def _queues_of(self, message: PublishedMessage) -> list[Queue]:
        """The queues of all its routing keys, each once."""
        queues = {
            queue.name: queue
            for key in (message.routing_key, *message.other_routing_keys)
            for queue in self._target_queues(Destination(message.exchange, key))
        }
        return list(queues.values())

    def _target_queues(self, destination: Destination) -> list[Queue]:
        if not destination.exchange:
            queue_names = {destination.routing_key}
        else:
            queue_names = self.exchange(destination.exchange).matching_queues(
                destination.routing_key
            )
        return [self.queues[name] for name in sorted(queue_names) if name in self.queues]

    def _dead_letter(self, queue: Queue, message: PublishedMessage, reason: str) -> None:
        exchange = queue.declaration.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        routing_key = queue.declaration.arguments.get(
            "x-dead-letter-routing-key", message.routing_key
        )
        dead_lettered_message = dead_lettered(
            message, queue.name, reason, Destination(str(exchange), str(routing_key))
        )
        asyncio.get_running_loop().call_soon(self._route_dead_letter, dead_lettered_message, reason)

    def _route_dead_letter(self, dead_letter: PublishedMessage, reason: str) -> None:
        """Route a dead letter, but not in a cycle (rabbitmq.com/docs/dlx)."""
        with contextlib.suppress(ChannelException):  # Without the exchange it is dropped.
            for queue in self._target_queues(dead_letter.destination):
                if reason == REJECTED_REASON or not is_dead_letter_cycle(dead_letter, queue.name):
                    queue.enqueue(dead_letter)

    def _change_memory_used(self, change: int) -> None:
        self._memory_used += change
        if not self._memory_alarm and self._memory_used > self._memory_limit:
            self._memory_alarm = True
            self._on_memory_alarm(True)  # noqa: FBT003 - the state of the alarm
        elif self._memory_alarm and self._memory_used < self._memory_limit * _ALARM_CLEAR_RATIO:
            self._memory_alarm = False
            self._on_memory_alarm(False)  # noqa: FBT003 - the state of the alarm


def _check_name(kind: str, name: str) -> None:
    if not name:
        raise access_refused("operation not permitted on the default exchange")
    if name.startswith("amq."):
        raise access_refused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")
    if not constants.DOMAIN_REGEX[f"{kind}-name"].fullmatch(name):
        # RabbitMQ accepts any name; pamqp cannot encode it (AMQP 0-9-1, domain queue-name).
        raise precondition_failed(f"{kind} name has characters that AMQP does not allow")


def check_queue_name(name: str) -> None:
    """Refuse a reserved queue name (403), or one that cannot be encoded (406)."""
    _check_name("queue", name)
