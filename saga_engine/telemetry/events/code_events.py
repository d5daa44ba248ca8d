"""Telemetry events about failing code: the engine's own bugs, and code of the user."""

from dataclasses import dataclass

from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalErrorCaught:
    """A bug of the engine was caught; `operation` is what the process was doing."""

    operation: Operation
    problem: str
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFailed:
    """An observer of telemetry events raised; reported to the other observers, once for each."""

    observer: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodeFailed:
    """
    A mapping function or the type of a payload raised, or was interrupted after its time limit.

    `function` is its name. `problem` has the class and the location of the exception, not its text.
    """

    saga: str
    run_id: str
    function: str
    problem: str
    step: str = ""
    direction: Direction | None = None
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodeHung:
    """
    Such code did not return within `limit_s` and could not be interrupted: the process is ended.

    `recorded` says whether PostgreSQL knows of it. If so, the next worker processes that run alone.
    """

    saga: str
    run_id: str
    function: str
    limit_s: float
    recorded: bool
    step: str = ""
    direction: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodeContained:
    """
    Code of the user tried to stop more than its own work, and was prevented from it.

    `problem` says what it did. The names are those of the mapping or the command, and empty if it
    is not known which call it was. `suppressed_count` counts occurrences since the last such line.
    """

    problem: str
    saga: str = ""
    run_id: str = ""
    step: str = ""
    command: str = ""
    function: str = ""
    suppressed_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaBroken:
    """
    A command or a reply of a saga cannot be read by another version; the worker goes on.

    `subject` is the schema, `problem` names the field and both versions, `fix` is what its author
    does next.
    """

    subject: str
    problem: str
    fix: str
