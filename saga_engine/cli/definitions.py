"""`saga-engine check`, `graph` and `schema`: what a module declares, without running it."""

from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.output import AsJson, document, line, say
from saga_engine.errors import DefinitionError
from saga_engine.loading import load
from saga_engine.saga.definition import Order, Saga, collecting
from saga_engine.saga.diagrams import ascii_art, dot, mermaid
from saga_engine.settings import Settings
from saga_engine.worker.registry import problems_of, sound

PROBLEMS = 8


class Format(StrEnum):
    """How a saga is drawn."""

    MERMAID = "mermaid"
    DOT = "dot"
    ASCII = "ascii"


_DRAW = {Format.MERMAID: mermaid, Format.DOT: dot, Format.ASCII: ascii_art}


def check(module: str, /, *, as_json: AsJson = False) -> int:
    """
    Hold the sagas of a module against every rule; report each that is broken, and exit 8.

    Args:
        module: MODULE or MODULE:SAGA.
    """
    with collecting() as found:
        try:
            sagas = _sagas(module)
        except DefinitionError as error:
            sagas = []
            found.append(error)
    found.extend(problems_of(sagas))
    if as_json:
        document(
            {
                "sound": not found,
                "sagas": [] if found else [_saga_json(each) for each in sagas],
                "problems": [_problem_json(each) for each in found],
            }
        )
    elif found:
        for each in found:
            say(str(each))
    else:
        for saga in sagas:
            line(f"{saga.name} version {saga.version}: {len(saga.steps)} steps, sound")
    return PROBLEMS if found else 0


def graph(
    module: str,
    /,
    *,
    drawn: Annotated[
        Format, Parameter(name="--format", help="For documents, Graphviz or a terminal.")
    ] = Format.ASCII,
) -> None:
    """
    Draw the sagas of a module.

    Args:
        module: MODULE or MODULE:SAGA.
    """
    for saga in sound(_sagas(module)):
        line(_DRAW[drawn](saga).rstrip("\n"))


def schema(module: str, /) -> None:
    """
    Print what travels: the JSON Schema of inputs, commands and replies, as one document.

    Args:
        module: MODULE or MODULE:SAGA.
    """
    sagas = sound(_sagas(module))
    document({"sagas": [_schemas(saga) for saga in sagas]})


def _sagas(module: str) -> list[Saga]:
    return load(module, Saga, Settings.load().import_timeout)


def _schemas(saga: Saga) -> dict[str, Any]:
    return {
        "name": saga.name,
        "version": saga.version,
        "input": saga.input.schema("validation"),
        "steps": [
            {
                "name": name,
                "action": _order_schemas(step.action),
                "compensation": step.undo and _order_schemas(step.undo),
            }
            for name, step in saga.steps.items()
        ],
    }


def _order_schemas(order: Order) -> dict[str, Any]:
    return {
        "command": order.command,
        "payload": order.mapping.payload.schema("serialization"),
        "reply": order.reply.schema("validation"),
    }


def _saga_json(saga: Saga) -> dict[str, Any]:
    return {
        "name": saga.name,
        "version": saga.version,
        "fingerprint": saga.fingerprint,
        "where": saga.where,
        "steps": list(saga.steps),
    }


def _problem_json(problem: DefinitionError) -> dict[str, str]:
    return {"where": problem.where, "problem": problem.problem, "fix": problem.mend}
