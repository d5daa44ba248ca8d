"""
One decision in the making: what is asked, and the events recorded so far.

A Turn lives for one call of `decide` and is the only mutable thing in it. The parts of `decide`
read `turn.run`, which already has every recorded event applied, and record more.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from saga_engine.decider.events import AttemptFailed, AttemptStarted, Event, IncidentOpened
from saga_engine.decider.evolve import evolve
from saga_engine.decider.run import Cause, Incident, KeptReply, Run, StepRun, StepStatus
from saga_engine.decider.triggers import Returned
from saga_engine.payload.encryption import (
    PAYLOAD_SEALED,
    PLAIN,
    Place,
    SealError,
    Sealing,
    command_place,
    input_place,
    reply_place,
)
from saga_engine.payload.guard import UNWATCHED, Call, CodeError, Watch, guarded
from saga_engine.payload.limits import LIMITS, Limits
from saga_engine.payload.payload import Payload, PayloadError, beyond, name_of, too_large
from saga_engine.saga.definition import Order, Saga
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Status, StepKind

MESSAGE_MAX = 500
"""Characters of an error's text that are kept in the journal."""

INPUT = ""
"""The name of the run's input in `Turn.at_hand`; no step is called so."""


@dataclass(slots=True)
class Turn:
    """
    One decision about *run* at *now*, under *saga*.

    `sealing` opens the payloads that mapping functions need and seals what they make, which is then
    held against `limits`. `watch` watches the calls into the author's code, `failures` are those
    that returned no value. `cause`:
    something in this decision makes the run turn back; `course` carries it out. `at_hand` holds
    what this decision has read and no mapping has used yet, by step or INPUT: the JSON and its
    value.
    """

    saga: Saga
    run: Run
    now: datetime
    sealing: Sealing = PLAIN
    watch: Watch = UNWATCHED
    limits: Limits = LIMITS
    events: list[Event] = field(default_factory=list)
    failures: list[CodeError] = field(default_factory=list)
    cause: Cause | None = None
    at_hand: dict[str, tuple[Json, Any]] = field(default_factory=dict)

    def record(self, event: Event) -> None:
        """Add an event; `run` is what it makes of the run."""
        self.run = evolve(self.run, event)
        self.events.append(event)

    def step(self, name: str) -> StepRun:
        """Where a step stands now."""
        return self.run.steps[name]

    def order(self, name: str, direction: Direction) -> Order:
        """What is sent for a step in a direction that is declared."""
        order = self.saga.steps[name].order(direction)
        assert order is not None, f"{name} has no {direction}"
        return order

    def block(
        self,
        step: str,
        direction: Direction,
        cause: str,
        message: str,
        kept: KeptReply | None = None,
    ) -> None:
        """Open an incident: this direction of the step waits for a person."""
        number = self.run.incidents_ever + 1
        # An exception's text may hold what PostgreSQL's jsonb does not take.
        text = message.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
        text = text[:MESSAGE_MAX]
        self.record(IncidentOpened(number, step, direction, cause, text, self.now, kept))

    def incident_of(self, step: str, direction: Direction) -> Incident | None:
        """The open incident of that direction, if there is one."""
        for incident in self.run.incidents.values():
            if (incident.step, incident.direction) == (step, direction):
                return incident
        return None

    def send(self, step: str, direction: Direction) -> None:
        """Order the next attempt, or block the step when its payload cannot be made."""
        before = self.step(step).toward(direction)
        order = self.order(step, direction)
        payload = None
        if before.payload is None:
            try:
                place = command_place(self.run.run_id, step, direction)
                call = self.call(step, direction, order, order.mapping.function.__name__)
                mapped = guarded(self.watch, call, self._map, order)
                payload = self._sealed(mapped, place)
            except SealError as error:
                self.block(step, direction, PAYLOAD_SEALED, f"The payload {error}.")
                return
            except PayloadError as error:
                text = f"{order.where} raised PayloadError: {self.sealing.told(error)}"
                self.block(step, direction, "mapping_failed", text)
                return
            except CodeError as error:
                text = f"{order.where} {self.failed(error)}."
                self.block(step, direction, "mapping_failed", text)
                return
        self.record(
            AttemptStarted(
                step,
                direction,
                before.attempts + 1,
                before.round,
                order.command,
                self.now + order.timeout,
                payload,
                self.now,
            )
        )

    def call(self, step: str, direction: Direction, order: Order, function: str) -> Call:
        """Name a call into the author's code that is made for a direction of a step."""
        run = self.run
        return Call(*(run.saga, run.run_id, step, direction, order.command, function, order.where))

    def failed(self, error: CodeError) -> str:
        """Note a call that returned no value; what may be said of it."""
        self.failures.append(error)
        return error.text + (error.detail if self.sealing.codec is None else "")

    def read_reply(self, step: str, direction: Direction, body: Json) -> None:
        """
        Read a reply as its type.

        Raises:
            PayloadError, CodeError: it cannot be read.
        """
        order = self.order(step, direction)
        kind = order.reply
        call = self.call(step, direction, order, name_of(kind.kind))
        value = guarded(self.watch, call, kind.read, body)
        if direction is Direction.ACTION:
            self.at_hand[step] = body, value

    def _sealed(self, payload: Json, place: Place) -> Json:
        """Seal a payload and check its size. Without a codec, `_map` has checked the size."""
        if self.sealing.codec is None:
            return payload
        sealed = self.sealing.sealed(payload, place)
        problem = beyond(sealed, self.limits)
        if problem:
            raise too_large(problem)
        return sealed

    def _map(self, order: Order) -> Json:
        run, values = self.run, {}
        for parameter in order.mapping.parameters:
            name = parameter.name
            if name not in self.saga.steps:
                given = self._unsealed(run.input, input_place(run.saga, run.run_id), "the input")
                values[name] = self._value(INPUT, self.saga.input, given)
                continue
            source = self.step(name).action
            reply = None
            if source.status is StepStatus.SUCCEEDED:
                place = reply_place(run.run_id, name, Direction.ACTION)
                reply = self._unsealed(source.reply, place, f"the reply of step {name!r}")
            if reply is None and parameter.optional:
                values[name] = None
            elif source.status is StepStatus.SUCCEEDED:
                kind = self.order(name, Direction.ACTION).reply
                values[name] = self._value(name, kind, reply)
            else:
                raise PayloadError(f"there is no reply of step {name!r}")
        return order.mapping(values, self.limits if self.sealing.codec is None else None)

    def _value(self, name: str, kind: Payload, data: Json) -> Any:
        """Read a value for one mapping, which may change it. Each value is handed out once."""
        read = self.at_hand.pop(name, None)
        return read[1] if read and read[0] is data else kind.read(data)

    def _unsealed(self, value: Json, place: Place, what: str) -> Json:
        try:
            return self.sealing.unsealed(value, place)
        except SealError as error:
            raise SealError(f"needs {what}, which {error}") from None

    def fail(
        self,
        step: str,
        direction: Direction,
        outcome: Outcome,
        failure: Failure,
        *,
        returned: Returned | None = None,
    ) -> None:
        """An attempt came to nothing: try again while the policy allows it, else give it up."""
        nowhere = returned is not None and returned.first
        before = self.step(step).toward(direction)
        policy = self.order(step, direction).retry
        tried = before.attempts - before.spent
        retry_at = None
        if tried < policy.attempts and not self.stopping:
            seed = f"{self.run.run_id}/{step}/{direction}/{before.attempts}"
            retry_at = self.now + policy.delay(tried, seed)
        self.record(
            AttemptFailed(step, direction, before.attempts, outcome, failure, retry_at, nowhere)
        )
        if retry_at is None:
            self._give_up(step, direction, outcome, failure, unroutable=returned is not None)

    def _give_up(
        self,
        step: str,
        direction: Direction,
        outcome: Outcome,
        failure: Failure,
        *,
        unroutable: bool,
    ) -> None:
        if direction is Direction.ACTION and self.stopping:
            return  # the run turns back anyway, and backward recovery sees to the step
        if unroutable:
            self.block(step, direction, "unroutable", failure.text)
        elif failure.code == PAYLOAD_SEALED:
            self.block(step, direction, PAYLOAD_SEALED, failure.text)
        elif direction is Direction.COMPENSATION:
            self.block(step, direction, f"compensation_{outcome}", failure.text)
        elif self.forward_only(step):
            self.block(step, direction, f"step_{outcome}", failure.text)
        else:
            self.cause = Cause(outcome.value, step, failure)

    def forward_only(self, step: str) -> bool:
        """Whether giving this step up could leave an effect that no command undoes."""
        kind = self.saga.kind(step)
        declared = self.saga.steps[step]
        lone_pivot = kind is StepKind.PIVOT and declared.undo is None and not declared.read_only
        return kind is StepKind.RETRIABLE or lone_pivot

    @property
    def stopping(self) -> bool:
        """Whether the run is about to turn back, so that nothing new starts."""
        return self.cause is not None or self.run.stop is not None

    @property
    def past_pivot(self) -> bool:
        """Whether there is no way back any more."""
        return _past_pivot(self.saga, self.run)


PASSED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
"""What an action must be for the steps after it to begin."""


def deadline_of(saga: Saga, run: Run) -> datetime | None:
    """The deadline, while it can still turn the run back; a person at an incident comes first."""
    applies = run.status is Status.RUNNING and run.stop is None and not run.incidents
    return run.deadline if applies and not _past_pivot(saga, run) else None


def _past_pivot(saga: Saga, run: Run) -> bool:
    return saga.pivot is not None and run.steps[saga.pivot.name].action.status in PASSED
