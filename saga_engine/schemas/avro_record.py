"""Records in Avro: their fields, and what is written for a field that is absent in JSON."""

from collections.abc import Sequence
from typing import Any

from saga_engine.schemas.avro_reader import AvroReader
from saga_engine.schemas.avro_union import nullable
from saga_engine.schemas.avro_values import (
    ANY_JSON,
    BOOLEAN,
    DOUBLE,
    LONG,
    NULL,
    TEXT,
    AvroType,
    DoesNotFit,
)
from saga_engine.vocabulary import Json

_WITH_DEFAULTS = {BOOLEAN, DOUBLE, LONG, TEXT}
_ABSENT = object()


class AvroField:
    """
    One field.

    Args:
        key: its name in JSON.
        name: its name in Avro.
        field_type: the type of its values.
        schema: its JSON Schema.
        is_required: whether it is always present.

    Attributes:
        null_has_two_meanings: whether null and an absent field could not be distinguished.
    """

    def __init__(
        self, key: str, name: str, field_type: AvroType, schema: Any, *, is_required: bool
    ) -> None:
        self.key = key
        self.name = name
        node = schema if isinstance(schema, dict) else {}
        default = node.get("default", _ABSENT)
        # A later version of the class may have another default: what it leaves out is not this one.
        is_left_out = node.get("mayBeAbsent", False)
        self._default: Any = _ABSENT if is_required or is_left_out else default
        # What is absent without a default is null in Avro, and absent again when it is read.
        self._null_is_absent = not is_required and self._default is _ABSENT
        may_be_null = field_type in (NULL, ANY_JSON) or NULL in field_type.members
        self.null_has_two_meanings = self._null_is_absent and may_be_null and default is not None
        self.type = nullable(field_type) if self._null_is_absent else field_type
        if self._default is None and NULL in field_type.members:
            self.type = nullable(field_type)  # null first

    @property
    def schema(self) -> dict[str, Any]:
        """The field in an Avro schema, with a default if one can be written there."""
        field = {"name": self.name, "type": self.type.schema}
        first = self.type.members[0] if self.type.members else self.type
        if self._null_is_absent or (self._default is None and first is NULL):
            return {**field, "default": None}
        if self._default is _ABSENT or not first.accepts(self._default):
            return field
        is_empty = self._default in ([], {}) and not first.is_named
        if (
            first in _WITH_DEFAULTS
            or is_empty
            or (first.is_named and isinstance(self._default, str))
        ):
            return {**field, "default": self._default}
        return field

    def encode(self, record: Any) -> Any:
        """Write the field of a JSON object."""
        value = record.get(self.key, self._default)
        return self.type.encode(None if value is _ABSENT else value)

    def read_into(self, record: dict[str, Json], source: AvroReader) -> None:
        """Read the field into a JSON object."""
        source.count_value()
        value = self.type.read(source)
        if value is not None or not self._null_is_absent:
            record[self.key] = value


def write_record(value: Any, fields: Sequence[AvroField]) -> dict[str, Any]:
    """
    Turn a JSON object into what fastavro writes.

    Raises:
        DoesNotFit: a value cannot be written, or would be lost because the record has no such
            field.
    """
    record: dict[str, Any] = {}
    for each in fields:
        try:
            record[each.name] = each.encode(value)
        except DoesNotFit as error:
            path = f"{each.key}.{error.path}" if error.path else each.key
            raise DoesNotFit(error.problem, path) from None
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            # The text of the error may quote the value.
            raise DoesNotFit(f"has another format ({type(error).__name__})", each.key) from None
    if unknown := value.keys() - {each.key for each in fields}:
        raise DoesNotFit("is not in the schema", min(unknown))
    return record


def read_record(source: AvroReader, fields: Sequence[AvroField]) -> Json:
    """Read the bytes of a record into a JSON object."""
    record: dict[str, Json] = {}
    with source.nested():
        for each in fields:
            each.read_into(record, source)
    return record


def record_fits(value: Any, fields: Sequence[AvroField], required: Sequence[str]) -> bool:
    """Whether a JSON object has the fields of a record, to choose a member of a union."""
    types = {each.key: each.type for each in fields}
    return all(key in value for key in required) and all(
        key in types and types[key].accepts(each) for key, each in value.items()
    )
