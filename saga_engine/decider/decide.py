"""
decide(saga, run, trigger, now, ...) -> Decision: what follows from what happened.

Total: every run, in any state, answers every trigger. Late, repeated and foreign messages are
decisions without events. Everything it needs is in its arguments, so a decision can be replayed,
simulated, explained or tried on a copy. In the manner of h11: no I/O, events in, events out.
"""

from dataclasses import dataclass
from datetime import datetime

from saga_engine.decider import operator
from saga_engine.decider.decision import INPUT, MESSAGE_MAX, Turn, deadline_of
from saga_engine.decider.events import Event, RunStarted
from saga_engine.decider.evolve import evolve
from saga_engine.decider.operator import Refused
from saga_engine.decider.progress import advance
from saga_engine.decider.replies import DUPLICATE, FOREIGN, garbled, replied, returned
from saga_engine.decider.run import Cause, Run, StepStatus
from saga_engine.decider.triggers import (
    Cancel,
    Garbled,
    Later,
    Replied,
    Returned,
    Start,
    Trigger,
    Woken,
)
from saga_engine.payload.encryption import PLAIN, SealError, Sealing, input_place
from saga_engine.payload.guard import UNWATCHED, Call, CodeError, Watch, guarded
from saga_engine.payload.limits import LIMITS, Limits
from saga_engine.payload.payload import PayloadError, name_of
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import Direction, Failure, Outcome


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What follows from one trigger.

    `events` in order, and `run` with all of them applied (None only when there is no run).
    `ignored`: one word why the trigger changed nothing. `refused`: a sentence for whoever asked.
    `failures`: calls into the author's code that returned no value.
    """

    run: Run | None
    events: tuple[Event, ...] = ()
    ignored: str | None = None
    refused: str | None = None
    failures: tuple[CodeError, ...] = ()


def decide(  # noqa: PLR0913 - what a decision depends on, each by its name
    saga: Saga,
    run: Run | None,
    trigger: Trigger,
    now: datetime,
    sealing: Sealing = PLAIN,
    *,
    watch: Watch = UNWATCHED,
    limits: Limits = LIMITS,
) -> Decision:
    """
    Decide one trigger.

    Args:
        saga: the definition the run is pinned to; checked by `rules`.
        run: where it stands; None for a run that is not there yet.
        trigger: what happened.
        now: aware, from the database's clock.
        sealing: what opens the payloads that come sealed, and seals those that are made.
        watch: what watches the calls into the author's code.
        limits: what a payload may hold as it is sent.
    """
    if isinstance(trigger, Start):
        if run:
            return Decision(run, ignored=DUPLICATE)
        return _start(saga, trigger, now, sealing, watch=watch, limits=limits)
    if run is None:
        return Decision(None, ignored=FOREIGN)
    turn = Turn(saga, run, now, sealing, watch, limits)
    try:
        ignored = _apply(turn, trigger)
    except Refused as refusal:
        return Decision(run, refused=str(refusal), failures=tuple(turn.failures))
    if ignored is not None:
        return Decision(run, ignored=ignored, failures=tuple(turn.failures))
    advance(turn)
    return _decided(turn)


def _decided(turn: Turn) -> Decision:
    return Decision(turn.run, tuple(turn.events), failures=tuple(turn.failures))


def _start(
    saga: Saga, start: Start, now: datetime, sealing: Sealing, *, watch: Watch, limits: Limits
) -> Decision:
    try:
        given = sealing.unsealed(start.input, input_place(saga.name, start.run_id))
        kind = name_of(saga.input.kind)
        call = Call(saga.name, start.run_id, "", None, "", kind, saga.where)
        value = guarded(watch, call, saga.input.read, given)
    except CodeError as error:
        text = f"The input cannot be read: {error.call.function} {error.text}."
        return Decision(None, refused=text[:MESSAGE_MAX], failures=(error,))
    except SealError as error:
        return Decision(None, refused=f"The input {error}.")
    except PayloadError as error:
        return Decision(None, refused=f"The input {sealing.told(error)}."[:MESSAGE_MAX])
    turn = _begun(saga, start, now, sealing, watch=watch, limits=limits)
    turn.at_hand[INPUT] = given, value
    advance(turn)
    return _decided(turn)


def begin_blocked(saga: Saga, start: Start, now: datetime, cause: str, message: str) -> Decision:
    """
    Begin a run that was accepted and cannot go on: its first steps wait for a person.

    Args:
        saga: the definition the run is pinned to; checked by `rules`.
        start: what was accepted; nothing looks into its input.
        now: aware, from the database's clock.
        cause: of the incidents, one for each step that no other comes before.
        message: what is wrong, in a sentence without payload.
    """
    turn = _begun(saga, start, now, PLAIN, watch=UNWATCHED, limits=LIMITS)
    for step, before in saga.after.items():
        if not before:
            turn.block(step, Direction.ACTION, cause, message)
    return Decision(turn.run, tuple(turn.events))


def _begun(
    saga: Saga, start: Start, now: datetime, sealing: Sealing, *, watch: Watch, limits: Limits
) -> Turn:
    event = RunStarted(
        start.run_id,
        saga.name,
        saga.version,
        saga.fingerprint,
        start.key,
        start.input,
        tuple(saga.steps),
        now,
        now + saga.deadline if saga.deadline else None,
    )
    return Turn(saga, evolve(None, event), now, sealing, watch, limits, [event])


def _apply(turn: Turn, trigger: Later) -> str | None:
    match trigger:
        case Replied():
            return replied(turn, trigger)
        case Garbled():
            return garbled(turn, trigger)
        case Returned():
            return returned(turn, trigger)
        case Woken():
            return _wake(turn)
        case Cancel():
            return operator.cancel(turn, trigger)
        case _:  # Resolve; a trigger that is added does not pass the type checker here
            operator.resolve(turn, trigger)
            return None


def _wake(turn: Turn) -> str | None:
    """Deal with everything that is due: the run's deadline, timeouts, and retries."""
    if turn.run.status.finished:
        return "finished"
    deadline = deadline_of(turn.saga, turn.run)
    if deadline is not None and deadline <= turn.now:
        turn.cause = Cause("deadline")
    places = [(name, direction) for name in turn.saga.steps for direction in Direction]
    timed_out = [each for each in places if _is_due(turn, each, StepStatus.IN_FLIGHT)]
    waited = [each for each in places if _is_due(turn, each, StepStatus.WAITING)]
    for name, direction in timed_out:
        timeout = turn.order(name, direction).timeout
        failure = Failure("timeout", f"No reply within {timeout.total_seconds():g} s.")
        turn.fail(name, direction, Outcome.UNKNOWN, failure)
    # Retries come second: a step given up just now means that no action is tried again.
    for name, direction in waited:
        if not (turn.stopping and direction is Direction.ACTION):
            turn.send(name, direction)
    return None


def _is_due(turn: Turn, place: tuple[str, Direction], status: StepStatus) -> bool:
    name, direction = place
    progress = turn.step(name).toward(direction)
    due_at = progress.due_at
    return progress.status is status and due_at is not None and due_at <= turn.now
