"""
The properties of a queue: validated at declaration, compared at redeclaration.

The rules and texts are RabbitMQ's (rabbitmq.com/docs/queues and /docs/quorum-queues). `x-expires`
and priorities are not implemented; they are refused, not ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from saga_engine.embedded.broker.refusal import not_implemented, precondition_failed

_INTEGER_ARGUMENTS: Final = (
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-delivery-limit",
)
_TEXT_ARGUMENTS: Final = (
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
)
_BOOLEAN_ARGUMENTS: Final = ("x-single-active-consumer",)
_ENUM_ARGUMENTS: Final = {
    "x-queue-type": ("classic", "quorum"),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
}
_SUPPORTED_ARGUMENTS: Final = (
    *_INTEGER_ARGUMENTS,
    *_TEXT_ARGUMENTS,
    *_BOOLEAN_ARGUMENTS,
    *_ENUM_ARGUMENTS,
)
_UNSUPPORTED_ARGUMENTS: Final = ("x-expires", "x-max-priority")


@dataclass(frozen=True, kw_only=True)
class QueueDeclaration:
    """The properties that a client declares a queue with."""

    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Mapping[str, Any]

    def validate(self) -> None:
        """Refuse what RabbitMQ refuses (406) and what this broker does not implement (540)."""
        for name in _UNSUPPORTED_ARGUMENTS:
            if name in self.arguments:
                raise not_implemented(f"the argument '{name}' of a queue")
        for name, value in self.arguments.items():
            if not _is_valid_argument(name, value):
                raise precondition_failed(
                    f"invalid arg '{name}' for {self._description}: {value!r}"
                )
        if not self.is_quorum and "x-delivery-limit" in self.arguments:
            raise precondition_failed(
                f"invalid arg 'x-delivery-limit' for {self._description} of queue type classic"
            )
        forbidden = [("non-durable", not self.durable), ("exclusive", self.exclusive)]
        for property_name, is_set in (*forbidden, ("auto-delete", self.auto_delete)):
            if self.is_quorum and is_set:
                raise precondition_failed(
                    f"invalid property '{property_name}' for {self._description}"
                )

    def check_equivalent(self, other: "QueueDeclaration") -> None:
        """Refuse (406) a declaration that differs from that of the existing queue."""
        for name in ("durable", "exclusive", "auto_delete"):
            self._check_equal(name, getattr(self, name), getattr(other, name))
        for name in _SUPPORTED_ARGUMENTS:
            self._check_equal(name, self.arguments.get(name), other.arguments.get(name))

    @property
    def is_quorum(self) -> bool:
        """Whether the queue is a quorum queue."""
        return self.arguments.get("x-queue-type") == "quorum"

    @property
    def has_single_active_consumer(self) -> bool:
        """Whether all messages go to the first consumer, until it is gone."""
        return bool(self.arguments.get("x-single-active-consumer"))

    @property
    def overflow(self) -> str:
        """What the queue does when it is full."""
        return str(self.arguments.get("x-overflow", "drop-head"))

    def integer_argument(self, name: str) -> int | None:
        """A numeric argument."""
        value = self.arguments.get(name)
        return None if value is None else int(value)

    @property
    def _description(self) -> str:
        return f"queue '{self.name}' in vhost '/'"

    def _check_equal(self, name: str, received: object, current: object) -> None:
        if received != current:
            raise precondition_failed(
                f"inequivalent arg '{name}' for {self._description}:"
                f" received {_format_value(received)} but current is {_format_value(current)}"
            )


def _is_valid_argument(name: str, value: object) -> bool:
    if name in _INTEGER_ARGUMENTS:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
    if name in _BOOLEAN_ARGUMENTS:
        return isinstance(value, bool)
    if name in _TEXT_ARGUMENTS:
        return isinstance(value, str)
    return value in _ENUM_ARGUMENTS[name] if name in _ENUM_ARGUMENTS else True


def _format_value(value: object) -> str:
    if value is None:
        return "none"
    return f"'{str(value).lower() if isinstance(value, bool) else value}'"
