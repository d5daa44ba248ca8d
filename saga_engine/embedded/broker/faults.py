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


class Attempt(Protocol):
    """One publish as an action sees it."""

    @property
    def message(self) -> PublishedMessage:
        """What is published."""

    def route(self) -> None:
        """Put it into the queues it is for; return it when it is mandatory and there are none."""

    def confirm(self) -> None:
        """Tell the publisher that it is safe."""

    def refuse(self) -> None:
        """Tell the publisher that it is not (basic.nack)."""

    def cut(self) -> None:
        """End the publisher's connection without a word."""


Match = Callable[[PublishedMessage], bool]
Action = Callable[[Attempt], None]


def lose(attempt: Attempt) -> None:
    """Confirmed, and gone (a broker that lost its disk)."""
    attempt.confirm()


def duplicate(attempt: Attempt) -> None:
    """Delivered twice (a redelivery after an acknowledgement that was lost)."""
    attempt.route()
    attempt.route()
    attempt.confirm()


def refuse(attempt: Attempt) -> None:
    """Not taken, and said so."""
    attempt.refuse()


def swallow_confirm(attempt: Attempt) -> None:
    """Delivered, and never said so."""
    attempt.route()


def cut_before_confirm(attempt: Attempt) -> None:
    """Delivered, and the connection is cut before the confirm is out."""
    attempt.route()
    attempt.cut()


def delay(seconds: float) -> Action:
    """Confirmed at once and delivered `seconds` later."""

    def later(attempt: Attempt) -> None:
        attempt.confirm()
        asyncio.get_running_loop().call_later(seconds, attempt.route)

    return later


class Hold:
    """Confirmed at once and delivered when the test says `release`."""

    def __init__(self) -> None:
        self.held: list[Attempt] = []

    def __call__(self, attempt: Attempt) -> None:
        """Hold one."""
        attempt.confirm()
        self.held.append(attempt)

    def release(self, *, reverse: bool = False) -> None:
        """Deliver what is held, in order or the last first."""
        held, self.held = self.held, []
        for attempt in reversed(held) if reverse else held:
            attempt.route()


def reorder(window: int) -> Action:
    """Confirmed at once; each `window` messages are delivered last first."""
    hold = Hold()

    def collect(attempt: Attempt) -> None:
        hold(attempt)
        if len(hold.held) == window:
            hold.release(reverse=True)

    return collect


@dataclass
class Rule:
    """One fault: which publishes, what happens, how often at the most, how often it has."""

    match: Match
    action: Action
    times: int
    fired: int = 0
    exhausted: asyncio.Event = field(default_factory=asyncio.Event)

    def applies(self, message: PublishedMessage) -> bool:
        """Whether this publish is to suffer."""
        return self.fired < self.times and self.match(message)

    def fire(self, attempt: Attempt) -> None:
        """Make it suffer."""
        self.fired += 1
        if self.fired == self.times:
            self.exhausted.set()
        self.action(attempt)


class Connections(Protocol):
    """The connections of the broker, as faults see them."""

    def cut(self) -> int:
        """End them all without a word; return how many there were."""

    def block(self, reason: str) -> None:
        """Read nothing more from publishers and say so (connection.blocked)."""

    def unblock(self) -> None:
        """Read again."""


class Faults:
    """The faults of one broker. Rules are asked in order; the first that applies fires."""

    def __init__(self, connections: Connections) -> None:
        self.rules: list[Rule] = []
        self._connections = connections

    def on_publish(self, match: Match, action: Action, *, times: int = 1) -> Rule:
        """Let `action` have the next `times` publishes that `match`; return the rule to watch."""
        rule = Rule(match, action, times)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """No more faults on publishes."""
        self.rules.clear()

    def cut_connections(self) -> int:
        """Cut every connection, as a network would; return how many."""
        return self._connections.cut()

    def block_publishers(self, reason: str = "low on memory") -> None:
        """Raise RabbitMQ's resource alarm: publishers are not read any more, and told so."""
        self._connections.block(reason)

    def unblock_publishers(self) -> None:
        """Clear that alarm."""
        self._connections.unblock()

    def rule_for(self, message: PublishedMessage) -> Rule | None:
        """The rule a publish falls under."""
        return next((rule for rule in self.rules if rule.applies(message)), None)
