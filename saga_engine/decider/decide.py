"""
decide(saga, run, trigger, now, ...) -> Decision: what follows from what happened.

Total: every run, in any state, answers every trigger. Late, repeated and foreign messages are
decisions without events. Everything it needs is in its arguments, so a decision can be replayed,
simulated, explained or tried on a copy. In the manner of h11: no I/O, events in, events out.
"""

from dataclasses import dataclass
from datetime import datetime

from saga_engine.decider import operator
from saga_engine.decider.decision import (
    INPUT_KEY,
    MAX_MESSAGE_LENGTH,
    DecisionBuilder,
    active_deadline,
)
from saga_engine.decider.events import Event, RunStarted
from saga_engine.decider.evolve import evolve
from saga_engine.decider.operator import RequestRefused
from saga_engine.decider.progress import advance
from saga_engine.decider.replies import (
    DUPLICATE,
    UNCORRELATED,
    on_malformed_reply,
    on_reply,
    on_unroutable,
)
from saga_engine.decider.run import CompensationCause, Run, StepStatus
from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    MalformedReply,
    ReplyReceived,
    RunTrigger,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.payload.encryption import (
    NO_ENCRYPTION,
    EncryptionError,
    PayloadEncryption,
    input_associated_data,
)
from saga_engine.payload.guard import (
    NO_TIME_LIMIT,
    CallTimeLimit,
    UserCodeCall,
    UserCodeError,
    call_user_code,
)
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.payload.payload import PayloadError, type_name
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
    ignored_reason: str | None = None
    refusal: str | None = None
    code_errors: tuple[UserCodeError, ...] = ()


def decide(  # noqa: PLR0913 - what a decision depends on, each by its name
    saga: Saga,
    run: Run | None,
    trigger: Trigger,
    now: datetime,
    encryption: PayloadEncryption = NO_ENCRYPTION,
    *,
    time_limit: CallTimeLimit = NO_TIME_LIMIT,
    limits: BodyLimits = DEFAULT_LIMITS,
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
            return Decision(run, ignored_reason=DUPLICATE)
        return _start(saga, trigger, now, encryption, time_limit=time_limit, limits=limits)
    if run is None:
        return Decision(None, ignored_reason=UNCORRELATED)
    builder = DecisionBuilder(saga, run, now, encryption, time_limit, limits)
    try:
        ignored_reason = _apply(builder, trigger)
    except RequestRefused as refusal:
        return Decision(run, refusal=str(refusal), code_errors=tuple(builder.code_errors))
    if ignored_reason is not None:
        return Decision(run, ignored_reason=ignored_reason, code_errors=tuple(builder.code_errors))
    advance(builder)
    return _build_decision(builder)


def _build_decision(builder: DecisionBuilder) -> Decision:
    return Decision(builder.run, tuple(builder.events), code_errors=tuple(builder.code_errors))


def _start(
    saga: Saga,
    start: Start,
    now: datetime,
    encryption: PayloadEncryption,
    *,
    time_limit: CallTimeLimit,
    limits: BodyLimits,
) -> Decision:
    try:
        input_json = encryption.decrypt(start.input, input_associated_data(saga.name, start.run_id))
        input_type_name = type_name(saga.input_type.python_type)
        call = UserCodeCall(
            saga.name, start.run_id, "", None, "", input_type_name, saga.source_location
        )
        value = call_user_code(time_limit, call, saga.input_type.read, input_json)
    except UserCodeError as error:
        text = f"The input cannot be read: {error.call.function} {error.text}."
        return Decision(None, refusal=text[:MAX_MESSAGE_LENGTH], code_errors=(error,))
    except EncryptionError as error:
        return Decision(None, refusal=f"The input {error}.")
    except PayloadError as error:
        return Decision(
            None, refusal=f"The input {encryption.safe_error_text(error)}."[:MAX_MESSAGE_LENGTH]
        )
    builder = _new_builder(saga, start, now, encryption, time_limit=time_limit, limits=limits)
    builder.decoded_values[INPUT_KEY] = input_json, value
    advance(builder)
    return _build_decision(builder)


def start_blocked(saga: Saga, start: Start, now: datetime, cause: str, message: str) -> Decision:
    """
    Begin a run that was accepted and cannot go on: its first steps wait for a person.

    Args:
        saga: the definition the run is pinned to; checked by `rules`.
        start: what was accepted; nothing looks into its input.
        now: aware, from the database's clock.
        cause: of the incidents, one for each step that no other comes before.
        message: what is wrong, in a sentence without payload.
    """
    builder = _new_builder(
        saga, start, now, NO_ENCRYPTION, time_limit=NO_TIME_LIMIT, limits=DEFAULT_LIMITS
    )
    for step, predecessors in saga.predecessors.items():
        if not predecessors:
            builder.open_incident(step, Direction.ACTION, cause, message)
    return Decision(builder.run, tuple(builder.events))


def _new_builder(
    saga: Saga,
    start: Start,
    now: datetime,
    encryption: PayloadEncryption,
    *,
    time_limit: CallTimeLimit,
    limits: BodyLimits,
) -> DecisionBuilder:
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
    return DecisionBuilder(saga, evolve(None, event), now, encryption, time_limit, limits, [event])


def _apply(builder: DecisionBuilder, trigger: RunTrigger) -> str | None:
    match trigger:
        case ReplyReceived():
            return on_reply(builder, trigger)
        case MalformedReply():
            return on_malformed_reply(builder, trigger)
        case CommandUnroutable():
            return on_unroutable(builder, trigger)
        case WakeUp():
            return _on_wake_up(builder)
        case Cancel():
            return operator.cancel(builder, trigger)
        case _:  # Resolve; a trigger that is added does not pass the type checker here
            operator.resolve(builder, trigger)
            return None


def _on_wake_up(builder: DecisionBuilder) -> str | None:
    """Deal with everything that is due: the run's deadline, timeouts, and retries."""
    if builder.run.status.is_finished:
        return "finished"
    deadline = active_deadline(builder.saga, builder.run)
    if deadline is not None and deadline <= builder.now:
        builder.compensation_cause = CompensationCause("deadline")
    step_refs = [(name, direction) for name in builder.saga.steps for direction in Direction]
    timed_out_steps = [each for each in step_refs if _is_due(builder, each, StepStatus.IN_FLIGHT)]
    due_retries = [each for each in step_refs if _is_due(builder, each, StepStatus.AWAITING_RETRY)]
    for name, direction in timed_out_steps:
        timeout = builder.command_spec(name, direction).timeout
        failure = Failure("timeout", f"No reply within {timeout.total_seconds():g} s.")
        builder.fail_attempt(name, direction, Outcome.UNKNOWN, failure)
    # Retries come second: a step given up just now means that no action is tried again.
    for name, direction in due_retries:
        if not (builder.stopping and direction is Direction.ACTION):
            builder.start_attempt(name, direction)
    return None


def _is_due(builder: DecisionBuilder, step_ref: tuple[str, Direction], status: StepStatus) -> bool:
    name, direction = step_ref
    progress = builder.step(name).progress_of(direction)
    due_at = progress.due_at
    return progress.status is status and due_at is not None and due_at <= builder.now
