"""
Fields of an event that are made of its row when they are first read: its id, data and origin.

Most readers need only some of them, and a rebuild reads millions of events. Data that cannot be
read as JSON, because it is nested too deep or has too large a number, is an error only for who
reads it: another program has inserted it, because an append refuses such data. The events around it
are read, and an operator can skip it.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha1
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from saga_engine.errors import UnreadableEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class StoredContent(NamedTuple):
    """
    What the fields are made of.

    Args:
        log_id: of the log that the event is from.
        data: JSON.
        metadata: JSON, an object.
    """

    log_id: UUID
    data: str
    metadata: str


class StoredFields:
    """
    What an event has of its row, beside the fields that are columns.

    Raises:
        UnreadableEvent: on access to `data`, when it is not JSON that can be read.
    """

    __slots__ = ("_content",)
    _content: StoredContent

    def stored_json(self) -> str | None:
        """
        Give the data as it is stored; None when the event was not made of a row.

        Raises:
            UnreadableEvent: it is not JSON that `data` could be made of.
        """
        try:
            content = self._content
        except AttributeError:
            return None
        _decode_data(self, content)
        return content.data

    def require_exact_numbers(self) -> None:
        """
        Check that `data` has the numbers that are stored: they fit into 64 bits or a float.

        Raises:
            UnreadableEvent: a number has more digits; another program has inserted it.
        """
        stored = self.stored_json()
        if stored and _LONG_NUMBER.search(stored):
            numbers = _NUMBER.findall(_TEXT.sub("", stored))
            if not all(map(_is_exact, numbers)):
                raise unreadable_data(self)

    def forget_data(self) -> None:
        """Make `data` of the row again when it is read next: a function may have altered it."""
        if hasattr(self, "_content"):
            with suppress(AttributeError):
                object.__delattr__(self, "data")

    if not TYPE_CHECKING:  # it would hide misspelt fields

        def __getattr__(self, name: str) -> Any:
            """Make a field that has no value yet."""
            decode = _DECODERS.get(name)
            if decode is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = decode(self, self._content)
            object.__setattr__(self, name, value)
            return value


# Only such text can have a number that is not exact; nearly all has none.
_LONG_NUMBER = re.compile(r"[0-9][0-9.]{15}|[0-9][eE]")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def _is_exact(number: str) -> bool:
    if number.lstrip("-").isdigit() and -(2**63) <= Decimal(number) < 2**64:
        return True
    return Decimal(number) == Decimal(repr(float(number)))


def event_id(log_id: UUID, stream: str, version: int, place: int, recorded_at: datetime) -> UUID:
    """Make the id of an event: a UUIDv5 of what its row never changes."""
    microseconds = (recorded_at - _EPOCH) // _MICROSECOND
    name = f"{version}/{place}/{microseconds}/{stream}"
    # uuid5() of the library, at half its time.
    digest = sha1(log_id.bytes + name.encode(), usedforsecurity=False).digest()
    return UUID(int=int.from_bytes(digest[:16], "big"), version=5)


def _decode_id(event: Any, content: StoredContent) -> UUID:
    return event_id(content.log_id, event.stream, event.version, event.place, event.recorded_at)


def _decode_data(event: Any, content: StoredContent) -> Any:
    try:
        return orjson.loads(content.data)
    except orjson.JSONDecodeError:
        raise unreadable_data(event) from None


def unreadable_data(event: Any) -> UnreadableEvent:
    """Make the error of a stored event whose data cannot be read or written as JSON."""
    return UnreadableEvent(
        stream=event.stream,
        version=event.version,
        event_type=event.type,
        problem="its data cannot be read as JSON, because of its depth or of a number",
        fix="Another program has inserted it. Skip it where it is read.",
    )


def _origin(name: str) -> Callable[[Any, StoredContent], str | None]:
    """Read a part of the origin. Rows of other programs may have more, or something else."""

    def decode(_event: Any, content: StoredContent) -> str | None:
        if name not in content.metadata:
            return None  # most events have no actor, and many no origin
        try:
            known = orjson.loads(content.metadata)
        except orjson.JSONDecodeError:
            return None
        found = known.get(name)
        return found if isinstance(found, str) else None

    return decode


def _schema_id(_event: Any, content: StoredContent) -> int | None:
    if '"schema_id"' not in content.metadata:
        return None  # nearly all of a log that is older than its schemas
    try:
        found = orjson.loads(content.metadata).get("schema_id")
    except orjson.JSONDecodeError:
        return None
    return found if type(found) is int else None


ORIGIN_NAMES = ("correlation_id", "causation_id", "actor")
"""What is stored of the origin of an event, beside its data."""

_DECODERS: Mapping[str, Callable[[Any, StoredContent], Any]] = {
    "id": _decode_id,
    "data": _decode_data,
    **{name: _origin(name) for name in ORIGIN_NAMES},
    "schema_id": _schema_id,
}
