"""
The bytes of an Avro value as they are read, within the limits of a message's body.

The sender controls every byte. A length is never allocated before as many bytes are there, and the
depth and the number of values have limits: an array of a million records without fields has three
bytes. fastavro has no such limits, and a body that nests deep enough ends the process in it.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from saga_engine.payload.limits import BodyLimits, LimitViolation, depth_violation, values_violation

_DOUBLE = struct.Struct("<d")
_LAST_BIT = 63
"""Of the last byte that a number of 64 bits can have."""
_LEAST, _GREATEST = -(2**63), 2**63 - 1


class MalformedAvro(ValueError):
    """The bytes are not a value of the schema; the text says what is wrong, and quotes nothing."""


class AvroTooLarge(ValueError):
    """
    The value exceeds a limit.

    Args:
        violation: which one.
    """

    def __init__(self, violation: LimitViolation) -> None:
        super().__init__(violation.message)


class AvroReader:
    """
    Reads one body from its beginning to its end.

    Args:
        body: a value without a frame.
        limits: how deep it nests, and how many values it has, at most.
    """

    def __init__(self, body: bytes, limits: BodyLimits) -> None:
        self._body = body
        self._place = 0
        self._limits = limits
        self._depth = 0
        self._values_left = limits.max_values

    @property
    def is_at_end(self) -> bool:
        """Whether every byte was read."""
        return self._place == len(self._body)

    def count_value(self) -> None:
        """Count a value, also one of no bytes."""
        self._values_left -= 1
        if self._values_left < 0:
            raise AvroTooLarge(values_violation(self._limits.max_values))

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Read an array, a map or a record in the block."""
        self._depth += 1
        if self._depth > self._limits.max_depth:
            raise AvroTooLarge(depth_violation(self._limits.max_depth))
        yield
        self._depth -= 1

    def integer(self) -> int:
        """Read a number of at most 64 bits."""
        number = bits = 0
        while True:
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << bits
            if byte < 0x80:
                break
            bits += 7
            if bits > _LAST_BIT:
                raise MalformedAvro("a number has more than 64 bits")
        number = (number >> 1) ^ -(number & 1)
        if not _LEAST <= number <= _GREATEST:
            raise MalformedAvro("a number has more than 64 bits")
        return number

    def index(self, length: int) -> int:
        """Read the number of a member of a union, or of a symbol; from 0, less than *length*."""
        found = self.integer()
        if not 0 <= found < length:
            raise MalformedAvro("a union or an enum has no member of a number")
        return found

    def double(self) -> float:
        """Read a floating-point number."""
        number: float = _DOUBLE.unpack(self._take(_DOUBLE.size))[0]
        return number

    def boolean(self) -> bool:
        """Read a byte that is 0 or 1."""
        found = self._take(1)[0]
        if found > 1:
            raise MalformedAvro("a boolean is neither 0 nor 1")
        return found == 1

    def content(self) -> bytes:
        """Read bytes that follow their length."""
        return self._take(self.integer())

    def text(self) -> str:
        """Read a text in UTF-8."""
        try:
            return self.content().decode()
        except UnicodeDecodeError:
            raise MalformedAvro("a text is not UTF-8") from None

    def blocks(self) -> Iterator[None]:
        """Yield once for each item of an array or a map; the caller reads it."""
        while number := self.integer():
            if number < 0:
                self.integer()  # the size of the block in bytes, for readers that skip it
                number = -number
            for _ in range(number):
                yield

    def _take(self, length: int) -> bytes:
        end = self._place + length
        if length < 0 or end > len(self._body):
            raise MalformedAvro("it ends before its value does")
        taken = self._body[self._place : end]
        self._place = end
        return taken
