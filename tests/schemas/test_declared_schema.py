"""A type gives the schema of what is written, that of what is read, and their fingerprint."""

from decimal import Decimal

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.canonical import fingerprint
from saga_engine.schemas.declared_schema import version_schema


def test_a_type_gives_what_is_written_and_what_is_read():
    schema, its_fingerprint = version_schema(4, PayloadType(Decimal))
    assert schema.version == 4
    assert schema.writes == {"type": "string", "format": "decimal"}
    assert schema.reads == {"anyOf": [{"type": "number"}, schema.writes]}
    assert its_fingerprint == fingerprint(schema.writes, schema.reads)
