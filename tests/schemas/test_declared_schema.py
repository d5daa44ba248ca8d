"""A type gives the schema of what is written, that of what is read, and their fingerprint."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import core_schema

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.canonical import fingerprint
from saga_engine.schemas.declared_schema import is_described, version_schema


def test_a_type_gives_what_is_written_and_what_is_read():
    schema, its_fingerprint = version_schema(4, PayloadType(Decimal))
    assert schema.version == 4
    assert schema.writes == {"type": "string", "format": "decimal"}
    assert schema.reads == {"anyOf": [{"type": "number"}, schema.writes]}
    assert its_fingerprint == fingerprint(schema.writes, schema.reads)


class Plain:
    """A class of which pydantic has no JSON Schema."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda _: cls())


class OnePlainField(BaseModel):
    a: Plain


@pytest.mark.parametrize(
    ("python_type", "expected"),
    [(Decimal, True), (OnePlainField, True), (Any, True), (int | str, True), (Plain, False)],
)
def test_a_class_that_nothing_describes_differs_from_any_json(python_type, expected):
    payload_type = PayloadType(python_type)
    schema, _ = version_schema(1, payload_type)
    assert is_described(schema, payload_type) is expected
