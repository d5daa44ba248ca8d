"""Records in Avro: their fields, and what is written for a field that is absent in JSON."""

from collections.abc import Sequence
from typing import Any

from saga_engine.schemas.avro_union import nullable
from saga_engine.schemas.avro_values import BOOLEAN, DOUBLE, LONG, NULL, TEXT, AvroType
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
    """

    def __init__(
        self, key: str, name: str, field_type: AvroType, schema: Any, *, is_required: bool
    ) -> None:
        self.key = key
        self.name = name
        self._default: Any = _ABSENT
        if not is_required and isinstance(schema, dict) and "default" in schema:
            self._default = schema["default"]
        # What is absent without a default is null in Avro, and absent again when it is read.
        self._null_is_absent = not is_required and self._default is _ABSENT
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

    def decode_into(self, record: dict[str, Json], value: Any) -> None:
        """Read the field into a JSON object."""
        if value is not None or not self._null_is_absent:
            record[self.key] = self.type.decode(value)


def record_fits(value: Any, fields: Sequence[AvroField], required: Sequence[str]) -> bool:
    """Whether a JSON object has the fields of a record, to choose a member of a union."""
    types = {each.key: each.type for each in fields}
    return all(key in value for key in required) and all(
        key in types and types[key].accepts(each) for key, each in value.items()
    )
