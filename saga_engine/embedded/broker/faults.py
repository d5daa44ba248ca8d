"""
Faults on demand: what a network and a broker do once a year, whenever a test asks for it.

    rule = broker.faults.on_publish(lambda message: message.routing_key == "shop.pay", lose)

An action decides about one publish with three moves: `route` it, `confirm` it, `refuse` it. Doing
none, some or several of them at another time is the fault.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from saga_engine.embedded.broker.message import PublishedMessage


class InterceptedPublish(Protocol):
    """One publish as an action sees it."""

    @property
    def message(self) -> PublishedMessage:
        """What is published."""

    def route(self) -> None:
        """Put it into the queues it is for; return it when it is mandatory and there are none."""

    def confirm(self) -> None:
        """Tell the publisher that it is safe."""

    def nack(self) -> None:
        """Tell the publisher that it is not (basic.nack)."""

    def abort_connection(self) -> None:
        """End the publisher's connection without a word."""


PublishMatcher = Callable[[PublishedMessage], bool]
FaultAction = Callable[[InterceptedPublish], None]


def lose_after_confirm(publish: InterceptedPublish) -> None:
    """Confirmed, and gone (a broker that lost its disk)."""
    publish.confirm()


def duplicate(publish: InterceptedPublish) -> None:
    """Delivered twice (a redelivery after an acknowledgement that was lost)."""
    publish.route()
    publish.route()
    publish.confirm()


def nack(publish: InterceptedPublish) -> None:
    """Not taken, and said so."""
    publish.nack()


def drop_confirm(publish: InterceptedPublish) -> None:
    """Delivered, and never said so."""
    publish.route()


def abort_before_confirm(publish: InterceptedPublish) -> None:
    """Delivered, and the connection is cut before the confirm is out."""
    publish.route()
    publish.abort_connection()


def delay(seconds: float) -> FaultAction:
    """Confirmed at once and delivered `seconds` later."""

    def confirm_and_delay(publish: InterceptedPublish) -> None:
        publish.confirm()
        asyncio.get_running_loop().call_later(seconds, publish.route)

    return confirm_and_delay


class HeldPublishes:
    """Confirmed at once and delivered when the test says `release`."""

    def __init__(self) -> None:
        self.publishes: list[InterceptedPublish] = []

    def __call__(self, publish: InterceptedPublish) -> None:
        """Hold one."""
        publish.confirm()
        self.publishes.append(publish)

    def release(self, *, reverse: bool = False) -> None:
        """Deliver what is held, in order or the last first."""
        publishes, self.publishes = self.publishes, []
        for publish in reversed(publishes) if reverse else publishes:
            publish.route()


def reorder(window: int) -> FaultAction:
    """Confirmed at once; each `window` messages are delivered last first."""
    held_publishes = HeldPublishes()

    def hold_and_reverse(publish: InterceptedPublish) -> None:
        held_publishes(publish)
        if len(held_publishes.publishes) == window:
            held_publishes.release(reverse=True)

    return hold_and_reverse


@dataclass
class FaultRule:
    """One fault: which publishes, what happens, how often at the most, how often it has."""

    matcher: PublishMatcher
    action: FaultAction
    max_count: int
    fired_count: int = 0
    exhausted: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, message: PublishedMessage) -> bool:
        """Whether this publish is to suffer."""
        return self.fired_count < self.max_count and self.matcher(message)

    def apply(self, publish: InterceptedPublish) -> None:
        """Make it suffer."""
        self.fired_count += 1
        if self.fired_count == self.max_count:
            self.exhausted.set()
        self.action(publish)


class BrokerConnections(Protocol):
    """The connections of the broker, as faults see them."""

    def abort_all(self) -> int:
        """End them all without a word; return how many there were."""

    def block_publishers(self, reason: str) -> None:
        """Read nothing more from publishers and say so (connection.blocked)."""

    def unblock_publishers(self) -> None:
        """Read again."""


class Faults:
    """The faults of one broker. Rules are asked in order; the first that applies fires."""

    def __init__(self, connections: BrokerConnections) -> None:
        self.rules: list[FaultRule] = []
        self._connections = connections

    def on_publish(
        self, matcher: PublishMatcher, action: FaultAction, *, max_count: int = 1
    ) -> FaultRule:
        """Let `action` have the next `times` publishes that `match`; return the rule to watch."""
        rule = FaultRule(matcher, action, max_count)
        self.rules.append(rule)
        return rule

    def clear_rules(self) -> None:
        """No more faults on publishes."""
        self.rules.clear()

    def abort_connections(self) -> int:
        """Cut every connection, as a network would; return how many."""
        return self._connections.abort_all()

    def block_publishers(self, reason: str = "low on memory") -> None:
        """Raise RabbitMQ's resource alarm: publishers are not read any more, and told so."""
        self._connections.block_publishers(reason)

    def unblock_publishers(self) -> None:
        """Clear that alarm."""
        self._connections.unblock_publishers()

    def rule_for(self, message: PublishedMessage) -> FaultRule | None:
        """The rule a publish falls under."""
        return next((rule for rule in self.rules if rule.matches(message)), None)
