"""
Trying a type on example values when it is declared: does anything of it survive as JSON?

The examples are made from the JSON schema of what the type reads. A type is refused only when
values could be read and not one of them came back as it was; when nothing can be tried, the values
are looked at as they come.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, SchemaValidator, ValidationError

from saga_engine.payload.equality import same, sort_sets
from saga_engine.payload.secret import TRAVELS
from saga_engine.vocabulary import Json

CONTEXT = {TRAVELS: True}

_LEVELS = 6
"""How deep an example nests; types that refer to themselves have no end."""

_PROBES: tuple[Json, ...] = (None, True, 1, 1.5, "a", [], {}, [1], {"a": 1})


class Tried:
    """What came of it: `lost` when no example survived, and `secret` when the type hides values."""

    __slots__ = ("lost", "secret")

    def __init__(self, lost: str = "", *, secret: bool = False) -> None:
        self.lost = lost
        self.secret = secret


def attempt(schema: Any, config: Any) -> Tried:
    """
    Try a core schema. Nothing is raised: what cannot be tried is not lost.

    Library types only: functions of the author's are not called with made-up values.
    """
    try:
        return _attempt(schema, config)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - an author's serializer may raise, or exit
        return Tried()


def _attempt(schema: Any, config: Any) -> Tried:
    validator, serializer = SchemaValidator(schema, config), SchemaSerializer(schema, config)
    described = _described(schema)
    secret = bool(described.get("writeOnly"))
    read, kinds, survived = 0, set(), False
    for example in _candidates(described):
        try:
            value = validator.validate_json(json.dumps(example), by_alias=True)
        except ValidationError as error:
            kinds |= {each["type"] for each in error.errors(include_url=False)}
            continue
        read += 1
        survived = survived or _survives(value, validator, serializer)
    if read and not survived:
        return Tried("is read back otherwise than it was written", secret=secret)
    if not read and kinds == {"needs_python_object"}:
        return Tried("cannot be read from JSON")
    return Tried()


def _survives(value: Any, validator: SchemaValidator, serializer: SchemaSerializer) -> bool:
    try:
        data = _write(serializer, value)
        back = validator.validate_json(json.dumps(data), by_alias=True)
        return same(value, back) and _write(serializer, back) == data
    except Exception:  # noqa: BLE001 - written or read by functions of others
        return False


def _write(serializer: SchemaSerializer, value: Any) -> Any:
    data = serializer.to_python(
        value, mode="json", by_alias=True, warnings="error", context=CONTEXT
    )
    return sort_sets(value, data)


def _described(schema: Any) -> Mapping[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return GenerateJsonSchema(by_alias=True).generate(schema, mode="validation")
        except Exception:  # noqa: BLE001 - not every type has a JSON schema
            return {}


def is_object_key(schema: Any) -> bool:
    """Whether JSON can say a mapping's key in text: not if it is written as an array or object."""
    described = _described(schema)
    return described.get("type") not in ("array", "object")


def _candidates(described: Mapping[str, Any]) -> Iterator[Json]:
    if described:
        yield from _examples(described, described.get("$defs", {}), _LEVELS)
    else:
        yield from _PROBES


def _examples(described: Any, named: Mapping[str, Any], levels: int) -> list[Json]:
    """Make some JSON values that may fit a JSON schema."""
    if not isinstance(described, Mapping) or levels <= 0:
        return []
    if "$ref" in described:
        return _examples(named.get(described["$ref"].rpartition("/")[2]), named, levels - 1)
    if "const" in described:
        return [described["const"]]
    if "enum" in described:
        return list(described["enum"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in described:
            return [v for each in described[word] for v in _examples(each, named, levels - 1)]
    make = _MAKERS.get(described.get("type", ""))
    return make(described, named, levels) if make else list(_PROBES)


def _texts(described: Mapping[str, Any], _: Mapping[str, Any], __: int) -> list[Json]:
    formats = _FORMATS.get(described.get("format", ""), ())
    least = described.get("minLength", 0)
    plain = [each.ljust(least, "a") for each in ("ab", "a", "1", "-1.5", "A1", "/a", "a.b")]
    return [*formats, *plain]


def _numbers(described: Mapping[str, Any], _: Mapping[str, Any], __: int) -> list[Json]:
    step = described.get("multipleOf", 1)
    edges = [described.get(word) for word in ("minimum", "maximum")]
    inside = [described[word] + step for word in ("exclusiveMinimum",) if word in described]
    inside += [described[word] - step for word in ("exclusiveMaximum",) if word in described]
    return [*(each for each in edges if each is not None), *inside, step, 0, 7 * step, 1.5]


def _arrays(described: Mapping[str, Any], named: Mapping[str, Any], levels: int) -> list[Json]:
    first = [_examples(each, named, levels - 1)[:1] for each in described.get("prefixItems", [])]
    members = _examples(described.get("items", {"type": "integer"}), named, levels - 1)
    if first:
        return [[value for each in first for value in each]]
    least = described.get("minItems", 0)
    return (
        [members[: max(least, 2)], [*members[:1]] * max(least, 1), [members[0]] * least]
        if (members)
        else [[]]
    )


def _objects(described: Mapping[str, Any], named: Mapping[str, Any], levels: int) -> list[Json]:
    properties = described.get("properties", {})
    required = described.get("required", [])
    made = {name: _examples(each, named, levels - 1) for name, each in properties.items()}
    if "additionalProperties" in described and not properties:
        members = _examples(described["additionalProperties"], named, levels - 1) or [1]
        keys = _examples(described.get("propertyNames", {"type": "string"}), named, levels - 1)
        return [{str(key): members[0]} for key in keys[:4]]
    some = {name: values[0] for name, values in made.items() if values and name in required}
    full = {name: values[0] for name, values in made.items() if values}
    other = {name: values[-1] for name, values in made.items() if values}
    return [full, some, other]


_MAKERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], list[Json]]] = {
    "string": _texts,
    "integer": _numbers,
    "number": _numbers,
    "array": _arrays,
    "object": _objects,
    "boolean": lambda _, __, ___: [True, False],
    "null": lambda _, __, ___: [None],
}

_FORMATS: Mapping[str, tuple[str, ...]] = {
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
