"""
Folding: from the events of a stream to the state of its aggregate.

Only the newest version of an event reaches a fold. An event that the code does not know is an error
and is never passed over: the state without it would be another.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from saga_engine.events.aggregates.aggregate import Aggregate, Fold, require_aggregate
from saga_engine.events.event_store.arguments import require_instance
from saga_engine.events.event_store.recorded import Recorded, unreadable
from saga_engine.payload.guard import (
    NO_TIME_LIMIT,
    CallTimeLimit,
    UserCodeError,
    call_user_code,
)
from saga_engine.payload.payload import type_name


def decode(
    aggregate: Aggregate, recorded: Recorded, time_limit: CallTimeLimit = NO_TIME_LIMIT
) -> Any:
    """
    Turn a stored event into an instance of its class, as the folds of its aggregate get it.

        async for recorded in events.read("order-o-1"):
            event = decode(orders, recorded)

    Args:
        aggregate: whose event it is.
        recorded: an event of any version; upcasters lead to the newest.
        time_limit: interrupts each call into the author's code.

    Raises:
        InvalidInput: an argument is of another class.
        UnreadableEvent: the aggregate does not declare it, or cannot read it.
    """
    require_aggregate(aggregate)
    return _fold_of(aggregate, recorded).event_type.read(recorded, time_limit)


def replay(
    aggregate: Aggregate,
    events: Iterable[Recorded],
    state: Any = None,
    time_limit: CallTimeLimit = NO_TIME_LIMIT,
) -> Any:
    """
    Fold stored events of one stream.

    Args:
        aggregate: whose events they are.
        events: in the order of their versions.
        state: before the first of them, and may be changed; None: the aggregate's first state.
        time_limit: interrupts each call into the author's code.

    Raises:
        InvalidInput: an argument is of another class.
        UnreadableEvent: the aggregate does not declare it, cannot read it, or its fold failed.
    """
    require_aggregate(aggregate)
    require_instance(events, Iterable, "What is replayed", "Give the events of a stream.")
    if state is None:
        state = aggregate.state_class()
    fix = f"Give a {type_name(aggregate.state_class)}, or none."
    require_instance(state, aggregate.state_class, "The state", fix)
    for recorded in events:
        fold = _fold_of(aggregate, recorded)
        event = fold.event_type.read(recorded, time_limit)
        try:
            state = apply_event(aggregate, fold, state, event, time_limit)
        except UserCodeError as error:
            problem = f"{fold.call.function} {error.text}{error.detail}"
            fix = f"Correct the fold at {fold.call.source_location}."
            # For a traceback in the caller's process: what the author's code raised.
            raise unreadable(recorded, problem, fix) from error.__context__
    return state


def _fold_of(aggregate: Aggregate, recorded: Recorded) -> Fold:
    fix = "Give events as Events.read reads them."
    require_instance(recorded, Recorded, "The event", fix)
    fold = aggregate.folds.get(recorded.type)
    if fold is None:
        problem = f"aggregate {aggregate.name!r} does not declare it"
        fix = "Deploy the code that declares it, or declare a fold for it."
        raise unreadable(recorded, problem, fix)
    return fold


def apply_event(
    aggregate: Aggregate, fold: Fold, state: Any, event: Any, time_limit: CallTimeLimit
) -> Any:
    """
    Call one fold.

    Raises:
        UserCodeError: it raised, was interrupted, or did not return a state.
    """
    state_parameter, event_parameter = fold.parameters
    call = partial(fold.function, **{state_parameter: state, event_parameter: event})
    next_state = call_user_code(time_limit, fold.call, call)
    if type(next_state) is not aggregate.state_class:
        expected = type_name(aggregate.state_class)
        text = f"returned a {type_name(type(next_state))} instead of a {expected}"
        raise UserCodeError(fold.call, text)
    return next_state
