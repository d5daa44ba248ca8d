"""
A stored event whose data is not JSON that can be read: nested too deep, or with too large a number.

Another program has inserted it: an append refuses such data. Reading it does not fail, so that the
events around it are read, and an operator can skip it.
"""

from typing import Any, NoReturn

import orjson

from saga_engine.errors import UnreadableEvent
from saga_engine.events.recorded import Recorded


class UndecodedEvent(Recorded):
    """
    An event without its data.

    Raises:
        UnreadableEvent: on access to `data`.
    """

    __slots__ = ()

    def _raise_unreadable(self) -> NoReturn:
        raise _unreadable(self)

    def _ignore(self, data: Any) -> None:
        """Take what the constructor sets."""

    data = property(_raise_unreadable, _ignore)


def data_json(event: Recorded) -> bytes:
    """
    Write the data of an event as JSON.

    Raises:
        UnreadableEvent: it cannot be read, or is nested too deep to be written.
    """
    try:
        return orjson.dumps(event.data)
    except TypeError:
        raise _unreadable(event) from None


def _unreadable(event: Recorded) -> UnreadableEvent:
    return UnreadableEvent(
        stream=event.stream,
        version=event.version,
        event_type=event.type,
        problem="its data cannot be read as JSON, because of its depth or of a number",
        fix="Another program has inserted it. Skip it where it is read.",
    )
