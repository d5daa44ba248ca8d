"""
The exchanges and queues of the broker, and the way of a message between them.

One virtual host, `/`. Dead letters are routed in the event loop's next turn, so that no chain of
queues can nest; memory is counted, and `crowded` says when publishers must wait.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from pamqp import constants

from saga_engine.embedded.broker.arguments import Declaration
from saga_engine.embedded.broker.exchange import KINDS, Exchange
from saga_engine.embedded.broker.frames import Place
from saga_engine.embedded.broker.message import PublishedMessage, dead, in_cycle
from saga_engine.embedded.broker.queue import REJECTED, Queue
from saga_engine.embedded.broker.refusal import (
    ChannelRefusal,
    ConnectionRefusal,
    access_refused,
    not_found,
    precondition_failed,
)

_CALM = 0.8  # Publishers go on when this share of the memory is in use, as with RabbitMQ's alarm.


class Routing(NamedTuple):
    """What became of a message: to how many queues it went, and whether all of them took it."""

    queues: int
    accepted: bool


class VirtualHost:
    """Everything clients declared. `crowded` is told when memory runs out and when it is back."""

    def __init__(self, memory_limit: int, crowded: Callable[[bool], None]) -> None:
        self.exchanges: dict[str, Exchange] = {
            f"amq.{kind}": Exchange(f"amq.{kind}", kind) for kind in KINDS
        }
        self.queues: dict[str, Queue] = {}
        self._memory_limit = memory_limit
        self._memory = 0
        self._crowded = crowded
        self._is_crowded = False

    def exchange(self, name: str) -> Exchange:
        """The exchange of that name, or a refusal (404)."""
        if name not in self.exchanges:
            raise not_found("exchange", name)
        return self.exchanges[name]

    def queue(self, name: str, owner: object) -> Queue:
        """The queue of that name, or a refusal: 404, or 405 when it is another's exclusive one."""
        if name not in self.queues:
            raise not_found("queue", name)
        queue = self.queues[name]
        if queue.owner not in (None, owner):
            raise ChannelRefusal(
                405,
                f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}'"
                " in vhost '/'",
            )
        return queue

    def declare_exchange(self, wanted: Exchange) -> None:
        """Make an exchange, or check that it is there as wanted."""
        if wanted.kind not in KINDS:
            raise ConnectionRefusal(503, f"COMMAND_INVALID - unknown exchange type '{wanted.kind}'")
        there = self.exchanges.get(wanted.name)
        if there is None:
            _check_name("exchange", wanted.name)
            self.exchanges[wanted.name] = wanted
            return
        for name, text in (("kind", "type"), ("durable", "durable"), ("internal", "internal")):
            received, current = getattr(wanted, name), getattr(there, name)
            if received != current:
                raise precondition_failed(
                    f"inequivalent arg '{text}' for exchange '{wanted.name}' in vhost '/':"
                    f" received '{received}' but current is '{current}'"
                )

    def declare_queue(self, declaration: Declaration, owner: object) -> Queue:
        """Make a queue, or check that it is there as declared."""
        if declaration.name in self.queues:
            there = self.queue(declaration.name, owner)
            declaration.check_same(there.declaration)
            return there
        declaration.check()
        holder = owner if declaration.exclusive else None
        queue = Queue(declaration, holder, self._bury, self._account)
        self.queues[declaration.name] = queue
        return queue

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue and its bindings; return how many messages were ready."""
        self.queues.pop(queue.name, None)
        for exchange in self.exchanges.values():
            exchange.forget(queue.name)
        return queue.delete()

    def route(self, message: PublishedMessage) -> Routing:
        """Put a message into every queue it is for."""
        queues = self._destinations(message.place)
        taken = [queue.put(message) for queue in queues]
        return Routing(len(queues), all(taken))

    def _destinations(self, place: Place) -> list[Queue]:
        if not place.exchange:
            names = {place.routing_key}
        else:
            names = self.exchange(place.exchange).route(place.routing_key)
        return [self.queues[name] for name in sorted(names) if name in self.queues]

    def _bury(self, queue: Queue, message: PublishedMessage, reason: str) -> None:
        exchange = queue.declaration.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        key = queue.declaration.arguments.get("x-dead-letter-routing-key", message.routing_key)
        letter = dead(message, queue.name, reason, Place(str(exchange), str(key)))
        asyncio.get_running_loop().call_soon(self._route_dead, letter, reason)

    def _route_dead(self, letter: PublishedMessage, reason: str) -> None:
        """Route a dead letter, but not around in a circle (rabbitmq.com/docs/dlx)."""
        with contextlib.suppress(ChannelRefusal):  # Without such an exchange it is dropped.
            for queue in self._destinations(letter.place):
                if reason == REJECTED or not in_cycle(letter, queue.name):
                    queue.put(letter)

    def _account(self, change: int) -> None:
        self._memory += change
        if not self._is_crowded and self._memory > self._memory_limit:
            self._is_crowded = True
            self._crowded(True)  # noqa: FBT003 - it answers the question in the callback's name
        elif self._is_crowded and self._memory < self._memory_limit * _CALM:
            self._is_crowded = False
            self._crowded(False)  # noqa: FBT003 - it answers the question in the callback's name


def _check_name(kind: str, name: str) -> None:
    if not name:
        raise access_refused("operation not permitted on the default exchange")
    if name.startswith("amq."):
        raise access_refused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")
    if not constants.DOMAIN_REGEX[f"{kind}-name"].fullmatch(name):
        # RabbitMQ takes any name; pamqp cannot say it back (AMQP 0-9-1, domain queue-name).
        raise precondition_failed(f"{kind} name has characters that AMQP does not allow")


def check_queue_name(name: str) -> None:
    """Refuse a queue's name that is the broker's (403), or that cannot be said back (406)."""
    _check_name("queue", name)
