"""
Whether a stream or a topic is still the one that was consumed, and has the offset that is next.

One that is deleted and made again has other messages at the same offsets. With its offset, a
partition therefore stores a fingerprint of the message before it, which is compared when it is
consumed on.
"""

from dataclasses import dataclass
from uuid import UUID

import orjson

from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.received import key_of


def fingerprint(message: IncomingMessage) -> UUID:
    """Make a UUID of the attributes and the body of a message: the same for the same message."""
    content = orjson.dumps(dict(message.attributes), option=orjson.OPT_SORT_KEYS)
    return key_of(content, message.body)


_UNREADABLE = UUID(int=0)
"""In the place of a fingerprint of what exceeds limits: settings decide what of it is read."""


def last_message(message: IncomingMessage) -> UUID:
    """Return what is stored of the message before an offset, see `may_be_last`."""
    return _UNREADABLE if message.problem else fingerprint(message)


def may_be_last(stored: UUID | None, message: IncomingMessage) -> bool:
    """
    Whether a message may be the one that was consumed.

    Args:
        stored: its `last_message`; None: it is not known.
        message: the one at its offset.
    """
    found = last_message(message)
    return stored in (None, found) or _UNREADABLE in (stored, found)


@dataclass(frozen=True, slots=True)
class OffsetProblems:
    """
    Why a partition cannot be consumed at its offset, and what to do, in sentences.

    Args:
        name: of the partition, as a sentence begins: `Stream 'orders-0'`.
        rewind_command: lets it continue at the offset that follows.
    """

    name: str
    rewind_command: str

    @classmethod
    def of(cls, name: str, consumer: str, partition: int) -> "OffsetProblems":
        """Return those of a partition of a consumer."""
        command = f"saga-engine consumers rewind {consumer} --partition {partition} --to"
        return cls(name, command)

    def deleted(self, offset: int, first: int) -> str:
        """Retention has deleted what was not consumed."""
        return (
            f"{self.name} no longer has offset {offset}: its retention has deleted what is before"
            f" {first}. To go on without these events, run `{self.rewind_command} {first}`."
        )

    def beyond_end(self, offset: int) -> str:
        """It has fewer messages than were consumed."""
        return (
            f"{self.name} ends before offset {offset - 1}, which was consumed or passed over by a"
            " rewind: it was deleted and made again, has lost messages, or the rewind went beyond"
            f" its end. {self._begin_again}"
        )

    def other_message(self, offset: int) -> str:
        """Before the offset is another message than the one that was consumed there."""
        return (
            f"{self.name} has another message at offset {offset - 1} than the one that was consumed"
            f" there: it was deleted and made again. {self._begin_again}"
        )

    @property
    def _begin_again(self) -> str:
        return (
            f"To consume it from its beginning, run `{self.rewind_command} 0`; events that were"
            " consumed have no effect again."
        )
