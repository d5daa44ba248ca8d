"""
decide(saga, run, trigger, now, ports) -> Decision: what follows from what happened.

This is the Decider pattern (Jérémie Chassaing, "Functional Event Sourcing Decider"), written in the
manner of h11: no I/O, events in, events out. Two total, pure functions are the core of the engine:

    decide(saga, run, trigger, now, ports) -> Decision(events, run)
    evolve(run, event)                     -> run

`decide` answers every trigger for every run in any state. A late, repeated or misdirected message
gives a decision with an IgnoredReason, a request that is not possible one with a refusal; neither
is an exception. Everything a decision needs is in its arguments, so that it can be replayed,
simulated, explained, or tried on a copy of the run.

A trigger is decided in two stages. Both record events, each of which changes the decision's copy of
the run at once:

    1. what the trigger means        replies.py, operator.py, _on_wake_up below
    2. what follows for the run      advance.py: forward, stop, or compensate

Stage 1 settles attempts and steps. If the run must compensate, it only notes the cause, with
`DecisionBuilder.stop`; stage 2 compensates once no step is in flight. For example, steps a and b
are in flight side by side:

    trigger        stage 1                            stage 2
    a is rejected  StepRejected; the cause is noted   RunStopping: b is in flight
    b succeeds     StepSucceeded                      RunCompensating, AttemptStarted: undo b
    b is undone    StepSucceeded (compensation)       RunCompensated

commands.py computes from the events which commands to send, and when to wake up. After each
decision of an unfinished run some step waits until its `due_at`, or for a person (promise P1 of
docs/reliability.md).

Each rule is written as a table, a list or a docstring beside its code:

    which status may follow which                         transitions.py, drawn in docs/semantics.md
    what a success, or another message, does              replies.py
    when a step is blocked, and when the run compensates  StepInDirection._stop_or_block
    what a run does next                                  advance.py
    which steps there are to compensate                   advance.py, `_needs_compensation`
    what is true of every saga that is decided            saga/rules.py

The words of these rules, to come back to after run.py:

    blocked   a direction of a step has an incident: an operator must act, or has abandoned the run
    stopping  a run has a cause to compensate, and waits for its steps in flight
    given up  an action that ended failed or unknown: its last attempt failed, or the run stopped
              while it awaited a retry or was blocked (StepGivenUp)
    late      what arrives after a step has ended
    covered   an effect for which a compensation was sent
    budget    the attempts of a retry policy; an operator's retry gives another
    round     the attempts that share an idempotency key; a retry of a rejection begins another

What to change together: docs/internals.md, "Extension guide".
"""

from datetime import datetime

from saga_engine.decider import operator, replies, triggers
from saga_engine.decider.advance import advance
from saga_engine.decider.decision import MAX_MESSAGE_LENGTH, Decision, DecisionBuilder
from saga_engine.decider.events import RunStarted
from saga_engine.decider.run import CompensationCause, Run, StepStatus, active_deadline
from saga_engine.decider.step_in_direction import StepInDirection
from saga_engine.payload.ports import NO_PORTS, PayloadPorts
from saga_engine.payload.reader import READ_ERRORS
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IgnoredReason,
    IncidentCause,
    Outcome,
)


def decide(
    saga: Saga,
    run: Run | None,
    trigger: triggers.Trigger,
    now: datetime,
    ports: PayloadPorts = NO_PORTS,
) -> Decision:
    """
    Decide one trigger.

    Args:
        saga: the definition the run is pinned to; checked by `rules`.
        run: where it is; None for a run that does not exist yet.
        trigger: what happened.
        now: aware, from the database's clock.
        ports: encrypts, limits and interrupts what is done with payloads.
    """
    if isinstance(trigger, triggers.Start):
        if run is not None:
            return Decision(run=run, ignored_reason=IgnoredReason.DUPLICATE)
        return _start(saga, trigger, now, ports)
    if run is None:
        return Decision(run=None, ignored_reason=IgnoredReason.UNCORRELATED)
    builder = DecisionBuilder(saga, run, now, ports)
    try:
        ignored_reason = _apply(builder, trigger)
    except operator.RequestRefused as error:
        return builder.decision(refusal=str(error))
    if ignored_reason is None:
        advance(builder)
    return builder.decision(ignored_reason=ignored_reason)


def start_blocked(
    saga: Saga, start: triggers.Start, now: datetime, cause: IncidentCause, message: str
) -> Decision:
    """
    Start a run that was accepted and cannot go on: its first steps wait for an operator.

    The input is not read. Each step without a predecessor has an incident with *cause* and
    *message*, a sentence without payload.
    """
    builder = _new_run(saga, start, now, NO_PORTS)
    for name, predecessors in saga.predecessors.items():
        if not predecessors:
            StepInDirection(builder, name, Direction.ACTION).open_incident(cause, message)
    return builder.decision()


def _start(saga: Saga, start: triggers.Start, now: datetime, ports: PayloadPorts) -> Decision:
    builder = _new_run(saga, start, now, ports)
    payloads = builder.payloads
    try:
        payloads.check_input(start.input)
    except READ_ERRORS as error:
        refusal = payloads.problem_text("The input", error)[:MAX_MESSAGE_LENGTH]
        return Decision(run=None, refusal=refusal, code_errors=tuple(payloads.code_errors))
    advance(builder)
    return builder.decision()


def _new_run(
    saga: Saga, start: triggers.Start, now: datetime, ports: PayloadPorts
) -> DecisionBuilder:
    event = RunStarted(
        run_id=start.run_id,
        saga=saga.name,
        version=saga.version,
        fingerprint=saga.fingerprint,
        key=start.key,
        input=start.input,
        steps=tuple(saga.steps),
        started_at=now,
        deadline=now + saga.deadline if saga.deadline else None,
    )
    builder = DecisionBuilder(saga, event.started_run(), now, ports)
    builder.events.append(event)
    return builder


def _apply(builder: DecisionBuilder, trigger: triggers.RunTrigger) -> IgnoredReason | None:
    match trigger:
        case triggers.ReplyReceived() | triggers.MalformedReply() | triggers.CommandUnroutable():
            return replies.on_message(builder, trigger)
        case triggers.WakeUp():
            return _on_wake_up(builder)
        case triggers.Cancel():
            return operator.cancel(builder, trigger)
        case _:  # ResolveIncident; a trigger that is added does not pass mypy here
            operator.resolve(builder, trigger)
            return None


def _on_wake_up(builder: DecisionBuilder) -> IgnoredReason | None:
    """Do everything that is due: the run's deadline, then timeouts, then retries."""
    if builder.run.status.is_finished:
        return IgnoredReason.FINISHED
    deadline = active_deadline(builder.saga, builder.run)
    if deadline is not None and deadline <= builder.now:  # first: then the timeouts retry nothing
        builder.stop(CompensationCause(code=CompensationCode.DEADLINE))
    timed_out = _due_directions(builder, StepStatus.IN_FLIGHT)
    # Listed before the timeouts: a retry that one plans without delay waits for another wake-up.
    awaiting_retry = _due_directions(builder, StepStatus.AWAITING_RETRY)
    for step in timed_out:
        text = f"No reply within {step.spec.timeout.total_seconds():g} s."
        step.fail_attempt(Outcome.UNKNOWN, Failure.by_engine(EngineFailureCode.TIMEOUT, text))
    if not builder.is_stopping:  # if it is, `advance` gives up what awaits a retry
        for step in awaiting_retry:
            step.start_attempt()
    return None


def _due_directions(builder: DecisionBuilder, status: StepStatus) -> list[StepInDirection]:
    """The directions of steps with this status whose time has come, in declaration order."""
    due = []
    for name in builder.saga.steps:
        for direction in Direction:
            step = StepInDirection(builder, name, direction)
            due_at = step.progress.due_at
            if step.progress.status is status and due_at is not None and due_at <= builder.now:
                due.append(step)
    return due
