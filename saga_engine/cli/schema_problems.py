"""What is wrong with the schemas that a module declares, as errors that name their place."""

from collections.abc import Iterator, Sequence

from saga_engine.errors import DefinitionError
from saga_engine.events.event_store.schema_registration import break_errors, stored_event_errors
from saga_engine.postgres.statement import Transaction
from saga_engine.schemas.avro_judgement import judge_avro, unwritable
from saga_engine.schemas.declared_schema import DeclaredSchema, SchemaKind
from saga_engine.schemas.registration import find_breaks


async def find_problems(
    tx: Transaction, declared: Sequence[DeclaredSchema]
) -> list[DefinitionError]:
    """Find what declared schemas and those that are registered cannot read of each other."""
    breaks = await break_errors(tx, await find_breaks(tx, declared))
    return breaks or await stored_event_errors(tx, declared)


def not_judged(declared: Sequence[DeclaredSchema]) -> Iterator[DefinitionError]:
    """Name the schemas that say nothing: nothing could be found in them."""
    for each in declared:
        if not each.is_described:
            yield DefinitionError(
                f"{each.subject} version {each.schema.version} is not judged: its class has no JSON"
                " Schema.",
                location=each.source_location,
                fix="Let pydantic describe it: a model without a plain validator, and with return"
                " types on its serializers.",
            )


async def avro_problems(
    tx: Transaction, declared: Sequence[DeclaredSchema]
) -> list[DefinitionError]:
    """Find events that Avro cannot write, or that a consumer in Avro could not read."""
    events = [each for each in declared if each.kind is SchemaKind.EVENT]
    fix = "Or publish it in JSON."
    unwritten = [
        DefinitionError(problem, location=each.source_location, fix=fix)
        for each in events
        if (problem := unwritable(each))
    ]
    return unwritten + await break_errors(tx, await find_breaks(tx, events, judge_avro))
