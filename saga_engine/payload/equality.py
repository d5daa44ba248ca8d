"""
Whether a value arrived unchanged; and sets in one order, so that every process writes the same.

Stricter than `==`, for which (1, 2) equals a NamedTuple and which ignores what a class does not
compare; and wider for datetimes, which differ for `==` in the hour that a zone's clock repeats.
Two numbers, or two texts, are the same if they are equal: JSON has one kind of each.
"""

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Any

from saga_engine.payload.secret import Secret
from saga_engine.vocabulary import Json

_MISSING = object()

_PLAIN_EQUALITY_TYPES = frozenset({str, int, float, bool, bytes, Decimal})
"""Types for which `==` is exact."""


def is_same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same; what their classes' `__eq__` raises is not caught."""
    kind = type(one)
    if one is other:
        return True
    if kind in _PLAIN_EQUALITY_TYPES and type(other) is kind:
        return bool(one == other)
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if kind is type(other) and isinstance(getattr(kind, "__pydantic_fields__", None), dict):
        return _models_equal(one, other)
    for kinds, compare in _COMPARATORS:
        if isinstance(one, kinds) and isinstance(other, kinds):
            return compare(one, other)
    return kind is type(other) and _objects_equal(one, other)


def _objects_equal(one: Any, other: Any) -> bool:
    fields = fields_of(one)
    return bool(one == other) if fields is None else _fields_equal(fields, fields_of(other) or ())


def _models_equal(one: Any, other: Any) -> bool:
    """Compare fields and what `extra="allow"` kept; private attributes do not count."""
    if not hasattr(one, "__dict__"):
        return _fields_equal(fields_of(one) or (), fields_of(other) or ())
    mine, theirs = one.__dict__, other.__dict__
    for name in type(one).__pydantic_fields__:
        if not is_same_value(mine.get(name, _MISSING), theirs.get(name, _MISSING)):
            return False
    extra, others = (getattr(each, "__pydantic_extra__", None) or {} for each in (one, other))
    return not (extra or others) or _mappings_equal(extra, others)


def _fields_equal(fields: Iterable[tuple[str, Any]], others: Iterable[tuple[str, Any]]) -> bool:
    """Whether fields, which have one order for one class, are the same."""
    pairs = zip_longest(fields, others, fillvalue=("", _MISSING))
    return all(
        mine == theirs and is_same_value(one, other) for (mine, one), (theirs, other) in pairs
    )


def _times_equal(one: Any, other: Any) -> bool:
    """The same local time at the same offset from UTC; the name of a zone does not count."""
    offsets = one.utcoffset(), other.utcoffset()
    return offsets[0] == offsets[1] and bool(
        one.replace(tzinfo=None, fold=0) == other.replace(tzinfo=None, fold=0)
    )


def _mappings_equal(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    if isinstance(one, OrderedDict) and len(one) > 1:
        return False  # jsonb does not keep the order of keys
    keys = {key: key for key in other}
    return len(one) == len(other) and all(
        key in keys and is_same_value(key, keys[key]) and is_same_value(value, other[key])
        for key, value in one.items()
    )


def _sets_equal(one: Any, other: Any) -> bool:
    members = {each: each for each in other}
    return len(one) == len(other) and all(
        each in members and is_same_value(each, members[each]) for each in one
    )


def _plain_equal(one: Any, other: Any) -> bool:
    return bool(one == other)


def _secrets_equal(one: Secret[Any], other: Secret[Any]) -> bool:
    return is_same_value(one.get_secret_value(), other.get_secret_value())


def _dates_equal(one: date, other: date) -> bool:
    return type(one) is type(other) and one == other


_COMPARATORS: tuple[tuple[Any, Callable[[Any, Any], bool]], ...] = (
    (str, _plain_equal),
    ((int, float), _plain_equal),
    (datetime, _times_equal),
    (time, _times_equal),
    (date, _dates_equal),
    (dict, _mappings_equal),
    ((set, frozenset), _sets_equal),
    (Secret, _secrets_equal),
)


def fields_of(value: Any) -> Iterable[tuple[str, Any]] | None:
    """The parts of a value, by name; None if its class compares itself or has no known parts."""
    if isinstance(value, list | tuple) or type(value).__name__ == "deque":
        return ((str(index), each) for index, each in enumerate(value))
    if isinstance(value, dict):
        return ((str(name), each) for name, each in value.items())
    declared = getattr(type(value), "__pydantic_fields__", None)
    if isinstance(declared, dict):
        extra = sorted((getattr(value, "__pydantic_extra__", None) or {}).items())
        return chain(_present_fields(value, declared), extra)
    if dataclasses.is_dataclass(value):
        return _present_fields(value, [each.name for each in dataclasses.fields(value)])
    equality_method: Any = type(value).__eq__
    if equality_method is object.__eq__ and hasattr(value, "__dict__"):
        inner: dict[str, Any] = vars(value)
        return iter(inner.items())
    return None


def _present_fields(value: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(value, name)) for name in names if hasattr(value, name))


def sort_sets(value: Any, data: Json) -> Json:
    """Sort the JSON of the sets in *value* by the JSON of their members."""
    if isinstance(value, Secret):
        return sort_sets(value.get_secret_value(), data)
    if isinstance(data, list):
        if isinstance(value, set | frozenset | list | tuple) or type(value).__name__ == "deque":
            data = _sort_members(value, data)
        if isinstance(value, set | frozenset):
            return sorted(data, key=_json_sort_key)
    if getattr(type(value), "__pydantic_root_model__", False):
        return sort_sets(value.root, data)
    return _sort_object(value, data) if isinstance(data, dict) else data


def _sort_members(values: Iterable[Any], data: list[Json]) -> list[Json]:
    members = list(values)
    if len(members) != len(data):
        return data  # the author's serializer made something else of it
    return [sort_sets(member, each) for member, each in zip(members, data, strict=True)]


def _sort_object(value: Any, data: dict[str, Json]) -> Json:
    if isinstance(value, dict):
        if len(value) != len(data):
            return data
        pairs = zip(value.values(), data.items(), strict=True)
        return {name: sort_sets(member, each) for member, (name, each) in pairs}
    declared = getattr(type(value), "__pydantic_fields__", None)
    if isinstance(declared, dict):
        found = dict(data)
        for name, field in declared.items():
            written = getattr(field, "serialization_alias", None) or name
            if written in found:
                found[written] = sort_sets(getattr(value, name, None), found[written])
        return found
    if dataclasses.is_dataclass(value):
        return {name: sort_sets(getattr(value, name, None), each) for name, each in data.items()}
    return data


def _json_sort_key(data: Json) -> str:
    return json.dumps(data, sort_keys=True)
