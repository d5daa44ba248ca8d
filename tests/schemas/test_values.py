"""What one type writes, another type reads, whenever the check has found nothing."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.comparison import compare
from tests.kit.typed_values import TYPES

LIST: Any = list  # a type checker would read the types below as annotations
MAP: Any = dict


def nested() -> list[tuple[Any, Sequence[Any]]]:
    """Each type, the same in a list and in a map, and the same or None."""
    return [
        *TYPES,
        *((LIST[kind], [[*values], []]) for kind, values in TYPES),
        *((MAP[str, kind], [{"a": each} for each in values]) for kind, values in TYPES),
        *((kind | None, [*values, None]) for kind, values in TYPES if isinstance(kind, type)),
    ]


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
            assert reader.read(data) is not NotImplemented, (writer.python_type, data)
    assert compatible > len(types) * 2
