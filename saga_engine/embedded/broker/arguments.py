"""
A queue's properties: what it was declared with, checked, and compared when it is declared again.

RabbitMQ's rules and texts (rabbitmq.com/docs/queues and /docs/quorum-queues). `x-expires`,
priorities and single active consumers are not done here, and refused rather than ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from saga_engine.embedded.broker.refusal import not_implemented, precondition_failed

_NUMBERS: Final = ("x-message-ttl", "x-max-length", "x-max-length-bytes", "x-delivery-limit")
_TEXTS: Final = ("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy")
_CHOICES: Final = {
    "x-queue-type": ("classic", "quorum"),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
}
_KNOWN: Final = (*_NUMBERS, *_TEXTS, *_CHOICES)
_MISSING: Final = ("x-expires", "x-max-priority", "x-single-active-consumer")


@dataclass(frozen=True)
class Declaration:
    """What a client asks a queue to be."""

    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Mapping[str, Any]

    def check(self) -> None:
        """Refuse (406) what RabbitMQ refuses, and (540) what this broker does not do."""
        for name in _MISSING:
            if name in self.arguments:
                raise not_implemented(f"the argument '{name}' of a queue")
        for name, value in self.arguments.items():
            if not _fits(name, value):
                raise precondition_failed(f"invalid arg '{name}' for {self._named}: {value!r}")
        if not self.quorum and "x-delivery-limit" in self.arguments:
            raise precondition_failed(
                f"invalid arg 'x-delivery-limit' for {self._named} of queue type classic"
            )
        wrong = [("non-durable", not self.durable), ("exclusive", self.exclusive)]
        for word, present in (*wrong, ("auto-delete", self.auto_delete)):
            if self.quorum and present:
                raise precondition_failed(f"invalid property '{word}' for {self._named}")

    def check_same(self, other: "Declaration") -> None:
        """Refuse (406) when the queue is already there as `other`."""
        for name in ("durable", "exclusive", "auto_delete"):
            self._compare(name, getattr(self, name), getattr(other, name))
        for name in _KNOWN:
            self._compare(name, self.arguments.get(name), other.arguments.get(name))

    @property
    def quorum(self) -> bool:
        """Whether it is a quorum queue."""
        return self.arguments.get("x-queue-type") == "quorum"

    @property
    def overflow(self) -> str:
        """What happens when it is full."""
        return str(self.arguments.get("x-overflow", "drop-head"))

    def number(self, name: str) -> int | None:
        """A number among its arguments."""
        value = self.arguments.get(name)
        return None if value is None else int(value)

    @property
    def _named(self) -> str:
        return f"queue '{self.name}' in vhost '/'"

    def _compare(self, name: str, received: object, current: object) -> None:
        if received != current:
            raise precondition_failed(
                f"inequivalent arg '{name}' for {self._named}:"
                f" received {_shown(received)} but current is {_shown(current)}"
            )


def _fits(name: str, value: object) -> bool:
    if name in _NUMBERS:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
    if name in _TEXTS:
        return isinstance(value, str)
    return value in _CHOICES[name] if name in _CHOICES else True


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"'{str(value).lower() if isinstance(value, bool) else value}'"
