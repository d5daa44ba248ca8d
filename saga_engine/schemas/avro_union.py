"""Unions in Avro: which member a value belongs to, when it is written and when it is read."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from saga_engine.schemas.avro_values import ANY_JSON, DOUBLE, NULL, TEXT, AvroType, DoesNotFit
from saga_engine.vocabulary import Json


def union_of(types: Sequence[AvroType], on_conflict: Callable[[str], Exception]) -> AvroType:
    """
    Make a union of types; of one type, itself.

    Args:
        types: the members; texts of several formats become one text, because a reader
            could not distinguish them.
        on_conflict: makes the error for two members of one kind, which Avro does not allow.
    """
    members = _distinct(types)
    if len(members) == 1:
        return members[0]
    for kind, count in Counter(each.kind for each in members).items():
        if count > 1:
            raise on_conflict(kind)
    return AvroType(
        schema=[each.schema for each in members],
        json_types=frozenset().union(*(each.json_types for each in members)),
        encode=lambda value: _encode(value, members),
        read=lambda source: members[source.index(len(members))].read(source),
        fits=lambda value: any(each.accepts(value) for each in members),
        members=members,
    )


def nullable(member: AvroType) -> AvroType:
    """Add null to a type, as the first member, where the default of a field in Avro belongs."""
    others = [each for each in member.members or [member] if each is not NULL]
    return union_of([NULL, *others], AssertionError)


def _distinct(types: Sequence[AvroType]) -> list[AvroType]:
    flat = [member for each in types for member in (each.members or (each,))]
    if ANY_JSON in flat:
        return [ANY_JSON]
    distinct: dict[Any, AvroType] = {}
    for each in flat:  # a class that is used twice is one member
        distinct.setdefault(each.kind if each.is_named else each, each)
    members = [*distinct.values()]
    texts = [each for each in members if str in each.json_types]
    if len(texts) > 1:
        members = [TEXT if each is texts[0] else each for each in members if each not in texts[1:]]
    return members


def _encode(value: Json, members: Sequence[AvroType]) -> Any:
    accepting = [each for each in members if each.accepts(value)]
    if not accepting:
        raise DoesNotFit("fits no member of its union")
    # An integer is a double only if nothing else takes it.
    chosen = next((each for each in accepting if each is not DOUBLE), accepting[0])
    # fastavro would choose by the class: 5 is a date for it if `int` with `date` is a member.
    return chosen.kind, chosen.encode(value)
