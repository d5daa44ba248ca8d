"""
Registering the schemas of a module's events, or refusing the module.

New code that cannot read stored events must not start: its projections would stop at the first of
them. An earlier schema of which no event is stored breaks nothing.
"""

from collections.abc import Iterable, Sequence

import orjson

from saga_engine.errors import DefinitionError
from saga_engine.events.event_store.event_schema import event_schemas
from saga_engine.events.event_store.event_types import EventType
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.postgres.statement import Transaction, text
from saga_engine.schemas.declared_schema import DeclaredSchema, SchemaKind
from saga_engine.schemas.judgement import BreakDirection, SchemaBreak
from saga_engine.schemas.registration import register
from saga_engine.schemas.registry import find_ids, key_of, read_subjects
from saga_engine.schemas.stored_schema import StoredSchema
from saga_engine.settings import Settings
from saga_engine.store.bounded_count import BoundedCount

COUNTED_POSITIONS = 1_000_000
"""
The newest positions in which events of a schema are counted. There is no index on types, and a
person needs the number to see how much is at stake. So this is a bound and not a setting.
"""

STORED_EXAMPLES = 100
"""
Stored events of a type that a new schema is tried on: a few milliseconds. They are read under the
lock of their subject, so this is a bound and not a setting.
"""


async def register_events(
    tx: Transaction,
    event_types: Iterable[EventType],
    settings: Settings,
    time_limit: CallTimeLimit = NO_TIME_LIMIT,
) -> None:
    """
    Register the schemas of events; those that are registered are not changed.

    Raises:
        DefinitionError: an event cannot read what is stored, or another version of it cannot read
            what it writes, as its compatibility mode demands. Roll back the transaction.
        TooManySchemas: an event would have too many.
    """
    declared = event_schemas(event_types, time_limit)
    registered = await find_ids(tx, declared)
    for error in await break_errors(tx, await register(tx, declared, settings)):
        raise error
    for error in await stored_event_errors(
        tx, [each for each in declared if key_of(each) not in registered]
    ):
        raise error


async def break_errors(tx: Transaction, breaks: Sequence[SchemaBreak]) -> list[DefinitionError]:
    """Make the errors of breaks, with the number of stored events that each affects."""
    counts: dict[int, BoundedCount] = {}
    errors = []
    for found in breaks:
        problem = found.problem
        is_event = found.declared.kind is SchemaKind.EVENT
        if is_event and found.direction is BreakDirection.BACKWARD:
            earlier = found.earlier
            if earlier.id not in counts:
                counts[earlier.id] = await count_events(tx, earlier)
            count = counts[earlier.id]
            if count == BoundedCount(0):
                continue
            noun, verb = ("event", "is") if count == BoundedCount(1) else ("events", "are")
            problem += f"; {count.display} {noun} of {found.earlier_name} {verb} stored"
        location = found.declared.source_location
        errors.append(DefinitionError(f"{problem}.", location=location, fix=found.fix))
    return errors


async def stored_event_errors(
    tx: Transaction, declared: Sequence[DeclaredSchema]
) -> list[DefinitionError]:
    """
    Read the newest stored events of this and older versions; at most STORED_EXAMPLES of a type.

    Examples that are made of a schema do not have all that its events have, and events may have
    been stored before any schema was registered. Types whose mode does not compare what is stored
    are left out.
    """
    tried = await _read_backward(tx, declared)
    parameters = {
        "types": [each.subject for each in tried],
        "versions": [each.schema.version for each in tried],
        "positions": COUNTED_POSITIONS,
        "limit": STORED_EXAMPLES,
    }
    errors: dict[int, DefinitionError] = {}
    for place, stream, number, version, data in await tx.execute(_NEWEST, parameters):
        each = tried[place - 1]
        if place in errors or each.read_example is None:
            continue
        if failure := each.read_example(version, orjson.loads(data)):
            event = f"Event {number} of {stream}, {each.subject!r} version {version}"
            errors[place] = DefinitionError(
                f"{event}: {failure.problem}.", location=each.source_location, fix=failure.fix
            )
    return [errors[place] for place in sorted(errors)]


async def _read_backward(
    tx: Transaction, declared: Sequence[DeclaredSchema]
) -> list[DeclaredSchema]:
    """Return the events whose mode demands that stored events are read."""
    subjects = await read_subjects(tx, [each.subject for each in declared])
    return [
        each
        for each in declared
        if each.read_example is not None
        and (
            subjects[each.subject].compatibility
            if each.subject in subjects
            else each.kind.default_compatibility
        ).is_backward
    ]


async def count_events(tx: Transaction, schema: StoredSchema) -> BoundedCount:
    """Count the events of a schema among the newest COUNTED_POSITIONS positions."""
    parameters = {
        "id": schema.id,
        "type": schema.subject,
        "version": schema.schema.version,
        "positions": COUNTED_POSITIONS,
    }
    count, is_complete = (await tx.execute(_COUNT, parameters)).one()
    return BoundedCount(count, exact=is_complete)


# One pass through the positions for all types, of which some may have no events.
_NEWEST = text(
    """
    SELECT newest.place, e.stream, e.version, e.schema_version, e.data::text
    FROM (
        SELECT d.place, e.position,
            row_number() OVER (PARTITION BY d.place ORDER BY e.position DESC) AS rank
        FROM unnest(CAST(:types AS text[]), CAST(:versions AS integer[]))
            WITH ORDINALITY AS d(type, version, place)
        CROSS JOIN saga_engine.event_position AS p
        JOIN saga_engine.stream_event AS e
            ON e.position > p.last_value - CAST(:positions AS bigint)
            AND e.type = d.type AND e.schema_version <= d.version
    ) AS newest
    JOIN saga_engine.stream_event AS e USING (position)
    WHERE newest.rank <= :limit
    ORDER BY newest.position DESC"""
)

# Events that were appended before their schema was registered have no id: they may be of each
# schema of their version.
_COUNT = text(
    """
    SELECT count(e.position), p.last_value <= CAST(:positions AS bigint)
    FROM saga_engine.event_position AS p
    LEFT JOIN saga_engine.stream_event AS e
        ON e.position > p.last_value - CAST(:positions AS bigint)
        AND e.type = :type AND e.schema_version = :version
        AND coalesce(CAST(e.metadata->>'schema_id' AS integer), :id) = :id
    GROUP BY p.last_value"""
)
