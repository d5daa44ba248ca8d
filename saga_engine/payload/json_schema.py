"""
The JSON Schema of a type, as pydantic makes it, with what pydantic leaves out.

A reader of a schema, another language or a later version of the type, must know what does not fit.
pydantic writes a decimal number as a text like any other, does not distinguish times with a zone
from others, and is silent on the keys of a map that are numbers. The additions:

    "format": "decimal"            a text that is a decimal number
    "format": "base64url", "hex"   how bytes are written and read; pydantic names one of them
    "maxDigits", "decimalPlaces"   its digits, and those after the point, as declared
    "mayBeInfinite"                a decimal number that may be Infinity or NaN
    "timezone": "aware", "naive"   whether a date-time must have an offset, or must not have one
    "bounds"                       of a date, a time or a duration, as declared: `ge`, `now_op`; and
                                   of a decimal number, if a number of JSON would alter them
    "stripped", "uppercase", "lowercase", "ascii"
                                   a text without spaces around it, or of one case, made so if it
                                   is read; a text of ASCII alone
    "schemes", "hostRequired"      of a URL
    "regexEngine", "regexFlags"    of a pattern, if it is not the default
    "unionMode": "left_to_right"   the first member that can be made of a value is read
    "mayBeAbsent"                  a written field that `exclude_if` may leave out
    "readAs"                       the names by which a field is read, in their order, if there are
                                   several; one inside another field is a list
    "propertyNames"                of a map whose keys are no texts, with the format `integer`
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from saga_engine.payload.round_trip import is_library_function

_DIGITS = {"max_digits": "maxDigits", "decimal_places": "decimalPlaces"}
_BOUNDS = {
    "multiple_of": "multipleOf",
    "le": "maximum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "gt": "exclusiveMinimum",
}
_KINDS_OF_TEXT = {
    "ascii_only": "ascii",
    "strip_whitespace": "stripped",
    "to_upper": "uppercase",
    "to_lower": "lowercase",
}
_ENCODINGS = {"utf8": "binary", "base64": "base64url", "hex": "hex"}
_NUMBERS = frozenset({"integer", "number", "boolean"})


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
        limits |= _decimal_bounds(declared)
        if declared.get("allow_inf_nan", self._config.config_dict.get("allow_inf_nan")):
            limits["mayBeInfinite"] = True
        text = {"type": "string", "format": "decimal", **limits}
        return (
            text if self.mode == "serialization" else {"anyOf": [{"type": "number"} | limits, text]}
        )

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        """Describe what pydantic has no schema for as any JSON, and not the whole type."""
        del schema, error_info
        return {}

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """Describe a text, and what of it is changed when it is read."""
        described = super().str_schema(schema)
        declared: Mapping[str, Any] = schema
        config = self._config.config_dict
        for name, keyword in _KINDS_OF_TEXT.items():
            if declared.get(name, config.get(f"str_{name}")):
                described[keyword] = True
        if "pattern" in described:
            described |= _regex_engine(declared, config.get("regex_engine", "rust-regex"))
        return described

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Describe bytes, and how they are a text."""
        is_read = self.mode == "validation"
        encoding = self._config.val_json_bytes if is_read else self._config.ser_json_bytes
        return {**super().bytes_schema(schema), "format": _ENCODINGS[encoding]}

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """Describe a URL, and its schemes."""
        return super().url_schema(schema) | _url_limits(schema)

    def multi_host_url_schema(self, schema: core_schema.MultiHostUrlSchema) -> JsonSchemaValue:
        """Describe a URL that may name several hosts, and its schemes."""
        return super().multi_host_url_schema(schema) | _url_limits(schema)

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
        return self._described_map(schema, super().dict_schema(schema))

    def frozendict_schema(self, schema: core_schema.FrozenDictSchema) -> JsonSchemaValue:
        """Describe a map, as `dict_schema` does."""
        return self._described_map(schema, super().frozendict_schema(schema))

    def ordered_dict_schema(self, schema: core_schema.OrderedDictSchema) -> JsonSchemaValue:
        """Describe a map, as `dict_schema` does."""
        return self._described_map(schema, super().ordered_dict_schema(schema))

    def counter_schema(self, schema: core_schema.CounterSchema) -> JsonSchemaValue:
        """Describe a map, as `dict_schema` does."""
        return self._described_map(schema, super().counter_schema(schema))

    def _described_map(
        self, schema: Mapping[str, Any], described: JsonSchemaValue
    ) -> JsonSchemaValue:
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        names = _as_name(keys)
        if names != keys or (keys and keys.get("type") != "string"):
            described["propertyNames"] = names
        return described

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        """Describe what the author's serializers write as any JSON, if they do not say it."""
        if schema["type"] in ("format", "to-string"):
            return {"type": "string"}
        described = super().ser_schema(schema)
        if described is None and schema["type"] in ("function-plain", "function-wrap"):
            return None if is_library_function(schema["function"]) else {}
        return described

    def model_fields_schema(self, schema: core_schema.ModelFieldsSchema) -> JsonSchemaValue:
        """Describe the fields of a model, and by which names they are read."""
        return self._named_fields(
            super().model_fields_schema(schema), schema["fields"], self._config.config_dict
        )

    def dataclass_args_schema(self, schema: core_schema.DataclassArgsSchema) -> JsonSchemaValue:
        """Describe the fields of a dataclass, as those of a model."""
        fields = {each["name"]: each for each in schema["fields"]}
        return self._named_fields(
            super().dataclass_args_schema(schema), fields, self._config.config_dict
        )

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        """Describe the fields of a TypedDict, as those of a model."""
        config: Mapping[str, Any] = schema.get("config", {})
        return self._named_fields(super().typed_dict_schema(schema), schema["fields"], config)

    def _named_fields(
        self, described: JsonSchemaValue, fields: Mapping[str, Any], config: Mapping[str, Any]
    ) -> JsonSchemaValue:
        by_name = config.get("validate_by_name") or config.get("populate_by_name")
        properties = described.get("properties", {})
        for name, field in fields.items() if self.mode == "validation" else ():
            names = [*_names(field.get("validation_alias", name))]
            shown = next((each for each in names if isinstance(each, str)), name)
            names += [name] if by_name and name not in names else []
            if names != [shown] and shown in properties:
                properties[shown]["readAs"] = names
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


def _decimal_bounds(schema: Mapping[str, Any]) -> JsonSchemaValue:
    """Give bounds as numbers of JSON, as pydantic does; as texts, if they would be altered."""
    declared = {name: Decimal(schema[name]) for name in _BOUNDS if schema.get(name) is not None}
    exact = {name: value for name, value in declared.items() if _is_exact(value)}
    rest = {name: str(value) for name, value in declared.items() if name not in exact}
    numbers: JsonSchemaValue = {_BOUNDS[name]: float(value) for name, value in exact.items()}
    return numbers | ({"bounds": rest} if rest else {})


def _is_exact(value: Decimal) -> bool:
    return Decimal(repr(float(value))) == value


def _url_limits(schema: Mapping[str, Any]) -> JsonSchemaValue:
    limits = {"allowed_schemes": "schemes", "host_required": "hostRequired"}
    return {keyword: schema[name] for name, keyword in limits.items() if schema.get(name)}


def _regex_engine(schema: Mapping[str, Any], default: str) -> JsonSchemaValue:
    pattern = schema["pattern"]
    if not isinstance(pattern, re.Pattern):
        engine = schema.get("regex_engine", default)
        return {} if engine == "rust-regex" else {"regexEngine": engine}
    flags = int(pattern.flags & ~re.UNICODE)
    return {"regexEngine": "python-re"} | ({"regexFlags": flags} if flags else {})


def _as_name(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Describe the key of a map: a text, also in the place of a number."""
    kind = schema.get("type")
    if kind in _NUMBERS and not {"const", "enum"} & schema.keys():
        return {**schema, "type": "string", "format": kind}
    members = schema.get("anyOf", ())
    if any(each.get("format") == "decimal" for each in members):
        # A number is not read from a number here.
        members = [each for each in members if each.get("type") != "number"]
    members = [_as_name(each) for each in members if each.get("type") != "null"]
    return {**schema, "anyOf": members} if len(members) > 1 else members[0] if members else schema


def _names(alias: Any) -> Iterator[Any]:
    """Give the names of an alias, in their order: a text, or the path to a part of a field."""
    if isinstance(alias, str):
        yield alias
    elif alias and isinstance(alias[0], list):
        yield from (path[0] if len(path) == 1 else path for path in alias)
    else:
        yield alias[0] if len(alias) == 1 else alias
