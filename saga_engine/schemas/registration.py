"""
Registering the schemas of a process's modules, when it starts.

Schemas that are registered are found by one statement, and those of events are judged again. A new
one is judged and inserted while its subject is locked, so that of two processes that start at once
with different code, one is judged against the other.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from saga_engine.postgres.statement import Transaction
from saga_engine.schemas import registry
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.declared_schema import DeclaredSchema, SchemaKind
from saga_engine.schemas.judgement import SchemaBreak, judge
from saga_engine.schemas.registry import key_of
from saga_engine.schemas.stored_schema import StoredSchema
from saga_engine.settings import Settings

Judge: TypeAlias = Callable[
    [DeclaredSchema, Sequence[StoredSchema], Compatibility], Iterator[SchemaBreak]
]
"""Compares a declared schema with those before it; see `judge` and `judge_avro`."""


async def register(
    tx: Transaction, declared: Sequence[DeclaredSchema], settings: Settings
) -> list[SchemaBreak]:
    """
    Register schemas; return what breaks the compatibility of those that are new, and of all events.

    Of an event the registered schemas are judged, too: its class may have been rolled back, or
    events may have been stored since. The caller rolls back the transaction if a break stops it.

    Raises:
        TooManySchemas: a subject would have too many.
    """
    registered = await registry.find_ids(tx, declared)
    new = {key_of(each): each for each in declared if key_of(each) not in registered}
    known_events = [
        each for each in declared if key_of(each) not in new and each.kind is SchemaKind.EVENT
    ]
    breaks = await find_breaks(tx, known_events) if known_events else []
    # Versions of a subject one after another: each is judged against the one before.
    while new:
        keys = {key[0]: key for key in sorted(new, reverse=True)}.values()
        batch = [new.pop(key) for key in sorted(keys)]
        await registry.lock_subjects(tx, batch)
        breaks += await find_breaks(tx, batch)
        known = await registry.find_ids(tx, batch)
        await registry.insert(tx, [each for each in batch if key_of(each) not in known], settings)
    return breaks


async def find_breaks(
    tx: Transaction, declared: Sequence[DeclaredSchema], judged_by: Judge = judge
) -> list[SchemaBreak]:
    """Judge schemas against those that are registered; nothing is changed."""
    names = sorted({each.subject for each in declared})
    stored = await registry.read(tx, names)
    subjects = await registry.read_subjects(tx, names)
    return [
        found
        for each in declared
        for found in judged_by(
            each,
            [other for other in stored if other.subject == each.subject],
            subjects[each.subject].compatibility
            if each.subject in subjects
            else each.kind.default_compatibility,
        )
    ]
