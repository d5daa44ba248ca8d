"""
What makes aggregates valid, checked before the first use of one and by `saga-engine check`.

Here are the rules between declarations. What is wrong with a single one (an annotation, a name used
twice) is refused when it is made, in `aggregate` and `event_types`.
"""

import re
from collections.abc import Iterable, Iterator

from saga_engine.errors import DefinitionError
from saga_engine.events.aggregates.aggregate import Aggregate, fold_of
from saga_engine.events.event_store.event_types import missing_upcasters

AGGREGATE_NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
RESERVED_NAMES = ("run",)
"""`run-<run id>` is the stream of a run."""

Problems = Iterator[DefinitionError]


def check(aggregate: Aggregate) -> None:
    """
    Check an aggregate against every rule.

    Raises:
        DefinitionError: the first rule it breaks.
    """
    for problem in problems([aggregate]):
        raise problem


def problems(aggregates: Iterable[Aggregate]) -> Problems:
    """Every rule that aggregates break, each alone and all together."""
    seen: dict[str, Aggregate] = {}
    owners: dict[str, Aggregate] = {}
    for aggregate in aggregates:
        yield from _check_name(aggregate)
        if not aggregate.has_invalid_declarations:
            yield from _check_events(aggregate)
            yield from _check_commands(aggregate)
        other = seen.setdefault(aggregate.name, aggregate)
        if other is not aggregate:
            yield _declared_twice(aggregate, other)
        yield from _events_of_one_aggregate(aggregate, owners)


def _check_name(aggregate: Aggregate) -> Problems:
    name: object = aggregate.name
    if not isinstance(name, str) or not AGGREGATE_NAME_PATTERN.match(name):
        yield DefinitionError(
            f"Aggregate {str(name)[:80]!r} has an invalid name.",
            location=aggregate.source_location,
            fix="Use a to z, 0 to 9 and _, at most 64. No -, which ends the name in that of a"
            " stream.",
        )
    elif name in RESERVED_NAMES:
        yield DefinitionError(
            f"The name {name!r} is reserved: its streams are those of runs.",
            location=aggregate.source_location,
            fix="Choose another name.",
        )


def _check_events(aggregate: Aggregate) -> Problems:
    if not aggregate.folds:
        yield DefinitionError(
            f"Aggregate {aggregate.name!r} has no events.",
            location=aggregate.source_location,
            fix='Declare them with @....event("order-placed").',
        )
    yield from missing_upcasters([each.event_type for each in aggregate.folds.values()])


def _check_commands(aggregate: Aggregate) -> Problems:
    for spec in aggregate.commands.values():
        for each in spec.event_classes:
            if fold_of(aggregate, each) is None:
                yield DefinitionError(
                    f"{spec.call.function} returns {each.__name__}, which is not an event of"
                    f" {aggregate.name!r}.",
                    location=spec.call.source_location,
                    fix=f'Declare it with @....event("...") of {aggregate.name!r}, or correct the'
                    " annotation.",
                )


def _declared_twice(aggregate: Aggregate, other: Aggregate) -> DefinitionError:
    return DefinitionError(
        f"Aggregate {aggregate.name!r} is declared twice, the other at {other.source_location}.",
        location=aggregate.source_location,
        fix="Rename one of them: their streams would have the same names.",
    )


def _events_of_one_aggregate(aggregate: Aggregate, owners: dict[str, Aggregate]) -> Problems:
    """A projection reads an event by its name, so the name must mean one class."""
    for name, fold in aggregate.folds.items():
        owner = owners.setdefault(name, aggregate)
        if owner is not aggregate:
            yield DefinitionError(
                f"Event {name!r} belongs to aggregate {owner.name!r} as well, declared at"
                f" {owner.folds[name].event_type.source_location}.",
                location=fold.event_type.source_location,
                fix="Give it a name of its own.",
            )
