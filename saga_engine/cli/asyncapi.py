"""`saga-engine asyncapi`: the messages of some modules as an AsyncAPI document."""

from collections.abc import Iterable
from typing import Annotated, TypeVar

from cyclopts import Parameter

from saga_engine.asyncapi.document import Declared, describe
from saga_engine.cli.output import print_foreign_json
from saga_engine.errors import ConfigurationError
from saga_engine.events.aggregates import aggregate_rules
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.feeds import feed_rules
from saga_engine.events.feeds.feed import Feed
from saga_engine.loading import load_objects
from saga_engine.participant import Participant
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.worker.registry import validated

KINDS = (Saga, Participant, Aggregate, Feed)

Kind = TypeVar("Kind")


def asyncapi(
    *modules: str,
    title: Annotated[
        str | None, Parameter(help="Of the application; by default the names of the modules.")
    ] = None,
    version: Annotated[str, Parameter(help="Of the application.")] = "1.0.0",
) -> None:
    """
    Print an AsyncAPI 3.1 document of the commands, replies and events of some modules, as JSON.

    They may declare sagas, participants, aggregates and feeds.

    Args:
        modules: Any number of MODULE or MODULE:NAME.
    """
    if not modules:
        raise ConfigurationError("Name a module: `saga-engine asyncapi MODULE...`.")
    timeout = Settings.load().import_timeout
    found = {id(each): each for name in modules for each in load_objects(name, KINDS, timeout)}
    declared = Declared(
        sagas=validated(_of_kind(found.values(), Saga)),
        participants=_of_kind(found.values(), Participant),
        aggregates=_of_kind(found.values(), Aggregate),
        feeds=_of_kind(found.values(), Feed),
    )
    for aggregate in declared.aggregates:
        aggregate_rules.check(aggregate)
    feed_rules.check(declared.feeds)
    print_foreign_json(describe(declared, title or ", ".join(modules), version))


def _of_kind(found: Iterable[object], kind: type[Kind]) -> list[Kind]:
    return [each for each in found if isinstance(each, kind)]
