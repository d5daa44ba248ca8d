"""2,000 pairs of types: where Avro's own checker and that of JSON Schemas differ, and why."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import fastavro
from pydantic import create_model

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.avro_codec import AvroCodec
from saga_engine.schemas.avro_compatibility import compare_avro
from saga_engine.schemas.comparison import compare
from tests.kit.typed_values import TYPES


@dataclass(frozen=True, eq=False)
class Event:
    """An event with one field of a type, and values of it."""

    payload: PayloadType
    codec: AvroCodec
    values: list[Any]

    @property
    def field(self) -> Any:
        """The type of the field in Avro."""
        return self.codec.schema["fields"][0]["type"]


@cache
def events() -> list[Event]:
    made = []
    for kind, values in TYPES:
        model = create_model("Event", a=(kind, ...))
        payload = PayloadType(model)
        codec = AvroCodec("event", payload.schema("serialization"))
        made.append(Event(payload, codec, [model(a=each) for each in values]))
    return made


def verdicts() -> Iterator[tuple[Event, Event, bool, bool]]:
    for writer, reader in product(events(), events()):
        written, read = writer.payload.schema("serialization"), reader.payload.schema("validation")
        is_read = not compare_avro(writer.codec.schema, reader.codec.schema)
        yield writer, reader, not compare(written, read), is_read


def base(schema: Any) -> Any:
    """What Avro looks at: no logical type, and of a union and an array the members."""
    if isinstance(schema, list):
        return frozenset(map(base, schema))
    return schema if isinstance(schema, str) else schema["type"]


def has(schema: Any, *kinds: str) -> bool:
    members = schema if isinstance(schema, list) else [schema]
    return any(base(each) in kinds for each in members)


TEXTS, NUMBERS = ("string", "bytes", "enum"), ("int", "long", "double")
ONLY_JSON_REFUSES: dict[str, Callable[[Any, Any], bool]] = {
    "a text in Avro has no length, pattern, format or value": lambda written, read: (
        has(written, *TEXTS) and has(read, *TEXTS)
    ),
    "a number in Avro has no bounds, and a date or time is a number": lambda written, read: (
        has(written, *NUMBERS) and has(read, *NUMBERS)
    ),
    "a key of a map in Avro is any text": lambda written, read: (
        has(written, "map") and has(read, "map")
    ),
    "an array in Avro has any size and order": lambda written, read: (
        has(written, "array") and has(read, "array")
    ),
}
ONLY_AVRO_REFUSES: dict[str, Callable[[Any, Any], bool]] = {
    "any JSON, and a decimal number without digits, are texts in Avro": lambda _, read: (
        read == "string"
    ),
    "an enum in Avro is neither a string nor an enum of another name": lambda written, read: (
        has(written, "enum") or has(read, "enum")
    ),
    "a record in Avro is neither a map nor a record of another name": lambda written, _: has(
        written, "record"
    ),
    "values of a map in Avro are of one type": lambda written, read: (
        has(written, "map") and has(read, "map")
    ),
}
"""Every pair on which the two differ has one of these reasons, which are those of Avro."""


def test_each_difference_from_the_checker_of_avro_is_known():
    agreed, explained = Counter[bool](), Counter[str]()
    for writer, reader, json_verdict, avro_verdict in verdicts():
        if json_verdict == avro_verdict:
            agreed[json_verdict] += 1
            continue
        reasons = ONLY_AVRO_REFUSES if json_verdict else ONLY_JSON_REFUSES
        found = [name for name, why in reasons.items() if why(writer.field, reader.field)]
        assert found, (json_verdict, writer.field, reader.field)
        explained[found[0]] += 1
    assert agreed.total() + explained.total() >= 2_000
    assert agreed.total() > 4 * explained.total()
    assert set(explained) == {*ONLY_JSON_REFUSES, *ONLY_AVRO_REFUSES}, explained


def test_what_the_checker_of_avro_allows_is_read_by_a_reader_that_resolves_schemas():
    resolved = 0
    for writer, reader, _, avro_verdict in verdicts():
        for each in writer.values if avro_verdict else ():
            body = io.BytesIO(writer.codec.encode(writer.payload.write(each)))
            read: Any = fastavro.schemaless_reader(body, writer.codec.schema, reader.codec.schema)
            assert read.keys() == {"a"}
            resolved += 1
    assert resolved > 300
