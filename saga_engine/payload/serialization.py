"""
Frozen dataclasses to plain data and back, for the journal and for snapshots.

Fields that hold their default are left out, so that a step that has not begun costs nothing. The
field's annotation says how to read it back; `Json` fields are passed through untouched. The data is
str, int, float, bool, None, dict, list and datetime: any JSON writer that knows datetime will do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from saga_engine.payload.annotations import without_none

Record = TypeVar("Record")
Turn = Callable[[Any], Any]


def to_data(record: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """The record's fields that differ from their defaults; only those of *names*, if it has any."""
    data = {}
    kind: Any = type(record)
    values, plan = _writers(kind, names)
    for value, (name, default, write) in zip(values(record), plan, strict=True):
        # Untouched parts are the default itself, and comparing by value costs most of all here.
        if value is not default and value != default:
            data[name] = value if write is None or value is None else write(value)
    return data


def changed(record: Record, **values: Any) -> Record:
    """
    As `dataclasses.replace`, for records with slots and without `__post_init__`.

    Every event copies three records, and `replace` takes twice as long: it goes through the fields'
    declarations and `__init__` each time (2.4 us instead of 3.8 for eleven fields, CPython 3.11).
    """
    kind: Any = type(record)
    read, setters, by_name = _slots(kind)
    new: Record = object.__new__(kind)
    for write, value in zip(setters, read(record), strict=False):  # both are of all fields
        write(new, value)
    for name, value in values.items():
        by_name[name](new, value)
    return new


def from_data(kind: type[Record], data: Mapping[str, Any]) -> Record:
    """
    The record of *kind* that `to_data` turned into *data*.

    Raises:
        TypeError, ValueError, KeyError: *data* was not made by `to_data`; a bug, or a damaged row.
    """
    return kind(**fields_from(kind, data))


def fields_from(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """As `from_data`, but only the fields, for use with `changed`."""
    readers = _readers(kind)
    values = {}
    for name, value in data.items():
        read = readers[name]
        values[name] = value if read is None or value is None else read(value)
    return values


@cache
def _plan(kind: Any) -> tuple[tuple[str, Any, Turn | None, Turn | None], ...]:
    hints = get_type_hints(kind)
    return tuple(
        (item.name, _default(item), *_turns(without_none(hints[item.name])[0]))
        for item in fields(kind)
    )


@cache
def _writers(
    kind: Any, names: Sequence[str]
) -> tuple[Callable[[Any], Any], Sequence[tuple[str, Any, Turn | None]]]:
    """What reads the fields of a record, and what each of them is written with."""
    plan = [each[:3] for each in _plan(kind) if not names or each[0] in names]
    return _getter([name for name, *_ in plan]), plan


@cache
def _slots(
    kind: Any,
) -> tuple[Callable[[Any], Any], Sequence[Callable[..., None]], Mapping[str, Callable[..., None]]]:
    """What reads all fields of a record, and what writes each, in order and by name."""
    assert not hasattr(kind, "__post_init__"), "nothing is done when one is made"
    setters = {item.name: getattr(kind, item.name).__set__ for item in fields(kind)}
    return _getter(list(setters)), tuple(setters.values()), setters


def _getter(names: Sequence[str]) -> Callable[[Any], Any]:
    """Read fields as a tuple; of fewer than two, an attrgetter makes none."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


@cache
def _readers(kind: Any) -> Mapping[str, Turn | None]:
    return {name: read for name, _, _, read in _plan(kind)}


def _default(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def _turns(kind: Any) -> tuple[Turn | None, Turn | None]:
    """How a field of that type is written and read; None for: as it is."""
    if kind is datetime:
        return None, _moment
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return str, kind
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return to_data, lambda data: from_data(kind, data)
    if get_origin(kind) is Mapping:
        return _mapping_turns(*get_args(kind))
    if get_origin(kind) is tuple:
        return list, tuple
    return None, None


def _mapping_turns(key: Any, value: Any) -> tuple[Turn, Turn]:
    assert is_dataclass(value), "mappings hold records"
    assert isinstance(value, type), "mappings hold records"
    return (
        lambda mapping: {str(k): to_data(v) for k, v in mapping.items()},
        lambda data: {key(k): from_data(value, v) for k, v in data.items()},
    )


def _moment(value: str | datetime) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
