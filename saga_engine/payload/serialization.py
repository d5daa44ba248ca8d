"""
Frozen dataclasses to plain data and back, for the journal and for snapshots.

Fields with their default value are left out, so that a step that has not started takes no space. A
field's annotation says how to read it back; `Json` fields are passed on unchanged. The data is str,
int, float, bool, None, dict, list and datetime, for a JSON writer that supports datetime.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from saga_engine.payload.annotations import split_optional

Record = TypeVar("Record")
Converter = Callable[[Any], Any]


def to_data(record: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """The record's fields that differ from their defaults; only those of *names*, if given."""
    data = {}
    record_type: Any = type(record)
    values, plan = _writers(record_type, names)
    for value, (name, default, write) in zip(values(record), plan, strict=True):
        # Unchanged parts are the default itself, and comparing by value is the most expensive part.
        if value is not default and value != default:
            data[name] = value if write is None or value is None else write(value)
    return data


def replace_fields(record: Record, **values: Any) -> Record:
    """
    As `dataclasses.replace`, for records without slots and without `__post_init__`.

    `replace` goes through the fields' declarations and `__init__` each time, and takes five times
    as long.
    """
    fields_before = vars(record)
    new: Record = object.__new__(type(record))
    changed = vars(new)
    changed.update(fields_before, **values)
    assert len(changed) == len(fields_before), f"{type(record).__name__} has not all of {[*values]}"
    return new


def from_data(record_type: type[Record], data: Mapping[str, Any]) -> Record:
    """
    The record of which `to_data` made *data*.

    Raises:
        TypeError, ValueError, KeyError: *data* was not made by `to_data`; a bug, or a damaged row.
    """
    return record_type(**read_fields(record_type, data))


def read_fields(record_type: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """As `from_data`, but only the fields, for use with `replace_fields`."""
    readers = _readers(record_type)
    values = {}
    for name, value in data.items():
        read = readers[name]
        values[name] = value if read is None or value is None else read(value)
    return values


def has_declared_types(record: Any) -> bool:
    """
    Whether each value of a record has the type of its field, for data that others may write.

    An int counts something, from 1, and is not a bool. A Json field may have any value.
    """
    return _has_type(record, type(record), optional=False)


def _has_type(value: Any, field_type: Any, *, optional: bool) -> bool:
    if value is None and optional:
        return True
    if is_dataclass(field_type):
        assert isinstance(field_type, type)
        return isinstance(value, field_type) and all(
            _has_type(getattr(value, name), inner, optional=nullable)
            for name, inner, nullable in _field_types(field_type)
        )
    if field_type is int:
        return type(value) is int and 0 < value < 2**31
    if isinstance(field_type, type) and issubclass(field_type, str | bool | StrEnum):
        return isinstance(value, field_type)
    return True


@cache
def _field_types(record_type: Any) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(record_type)
    return tuple((item.name, *split_optional(hints[item.name])) for item in fields(record_type))


@cache
def _field_plan(
    record_type: Any,
) -> tuple[tuple[str, Any, Converter | None, Converter | None], ...]:
    hints = get_type_hints(record_type)
    return tuple(
        (item.name, _default(item), *_converters(split_optional(hints[item.name])[0]))
        for item in fields(record_type)
    )


@cache
def _writers(
    record_type: Any, names: Sequence[str]
) -> tuple[Callable[[Any], Any], Sequence[tuple[str, Any, Converter | None]]]:
    """A getter for the fields of a record, and the converter of each."""
    plan = [each[:3] for each in _field_plan(record_type) if not names or each[0] in names]
    return _getter([name for name, *_ in plan]), plan


def _getter(names: Sequence[str]) -> Callable[[Any], Any]:
    """Read fields as a tuple; an attrgetter makes none of fewer than two."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


@cache
def _readers(record_type: Any) -> Mapping[str, Converter | None]:
    return {name: read for name, _, _, read in _field_plan(record_type)}


def _default(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def _converters(field_type: Any) -> tuple[Converter | None, Converter | None]:
    """How a field of that type is written and read; None: unchanged."""
    if field_type is datetime:
        return None, _parse_datetime
    if isinstance(field_type, type) and issubclass(field_type, StrEnum):
        return str, field_type
    if is_dataclass(field_type):
        assert isinstance(field_type, type)
        return to_data, lambda data: from_data(field_type, data)
    if get_origin(field_type) is Mapping:
        return _mapping_converters(*get_args(field_type))
    if get_origin(field_type) is tuple:
        return list, tuple
    return None, None


def _mapping_converters(key: Any, value: Any) -> tuple[Converter, Converter]:
    assert is_dataclass(value), "mappings hold records"
    assert isinstance(value, type), "mappings hold records"
    return (
        lambda mapping: {str(k): to_data(v) for k, v in mapping.items()},
        lambda data: {key(k): from_data(value, v) for k, v in data.items()},
    )


def _parse_datetime(value: str | datetime) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
