"""
Avro on the wire: the bytes of one value, in the frame of the usual schema registries.

A frame is byte 0, then the id of the schema in four bytes, the most significant first. fastavro
writes; it is imported when the first value is written. What another program has written is read by
`avro_reader`, which has limits and needs no library.
"""

import io
import struct
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any

from saga_engine.errors import ConfigurationError, InvalidInput
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.schemas.avro_reader import AvroReader, AvroTooLarge, MalformedAvro
from saga_engine.schemas.avro_schema import avro_type
from saga_engine.schemas.avro_values import DoesNotFit
from saga_engine.vocabulary import Json

AVRO_CONTENT_TYPE = "application/avro"
"""The media type of a framed value."""

_FRAME = struct.Struct(">bI")
_MAGIC = 0


def require_fastavro() -> ModuleType:
    """
    Import fastavro.

    Raises:
        ConfigurationError: the extra `avro` is not installed.
    """
    try:
        import fastavro  # noqa: PLC0415 - it is optional
    except ImportError:
        raise ConfigurationError(
            "Avro needs fastavro, which is not installed. Install saga-engine[avro]."
        ) from None
    return fastavro


class AvroCodec:
    """
    Encodes and decodes values of one schema.

    Args:
        subject: names it.
        document: the JSON Schema of what is written.

    Raises:
        InvalidInput: it has no Avro schema.
    """

    def __init__(self, subject: str, document: Json) -> None:
        self._subject = subject
        self._type = avro_type(subject, document)

    @cached_property
    def _write(self) -> Callable[[io.BytesIO, Any], None]:
        fastavro = require_fastavro()
        try:
            parsed = fastavro.parse_schema(self._type.schema)
        except Exception as error:  # noqa: BLE001 - a rule of Avro that `avro_schema` does not know
            raise InvalidInput(
                f"{self._subject} has no Avro schema: fastavro raised {type(error).__name__}."
                " Publish it as JSON."
            ) from None
        return lambda output, value: fastavro.schemaless_writer(output, parsed, value)

    @property
    def schema(self) -> Any:
        """The Avro schema."""
        return self._type.schema

    def encode(self, data: Json) -> bytes:
        """
        Write a value, without a frame.

        Raises:
            InvalidInput: it does not fit the schema.
            ConfigurationError: the extra `avro` is not installed.
        """
        output, write = io.BytesIO(), self._write
        try:
            write(output, self._type.encode(data))
        except DoesNotFit as error:
            problem = f"`{error.path or 'body'}` {error.problem}"
        except (
            ArithmeticError,
            AttributeError,
            KeyError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:  # its text may quote the value
            problem = f"`body` has another format ({type(error).__name__})"
        else:
            return output.getvalue()
        raise InvalidInput(f"A value does not fit the Avro schema of {self._subject}: {problem}.")

    def decode(self, body: bytes, limits: BodyLimits = DEFAULT_LIMITS) -> Json:
        """
        Read a value, without a frame.

        Args:
            body: its bytes; of any length, and by any sender.
            limits: of a value as JSON.

        Raises:
            InvalidInput: it was not written with this schema, or exceeds a limit.
        """
        source = AvroReader(body, limits)
        try:
            source.count_value()
            data = self._type.read(source)
        except AvroTooLarge as error:
            raise InvalidInput(str(error)) from None
        except MalformedAvro as error:
            raise _unreadable(self._subject, str(error)) from None
        except (ArithmeticError, RecursionError, ValueError) as error:
            # A date, a time, a UUID or embedded JSON that is none.
            raise _unreadable(self._subject, type(error).__name__) from None
        if not source.is_at_end:
            raise _unreadable(self._subject, "it has more bytes than its value")
        return data


def _unreadable(subject: str, problem: str) -> InvalidInput:
    return InvalidInput(
        f"A message is not an Avro value of {subject}: {problem}. Check which schema its producer"
        " used."
    )


def frame(schema_id: int, body: bytes) -> bytes:
    """Put a value into the frame of its schema."""
    return _FRAME.pack(_MAGIC, schema_id) + body


def unframe(message: bytes) -> tuple[int, bytes]:
    """
    Return the id of the schema and the value of a frame.

    Raises:
        InvalidInput: the message is not a frame.
    """
    if len(message) < _FRAME.size or message[0] != _MAGIC:
        raise InvalidInput(
            "A message does not begin with byte 0 and the four bytes of a schema's id, as Avro"
            " with a registry does. Check what its producer sends."
        )
    return _FRAME.unpack_from(message)[1], message[_FRAME.size :]
