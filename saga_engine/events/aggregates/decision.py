"""
Decisions: from a command and a state to events.

The events are folded as they will be read, before they are appended: no event is stored that its
own fold cannot apply, and no state arises that a snapshot could not hold.
"""

from dataclasses import dataclass
from typing import Any

from saga_engine.errors import DecisionFailed, InvalidInput
from saga_engine.events.aggregates.aggregate import Aggregate, CommandSpec, fold_of
from saga_engine.events.aggregates.folding import apply_event
from saga_engine.events.aggregates.returned_events import events_in
from saga_engine.events.event_store.event_types import event_code_call
from saga_engine.events.event_store.recorded import EventData
from saga_engine.payload.guard import (
    NO_TIME_LIMIT,
    CallTimeLimit,
    UserCodeError,
    call_user_code,
)
from saga_engine.payload.payload import PayloadError, type_name
from saga_engine.protocol.rejection import Rejected
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What a command causes.

    Args:
        events: as they are appended.
        values: the same, as instances of their classes.
        state: after them.
        state_data: the same, as JSON.
    """

    events: tuple[EventData, ...]
    values: tuple[Any, ...]
    state: Any
    state_data: Json


def decide(
    aggregate: Aggregate, state: Any, command: Any, time_limit: CallTimeLimit = NO_TIME_LIMIT
) -> Decision:
    """
    Decide a command.

    Args:
        aggregate: it has a function for the class of the command.
        state: of one aggregate; it may be changed.
        command: an instance of a declared class; it is not changed.
        time_limit: interrupts each call into the author's code.

    Raises:
        Rejected: the command is not allowed in that state.
        InvalidInput: the aggregate has no such command, or its content does not fit its class.
        DecisionFailed: the function failed, or its events cannot be stored or applied.
    """
    spec = _command_spec(aggregate, command)
    copied_command = _copy_command(spec, command, time_limit)
    try:
        result = _call_command(aggregate, spec, state, copied_command, time_limit)
        if isinstance(result, _Rejection):
            raise result.error
        values = events_in(result)
        events = []
        for each in values:
            event, state = _decide_event(aggregate, spec, state, each, time_limit)
            events.append(event)
        state_data = _state_data(aggregate, state, time_limit)
    except UserCodeError as error:
        problem = f"failed: {error.call.function} {error.text}{error.detail}"
        fix = f"Correct {error.call.source_location}."
        # For a traceback in the caller's process: what the author's code raised.
        raise _failed(spec, problem, fix) from error.__context__
    except PayloadError as error:
        raise _failed(spec, f"has a result that cannot be stored: {error}") from None
    return Decision(tuple(events), values, state, state_data)


@dataclass(frozen=True, slots=True)
class _Rejection:
    """What a command's function raised; an exception that it returns is not one."""

    error: Rejected


def _command_spec(aggregate: Aggregate, command: Any) -> CommandSpec:
    spec = aggregate.commands.get(type(command))
    if isinstance(command, type):
        raise InvalidInput(
            f"The command is the class {type_name(command)}. Give an instance of it."
        )
    if spec is None:
        names = ", ".join(sorted(each.__name__ for each in aggregate.commands)) or "none"
        raise InvalidInput(
            f"Aggregate {aggregate.name!r} has no command {type_name(type(command))}. Its commands:"
            f" {names}."
        )
    return spec


def _copy_command(spec: CommandSpec, command: Any, time_limit: CallTimeLimit) -> Any:
    """Copy a command by way of JSON, which refuses one that its class would not accept."""
    command_type = spec.command_type
    name = type_name(command_type.python_type)
    call = event_code_call(name, spec.call.source_location, name)
    try:
        data = call_user_code(time_limit, call, command_type.write, command)
        return call_user_code(time_limit, call, command_type.read, data)
    except (PayloadError, UserCodeError) as error:
        raise InvalidInput(f"The command is not valid: {error}.") from None


def _call_command(
    aggregate: Aggregate, spec: CommandSpec, state: Any, command: Any, time_limit: CallTimeLimit
) -> Any:
    """Call the author's function with a copy of the state, because the events are folded later."""
    state_parameter, command_parameter = spec.parameters
    data = _state_data(aggregate, state, time_limit)
    copied_state = call_user_code(time_limit, spec.call, aggregate.state_type.read, data)
    arguments = {state_parameter: copied_state, command_parameter: command}

    def result_or_rejection() -> Any:
        try:
            return spec.function(**arguments)
        except Rejected as error:
            return _Rejection(error)

    return call_user_code(time_limit, spec.call, result_or_rejection)


def _state_data(aggregate: Aggregate, state: Any, time_limit: CallTimeLimit) -> Json:
    """Write a state, which refuses one that a snapshot would alter."""
    call = event_code_call(type_name(aggregate.state_class), aggregate.source_location, "")
    return call_user_code(time_limit, call, aggregate.state_type.write, state)


def _decide_event(
    aggregate: Aggregate, spec: CommandSpec, state: Any, event: Any, time_limit: CallTimeLimit
) -> tuple[EventData, Any]:
    """Write an event, and fold what will be read."""
    fold = fold_of(aggregate, type(event))
    if fold is None:
        problem = (
            f"returned a {type_name(type(event))}, which is not an event of {aggregate.name!r}"
        )
        raise _failed(spec, problem, "Return one event, a list of events, or None.")
    data = fold.event_type.write(event, time_limit)
    event_read = fold.event_type.read_data(data.data, time_limit)
    return data, apply_event(aggregate, fold, state, event_read, time_limit)


def _failed(spec: CommandSpec, problem: str, fix: str = "") -> DecisionFailed:
    return DecisionFailed(
        spec.command_type.python_type.__name__,
        location=spec.call.source_location,
        problem=problem,
        fix=fix or "Correct the function, or the class of the event or of the state.",
    )
