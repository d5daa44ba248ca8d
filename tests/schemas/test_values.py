"""What one type writes, another type reads, whenever the check has found nothing."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.comparison import compare
from tests.kit.typed_values import TYPES, TYPES_WITH_OPTIONS

LIST: Any = list  # a type checker would read the types below as annotations
MAP: Any = dict
SCALARS = {str, bytes, int, float, bool, Decimal, date, datetime, time, timedelta, UUID}


def nested() -> list[tuple[Any, Sequence[Any]]]:
    """Each type; those without options also in a list and in a map, and the same or None."""
    return [
        *TYPES,
        *TYPES_WITH_OPTIONS,
        *((LIST[kind], [[*values], []]) for kind, values in TYPES),
        *((MAP[str, kind], [{"a": each} for each in values]) for kind, values in TYPES),
        *((kind | None, [*values, None]) for kind, values in TYPES if isinstance(kind, type)),
    ]


def scalar(value: Any) -> Any:
    """A value, or the only field of a model that has one; None for what has parts."""
    found = getattr(value, "body", value)
    return found if type(found) in SCALARS else None


def test_what_a_type_writes_is_read_by_each_type_that_the_check_allows():
    types = [(PayloadType(kind), values) for kind, values in nested()]
    schemas = [
        (kind, kind.schema("serialization"), kind.schema("validation"), values)
        for kind, values in types
    ]
    compatible = 0
    for (writer, writes, _, values), (reader, _, reads, _) in product(schemas, schemas):
        if compare(writes, reads):
            assert writer is not reader, writer.python_type
            continue
        compatible += 1
        for each in values:
            data = writer.write(each)
            written, read = scalar(each), scalar(reader.read(data))
            altered = type(written) is type(read) and written != read
            assert not altered, (writer.python_type, reader.python_type, data)
    assert compatible > len(types) * 2
