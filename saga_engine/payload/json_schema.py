"""
The JSON Schema of a type, as pydantic makes it, with what pydantic leaves out.

A reader of a schema, another language or a later version of the type, must know what does not fit.
pydantic writes a decimal number as a text like any other, does not distinguish times with a zone
from others, and is silent on the keys of a map that are numbers. The additions:

    "format": "decimal"            a text that is a decimal number
    "maxDigits", "decimalPlaces"   its digits, and those after the point, as declared
    "timezone": "aware", "naive"   whether a date-time must have an offset, or must not have one
    "bounds"                       of a date, a time or a duration, as declared: `ge`, `now_op`
    "unionMode": "left_to_right"   the first member that can be made of a value is read
    "mayBeAbsent"                  a written field that `exclude_if` may leave out
    "propertyNames"                of a map whose keys are numbers, with the format `integer`
"""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_DIGITS = {"max_digits": "maxDigits", "decimal_places": "decimalPlaces"}
_BOUNDS = {
    "multiple_of": "multipleOf",
    "le": "maximum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "gt": "exclusiveMinimum",
}


class PayloadJsonSchema(GenerateJsonSchema):
    """Makes JSON Schemas for `TypeAdapter.json_schema`."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Describe a decimal number: written as a text, read from a text or a number."""
        declared: Mapping[str, Any] = schema
        limits = {
            keyword: declared[name]
            for name, keyword in _DIGITS.items()
            if declared.get(name) is not None
        }
        # Numbers of JSON, as pydantic writes the bounds of a number.
        limits |= {
            keyword: float(declared[name])
            for name, keyword in _BOUNDS.items()
            if declared.get(name) is not None
        }
        text = {"type": "string", "format": "decimal", **limits}
        return (
            text if self.mode == "serialization" else {"anyOf": [{"type": "number"} | limits, text]}
        )

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        """Describe what pydantic has no schema for as any JSON, and not the whole type."""
        del schema, error_info
        return {}

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        """Describe a date, and its bounds."""
        return super().date_schema(schema) | _bounds(schema)

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """Describe a time, and its bounds."""
        return super().time_schema(schema) | _bounds(schema)

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """Describe a duration, and its bounds."""
        return super().timedelta_schema(schema) | _bounds(schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Describe a point in time, and whether it has a zone."""
        described = super().datetime_schema(schema) | _bounds(schema)
        zone = schema.get("tz_constraint")
        if zone is not None and described.get("type") == "string":
            described["timezone"] = "naive" if zone == "naive" else "aware"
        return described

    def union_schema(self, schema: core_schema.UnionSchema) -> JsonSchemaValue:
        """Describe a union, and whether its first member that can be made of a value is chosen."""
        described = super().union_schema(schema)
        if schema.get("mode") == "left_to_right" and "anyOf" in described:
            return {**described, "unionMode": "left_to_right"}
        return described

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        """Describe a field of a model, and whether it may be left out although it has a value."""
        return self._described_field(schema, super().model_field_schema(schema))

    def dataclass_field_schema(self, schema: core_schema.DataclassField) -> JsonSchemaValue:
        """Describe a field of a dataclass, as one of a model."""
        return self._described_field(schema, super().dataclass_field_schema(schema))

    def _described_field(
        self, schema: Mapping[str, Any], described: JsonSchemaValue
    ) -> JsonSchemaValue:
        if self.mode == "serialization" and schema.get("serialization_exclude_if") is not None:
            return {**described, "mayBeAbsent": True}
        return described

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Describe a map; keys are texts in JSON, also those that are read as numbers."""
        described = super().dict_schema(schema)
        keys = schema.get("keys_schema", {"type": "any"})["type"]
        if keys in ("int", "float", "bool"):
            names = {"int": "integer", "float": "number", "bool": "boolean"}
            described["propertyNames"] = {"type": "string", "format": names[keys]}
        return described


def is_any_json(schema: Mapping[str, Any]) -> bool:
    """Whether a core schema is that of `Any`, which no JSON Schema describes further."""
    while "schema" in schema:
        schema = schema["schema"]
    return bool(schema["type"] == "any")


def _bounds(schema: Mapping[str, Any]) -> JsonSchemaValue:
    names = (*_BOUNDS, "now_op")
    bounds = {name: str(schema[name]) for name in names if schema.get(name) is not None}
    return {"bounds": bounds} if bounds else {}
