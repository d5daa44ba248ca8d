"""`saga-engine check`, `graph` and `schema`: what a module declares, without starting a run."""

from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.exit_status import EXIT_PROBLEMS_FOUND
from saga_engine.cli.output import AsJson, print_json, print_line, print_stderr
from saga_engine.errors import DefinitionError, collect_errors
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.aggregates.aggregate_rules import problems as aggregate_problems
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.consumer_rules import problems as consumer_problems
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.feed_rules import problems as feed_problems
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_rules import problems as projection_problems
from saga_engine.loading import load_objects
from saga_engine.saga.definition import CommandSpec, Saga
from saga_engine.saga.diagrams import ascii_table, dot, mermaid
from saga_engine.settings import Settings
from saga_engine.worker.registry import definition_problems, validated


class GraphFormat(StrEnum):
    """The format of a diagram."""

    MERMAID = "mermaid"
    DOT = "dot"
    ASCII = "ascii"


_RENDERERS = {GraphFormat.MERMAID: mermaid, GraphFormat.DOT: dot, GraphFormat.ASCII: ascii_table}


def check(module: str, /, *, as_json: AsJson = False) -> int:
    """
    Check what a module declares against every rule; print the problems and exit 8 if any.

    It may declare sagas, aggregates, projections, feeds and consumers.

    Args:
        module: MODULE or MODULE:NAME.
    """
    found: list[Saga | Aggregate | Projection | Feed | Consumer] = []
    with collect_errors() as problems:
        try:
            kinds = (Saga, Aggregate, Projection, Feed, Consumer)
            found = load_objects(module, kinds, Settings.load().import_timeout)
        except DefinitionError as error:
            problems.append(error)
    sagas = [each for each in found if isinstance(each, Saga)]
    aggregates = [each for each in found if isinstance(each, Aggregate)]
    problems.extend(definition_problems(sagas))
    projections = [each for each in found if isinstance(each, Projection)]
    problems.extend(aggregate_problems(aggregates))
    problems.extend(projection_problems(projections))
    feeds = [each for each in found if isinstance(each, Feed)]
    problems.extend(feed_problems(feeds))
    consumers = [each for each in found if isinstance(each, Consumer)]
    problems.extend(consumer_problems(consumers))
    if as_json:
        document: dict[str, list[Any]] = {
            "sagas": [_saga_json(each) for each in sagas],
            "aggregates": [_aggregate_json(each) for each in aggregates],
            "projections": [_projection_json(each) for each in projections],
            "feeds": [_located(each) for each in feeds],
            "consumers": [_located(each) for each in consumers],
        }
        if problems:
            document = {name: [] for name in document}
        document["problems"] = [_problem_json(each) for each in problems]
        print_json({"valid": not problems, **document})
    elif problems:
        for each in problems:
            print_stderr(str(each))
    else:
        for declared in found:
            print_line(_summary(declared))
    return EXIT_PROBLEMS_FOUND if problems else 0


def _located(declared: Feed | Consumer) -> dict[str, str]:
    return {"name": declared.name, "location": declared.source_location}


def graph(
    module: str,
    /,
    *,
    graph_format: Annotated[
        GraphFormat,
        Parameter(
            name="--format", help="mermaid for documents, dot for Graphviz, ascii for a terminal."
        ),
    ] = GraphFormat.ASCII,
) -> None:
    """
    Draw the sagas of a module as diagrams.

    Args:
        module: MODULE or MODULE:SAGA.
    """
    for saga in validated(_load_sagas(module)):
        print_line(_RENDERERS[graph_format](saga).rstrip("\n"))


def schema(module: str, /) -> None:
    """
    Print the JSON Schema of a module's inputs, commands, replies and events as one document.

    Args:
        module: MODULE or MODULE:NAME.
    """
    found = load_objects(module, (Saga, Aggregate), Settings.load().import_timeout)
    sagas = validated([each for each in found if isinstance(each, Saga)])
    aggregates = [each for each in found if isinstance(each, Aggregate)]
    for problem in aggregate_problems(aggregates):
        raise problem
    print_json(
        {
            "sagas": [_saga_schemas(saga) for saga in sagas],
            "events": [schemas for each in aggregates for schemas in _event_schemas(each)],
        }
    )


def _load_sagas(module: str) -> list[Saga]:
    return load_objects(module, Saga, Settings.load().import_timeout)


def _saga_schemas(saga: Saga) -> dict[str, Any]:
    return {
        "name": saga.name,
        "version": saga.version,
        "input": saga.input_type.schema("validation"),
        "steps": [
            {
                "name": name,
                "action": _command_schemas(step.action_spec),
                "compensation": step.compensation_spec and _command_schemas(step.compensation_spec),
            }
            for name, step in saga.steps.items()
        ],
    }


def _event_schemas(aggregate: Aggregate) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "version": fold.event_type.version,
            "aggregate": aggregate.name,
            "data": fold.event_type.payload_type.schema("serialization"),
        }
        for name, fold in aggregate.folds.items()
    ]


def _command_schemas(spec: CommandSpec) -> dict[str, Any]:
    return {
        "command": spec.command,
        "payload": spec.mapping.payload_type.schema("serialization"),
        "reply": spec.reply_type.schema("validation"),
    }


def _saga_json(saga: Saga) -> dict[str, Any]:
    return {
        "name": saga.name,
        "version": saga.version,
        "fingerprint": saga.fingerprint,
        "location": saga.source_location,
        "steps": list(saga.steps),
    }


def _summary(found: Saga | Aggregate | Projection | Feed | Consumer) -> str:
    if isinstance(found, Consumer):
        return f"{found.name}: consumer of {_count(len(found.handlers), 'event')}, valid"
    if isinstance(found, Feed):
        return f"{found.name}: feed, valid"
    if isinstance(found, Aggregate):
        events, commands = len(found.folds), len(found.commands)
        counts = f"{_count(events, 'event')}, {_count(commands, 'command')}"
        return f"{found.name}: {counts}, valid"
    counts = (
        _count(len(found.steps), "step")
        if isinstance(found, Saga)
        else f"{_count(len(found.handlers), 'event')}, {_count(len(found.tables), 'table')}"
    )
    return f"{found.name} version {found.version}: {counts}, valid"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _projection_json(projection: Projection) -> dict[str, Any]:
    return {
        "name": projection.name,
        "version": projection.version,
        "location": projection.source_location,
        "events": list(projection.handlers),
        "tables": [table.fullname for table in projection.tables],
    }


def _aggregate_json(aggregate: Aggregate) -> dict[str, Any]:
    return {
        "name": aggregate.name,
        "location": aggregate.source_location,
        "events": {name: each.event_type.version for name, each in aggregate.folds.items()},
        "commands": [each.__name__ for each in aggregate.commands],
    }


def _problem_json(problem: DefinitionError) -> dict[str, str]:
    return {"location": problem.location, "problem": problem.problem, "fix": problem.fix}
