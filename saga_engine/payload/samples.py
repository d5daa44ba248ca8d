"""
Trying a type on example values when it is declared: can a value of it be read back from JSON?

The examples are made from the JSON schema of what the type reads. A type is refused only if
examples could be read and none of them came back unchanged. If no example can be tried, each value
is read back before it is sent.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, SchemaValidator, ValidationError, core_schema

from saga_engine.payload.equality import is_same_value, sort_sets
from saga_engine.payload.secret import REVEAL_SECRETS
from saga_engine.vocabulary import Json

SERIALIZATION_CONTEXT = {REVEAL_SECRETS: True}

_MAX_DEPTH = 6
"""How deep an example nests; types that refer to themselves would have no end."""

_DECIMAL_LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
_DECIMAL_DIGITS = {"maxDigits": "max_digits", "decimalPlaces": "decimal_places"}

_FALLBACK_SAMPLES: tuple[Json, ...] = (None, True, 1, 1.5, "a", [], {}, [1], {"a": 1})


class SampleResult:
    """`problem` if no example came back unchanged; `hides_value` if the type hides its values."""

    __slots__ = ("hides_value", "problem")

    def __init__(self, problem: str = "", *, hides_value: bool = False) -> None:
        self.problem = problem
        self.hides_value = hides_value


def try_samples(schema: Any, config: Any) -> SampleResult:
    """
    Try a core schema. Nothing is raised: a type that cannot be tried is not refused.

    Library types only: the author's functions are not called with made-up values.
    """
    try:
        return _try_samples(schema, config)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - an author's serializer may raise, or exit
        return SampleResult()


def _try_samples(schema: Any, config: Any) -> SampleResult:
    validator, serializer = SchemaValidator(schema, config), SchemaSerializer(schema, config)
    json_schema = _json_schema(schema)
    hides_value = bool(json_schema.get("writeOnly"))
    samples_read, error_types, survived = 0, set(), False
    for example in samples(json_schema):
        try:
            value = validator.validate_json(json.dumps(example), by_alias=True)
        except ValidationError as error:
            error_types |= {each["type"] for each in error.errors(include_url=False)}
            continue
        samples_read += 1
        survived = survived or _round_trips(value, validator, serializer)
    if samples_read and not survived:
        return SampleResult("is not read back as it was written", hides_value=hides_value)
    if not samples_read and error_types == {"needs_python_object"}:
        return SampleResult("cannot be read from JSON")
    return SampleResult()


def _round_trips(value: Any, validator: SchemaValidator, serializer: SchemaSerializer) -> bool:
    try:
        data = _serialize(serializer, value)
        back = validator.validate_json(json.dumps(data), by_alias=True)
        return is_same_value(value, back) and _serialize(serializer, back) == data
    except Exception:  # noqa: BLE001 - other libraries' functions may raise anything
        return False


def _serialize(serializer: SchemaSerializer, value: Any) -> Any:
    data = serializer.to_python(
        value, mode="json", by_alias=True, warnings="error", context=SERIALIZATION_CONTEXT
    )
    return sort_sets(value, data)


def _json_schema(schema: Any) -> Mapping[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return GenerateJsonSchema(by_alias=True).generate(schema, mode="validation")
        except Exception:  # noqa: BLE001 - not every type has a JSON schema
            return {}


def is_object_key(schema: Any) -> bool:
    """Whether a mapping's key can be text in JSON: not if it is written as an array or object."""
    json_schema = _json_schema(schema)
    return json_schema.get("type") not in ("array", "object")


def samples(json_schema: Mapping[str, Any]) -> Iterator[Json]:
    """Make some JSON values that may fit a JSON schema."""
    if json_schema:
        yield from _generate_samples(json_schema, json_schema.get("$defs", {}), _MAX_DEPTH)
    else:
        yield from _FALLBACK_SAMPLES


def _generate_samples(json_schema: Any, definitions: Mapping[str, Any], depth: int) -> list[Json]:
    """Some JSON values that may fit a JSON schema."""
    if not isinstance(json_schema, Mapping) or depth <= 0:
        return []
    if "$ref" in json_schema:
        return _generate_samples(
            definitions.get(json_schema["$ref"].rpartition("/")[2]), definitions, depth - 1
        )
    if "const" in json_schema:
        return [json_schema["const"]]
    if "enum" in json_schema:
        return list(json_schema["enum"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in json_schema:
            return [
                v
                for each in json_schema[word]
                for v in _generate_samples(each, definitions, depth - 1)
            ]
    generate = _GENERATORS.get(json_schema.get("type", ""))
    return generate(json_schema, definitions, depth) if generate else list(_FALLBACK_SAMPLES)


def _string_samples(json_schema: Mapping[str, Any], _: Mapping[str, Any], __: int) -> list[Json]:
    if json_schema.get("format") == "decimal":
        return _decimal_samples(json_schema)
    if "schemes" in json_schema:
        return [f"{each}://example.com/a" for each in json_schema["schemes"]]
    if formats := FORMAT_SAMPLES.get(json_schema.get("format", "")):
        return [*formats]
    min_length = json_schema.get("minLength", 0)
    return [each.ljust(min_length, "a") for each in ("ab", "a", "1", "-1.5", "A1", "/a", "a.b")]


def _decimal_samples(json_schema: Mapping[str, Any]) -> list[Json]:
    """Decimal numbers as texts, within the bounds and digits of a schema."""
    bounds = {
        name: Decimal(str(json_schema[keyword]))
        for keyword, name in _DECIMAL_LIMITS.items()
        if keyword in json_schema
    }
    digits = {
        name: json_schema[keyword]
        for keyword, name in _DECIMAL_DIGITS.items()
        if keyword in json_schema
    }
    limits: Mapping[str, Any] = {**bounds, **digits}
    validator = SchemaValidator(core_schema.decimal_schema(**limits))
    numbers = [Decimal(1), *bounds.values(), Decimal(0), Decimal("0.5"), Decimal("1.5")]
    return [str(each) for each in numbers if validator.isinstance_python(each)]


def _number_samples(json_schema: Mapping[str, Any], _: Mapping[str, Any], __: int) -> list[Json]:
    step = json_schema.get("multipleOf", 1)
    edges = [json_schema.get(word) for word in ("minimum", "maximum")]
    inside = [json_schema[word] + step for word in ("exclusiveMinimum",) if word in json_schema]
    inside += [json_schema[word] - step for word in ("exclusiveMaximum",) if word in json_schema]
    return [*(each for each in edges if each is not None), *inside, step, 0, 7 * step, 1.5]


def _array_samples(
    json_schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int
) -> list[Json]:
    first = [
        _generate_samples(each, definitions, depth - 1)[:1]
        for each in json_schema.get("prefixItems", [])
    ]
    members = _generate_samples(
        json_schema.get("items", {"type": "integer"}), definitions, depth - 1
    )
    if first:
        return [[value for each in first for value in each]]
    min_items = json_schema.get("minItems", 0)
    return (
        [members[: max(min_items, 2)], [*members[:1]] * max(min_items, 1), [members[0]] * min_items]
        if (members)
        else [[]]
    )


def _object_samples(
    json_schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int
) -> list[Json]:
    properties = json_schema.get("properties", {})
    required = json_schema.get("required", [])
    samples = {
        name: _generate_samples(each, definitions, depth - 1) for name, each in properties.items()
    }
    if "additionalProperties" in json_schema and not properties:
        members = _generate_samples(
            json_schema["additionalProperties"], definitions, depth - 1
        ) or [1]
        keys = _generate_samples(
            json_schema.get("propertyNames", {"type": "string"}), definitions, depth - 1
        )
        return [{str(key): members[0]} for key in keys[:4]]
    some = {name: values[0] for name, values in samples.items() if values and name in required}
    full = {name: values[0] for name, values in samples.items() if values}
    other = {name: values[-1] for name, values in samples.items() if values}
    return [full, some, other]


_GENERATORS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], list[Json]]] = {
    "string": _string_samples,
    "integer": _number_samples,
    "number": _number_samples,
    "array": _array_samples,
    "object": _object_samples,
    "boolean": lambda _, __, ___: [True, False],
    "null": lambda _, __, ___: [None],
}

FORMAT_SAMPLES: Mapping[str, tuple[str, ...]] = {
    "decimal": ("1",),
    "date-time": ("2026-01-02T00:00:00Z", "2026-01-02T03:04:05.678901+01:00"),
    "date": ("2026-01-02",),
    "time": ("03:04:05", "00:00:00Z"),
    "duration": ("P1DT2H", "PT1.5S", "PT0S"),
    "uuid": ("01890a5d-ac96-774b-bcce-b302099a8057", "c56a4180-65aa-42ec-a945-5fd21dec0538"),
    "uri": ("https://example.com/a", "postgresql://u:p@example.com:5432/a", "redis://localhost"),
    "multi-host-uri": ("postgresql://u:p@example.com:5432/a",),
    "email": ("a@example.com",),
    "ipv4": ("192.0.2.1",),
    "ipv6": ("2001:db8::1",),
    "ipv4network": ("192.0.2.0/24",),
    "ipv6network": ("2001:db8::/32",),
    "ipv4interface": ("192.0.2.1/24",),
    "ipv6interface": ("2001:db8::1/32",),
    "base64": ("YWI=",),
    "base64url": ("YWI=",),
    "json-string": ("1", "[]"),
}
