"""`saga-engine check` and `graph`: what a module declares, without running it."""

from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.output import AsJson, document, line, say
from saga_engine.errors import DefinitionError
from saga_engine.loading import load
from saga_engine.saga.definition import Saga
from saga_engine.saga.graph import ascii_art, dot, mermaid
from saga_engine.worker.catalogue import sound

PROBLEMS = 8


class Format(StrEnum):
    """How a saga is drawn."""

    MERMAID = "mermaid"
    DOT = "dot"
    ASCII = "ascii"


_DRAW = {Format.MERMAID: mermaid, Format.DOT: dot, Format.ASCII: ascii_art}


def check(module: str, /, *, as_json: AsJson = False) -> int:
    """
    Hold the sagas of a module against every rule; exit 8 when one is broken.

    Args:
        module: MODULE or MODULE:SAGA.
    """
    try:
        sagas = sound(load(module, Saga))
    except DefinitionError as error:
        if as_json:
            problem = {"where": error.where, "problem": error.problem, "mend": error.mend}
            document({"sound": False, "sagas": [], "problems": [problem]})
        else:
            say(str(error))
        return PROBLEMS
    if as_json:
        document({"sound": True, "sagas": [_saga_json(each) for each in sagas], "problems": []})
    else:
        for each in sagas:
            line(f"{each.name} version {each.version}: {len(each.steps)} steps, sound")
    return 0


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
    for saga in sound(load(module, Saga)):
        line(_DRAW[drawn](saga).rstrip("\n"))


def _saga_json(saga: Saga) -> dict[str, Any]:
    return {
        "name": saga.name,
        "version": saga.version,
        "fingerprint": saga.fingerprint,
        "where": saga.where,
        "steps": list(saga.steps),
    }
