"""
A development broker with fault injection.

    rule = broker.faults.on_publish(lambda message: message.routing_key == "shop.pay", nack)

Each published message is compared with the rules in the order in which they were added. The action
of the first rule that matches decides what happens to the message: it calls `route`, `confirm`,
`nack` and `abort_connection` of the publish, or leaves some of them out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from saga_engine.embedded.broker import DevelopmentBroker
from saga_engine.embedded.broker.interceptor import PublishAttempt, PublishInterceptor, deliver
from saga_engine.embedded.broker.message import PublishedMessage
from saga_engine.embedded.broker.server import OpenConnections

PublishMatcher = Callable[[PublishedMessage], bool]


def lose_after_confirm(publish: PublishAttempt) -> None:
    """Confirm the message and drop it, as a broker does that loses its disk."""
    publish.confirm()


def duplicate(publish: PublishAttempt) -> None:
    """Deliver the message twice, as a broker does when an acknowledgement is lost."""
    publish.route()
    publish.route()
    publish.confirm()


def nack(publish: PublishAttempt) -> None:
    """Drop the message and send basic.nack."""
    publish.nack()


def drop_confirm(publish: PublishAttempt) -> None:
    """Deliver the message and never confirm it."""
    publish.route()


def abort_before_confirm(publish: PublishAttempt) -> None:
    """Deliver the message and abort the connection before the confirm."""
    publish.route()
    publish.abort_connection()


def delay(seconds: float) -> PublishInterceptor:
    """Confirm the message immediately and deliver it `seconds` later."""

    def confirm_and_delay(publish: PublishAttempt) -> None:
        publish.confirm()
        asyncio.get_running_loop().call_later(seconds, publish.route)

    return confirm_and_delay


class HeldPublishes:
    """Confirms each message immediately and delivers it when `release` is called."""

    def __init__(self) -> None:
        self.publishes: list[PublishAttempt] = []

    def __call__(self, publish: PublishAttempt) -> None:
        publish.confirm()
        self.publishes.append(publish)

    def release(self, *, reverse: bool = False) -> None:
        """Deliver the held messages, in the order of publishing or in reverse."""
        publishes, self.publishes = self.publishes, []
        for publish in reversed(publishes) if reverse else publishes:
            publish.route()


def reorder(window: int) -> PublishInterceptor:
    """Confirm messages immediately, and deliver every `window` of them in reverse order."""
    held_publishes = HeldPublishes()

    def hold_and_reverse(publish: PublishAttempt) -> None:
        held_publishes(publish)
        if len(held_publishes.publishes) == window:
            held_publishes.release(reverse=True)

    return hold_and_reverse


@dataclass
class FaultRule:
    """Applies an action to the first `max_count` messages that match; `exhausted` is set then."""

    matcher: PublishMatcher
    action: PublishInterceptor
    max_count: int
    fired_count: int = 0
    exhausted: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, message: PublishedMessage) -> bool:
        return self.fired_count < self.max_count and self.matcher(message)

    def apply(self, publish: PublishAttempt) -> None:
        self.fired_count += 1
        if self.fired_count == self.max_count:
            self.exhausted.set()
        self.action(publish)


class BrokerFaults:
    """The fault rules of one broker, and faults of its connections."""

    def __init__(self) -> None:
        self.rules: list[FaultRule] = []
        self.connections: OpenConnections | None = None

    def on_publish(
        self, matcher: PublishMatcher, action: PublishInterceptor, *, max_count: int = 1
    ) -> FaultRule:
        """Apply `action` to the next `max_count` messages that match; the rule counts them."""
        rule = FaultRule(matcher, action, max_count)
        self.rules.append(rule)
        return rule

    def clear_rules(self) -> None:
        self.rules.clear()

    def intercept(self, publish: PublishAttempt) -> None:
        """Apply the first rule that matches, or deliver the message."""
        rule = next((rule for rule in self.rules if rule.matches(publish.message)), None)
        if rule is None:
            deliver(publish)
        else:
            rule.apply(publish)

    def abort_connections(self) -> int:
        """Abort every connection, as a network failure does; return how many there were."""
        return self._open_connections.abort_all()

    def block_publishers(self, reason: str = "low on memory") -> None:
        """Raise a resource alarm: the broker stops reading from publishers."""
        self._open_connections.block_publishers(reason)

    def unblock_publishers(self) -> None:
        """Clear that alarm."""
        self._open_connections.unblock_publishers()

    @property
    def _open_connections(self) -> OpenConnections:
        assert self.connections is not None
        return self.connections


class FaultyBroker(DevelopmentBroker):
    """A development broker whose `faults` a test controls."""

    def __init__(self) -> None:
        self.faults = BrokerFaults()
        super().__init__(interceptor=self.faults.intercept)
        self.faults.connections = self.connections
