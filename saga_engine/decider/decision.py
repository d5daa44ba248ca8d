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
from saga_engine.decider.run import CompensationCause, Incident, KeptReply, Run, StepRun, StepStatus
from saga_engine.decider.triggers import CommandUnroutable
from saga_engine.payload.encryption import (
    DECRYPTION_FAILED,
    NO_ENCRYPTION,
    AssociatedData,
    EncryptionError,
    PayloadEncryption,
    command_associated_data,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.payload.guard import (
    NO_TIME_LIMIT,
    CallTimeLimit,
    UserCodeCall,
    UserCodeError,
    call_user_code,
)
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.payload.payload import (
    PayloadError,
    PayloadType,
    limit_problem,
    too_large_error,
    type_name,
)
from saga_engine.saga.definition import CommandSpec, Saga
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Status, StepKind

MAX_MESSAGE_LENGTH = 500
"""Characters of an error's text that are kept in the journal."""

INPUT_KEY = ""
"""The name of the run's input in `Turn.at_hand`; no step is called so."""


@dataclass(slots=True)
class DecisionBuilder:
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
    encryption: PayloadEncryption = NO_ENCRYPTION
    time_limit: CallTimeLimit = NO_TIME_LIMIT
    limits: BodyLimits = DEFAULT_LIMITS
    events: list[Event] = field(default_factory=list)
    code_errors: list[UserCodeError] = field(default_factory=list)
    compensation_cause: CompensationCause | None = None
    decoded_values: dict[str, tuple[Json, Any]] = field(default_factory=dict)

    def record(self, event: Event) -> None:
        """Add an event; `run` is what it makes of the run."""
        self.run = evolve(self.run, event)
        self.events.append(event)

    def step(self, name: str) -> StepRun:
        """Where a step stands now."""
        return self.run.steps[name]

    def command_spec(self, name: str, direction: Direction) -> CommandSpec:
        """What is sent for a step in a direction that is declared."""
        spec = self.saga.steps[name].command_spec(direction)
        assert spec is not None, f"{name} has no {direction}"
        return spec

    def open_incident(
        self,
        step: str,
        direction: Direction,
        cause: str,
        message: str,
        kept_reply: KeptReply | None = None,
    ) -> None:
        """Open an incident: this direction of the step waits for a person."""
        number = self.run.incident_count + 1
        # An exception's text may hold what PostgreSQL's jsonb does not take.
        text = message.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
        text = text[:MAX_MESSAGE_LENGTH]
        self.record(IncidentOpened(number, step, direction, cause, text, self.now, kept_reply))

    def find_incident(self, step: str, direction: Direction) -> Incident | None:
        """The open incident of that direction, if there is one."""
        for incident in self.run.incidents.values():
            if (incident.step, incident.direction) == (step, direction):
                return incident
        return None

    def start_attempt(self, step: str, direction: Direction) -> None:
        """Order the next attempt, or block the step when its payload cannot be made."""
        progress = self.step(step).progress_of(direction)
        spec = self.command_spec(step, direction)
        payload = None
        if progress.payload is None:
            try:
                associated_data = command_associated_data(self.run.run_id, step, direction)
                call = self.describe_call(step, direction, spec, spec.mapping.function.__name__)
                payload_json = call_user_code(self.time_limit, call, self._map_payload, spec)
                payload = self._encrypt_checked(payload_json, associated_data)
            except EncryptionError as error:
                self.open_incident(step, direction, DECRYPTION_FAILED, f"The payload {error}.")
                return
            except PayloadError as error:
                text = (
                    f"{spec.source_location} raised PayloadError:"
                    f" {self.encryption.safe_error_text(error)}"
                )
                self.open_incident(step, direction, "mapping_failed", text)
                return
            except UserCodeError as error:
                text = f"{spec.source_location} {self.record_code_error(error)}."
                self.open_incident(step, direction, "mapping_failed", text)
                return
        self.record(
            AttemptStarted(
                step,
                direction,
                progress.attempts + 1,
                progress.round,
                spec.command,
                self.now + spec.timeout,
                payload,
                self.now,
            )
        )

    def describe_call(
        self, step: str, direction: Direction, spec: CommandSpec, function: str
    ) -> UserCodeCall:
        """Name a call into the author's code that is made for a direction of a step."""
        run = self.run
        return UserCodeCall(
            *(run.saga, run.run_id, step, direction, spec.command, function, spec.source_location)
        )

    def record_code_error(self, error: UserCodeError) -> str:
        """Note a call that returned no value; what may be said of it."""
        self.code_errors.append(error)
        return error.text + (error.detail if self.encryption.codec is None else "")

    def decode_reply(self, step: str, direction: Direction, body: Json) -> None:
        """
        Read a reply as its type.

        Raises:
            PayloadError, CodeError: it cannot be read.
        """
        spec = self.command_spec(step, direction)
        reply_type = spec.reply_type
        call = self.describe_call(step, direction, spec, type_name(reply_type.python_type))
        value = call_user_code(self.time_limit, call, reply_type.read, body)
        if direction is Direction.ACTION:
            self.decoded_values[step] = body, value

    def _encrypt_checked(self, payload: Json, associated_data: AssociatedData) -> Json:
        """Seal a payload and check its size. Without a codec, `_map` has checked the size."""
        if self.encryption.codec is None:
            return payload
        encrypted = self.encryption.encrypt(payload, associated_data)
        problem = limit_problem(encrypted, self.limits)
        if problem:
            raise too_large_error(problem)
        return encrypted

    def _map_payload(self, spec: CommandSpec) -> Json:
        run, values = self.run, {}
        for parameter in spec.mapping.parameters:
            name = parameter.name
            if name not in self.saga.steps:
                input_json = self._decrypt(
                    run.input, input_associated_data(run.saga, run.run_id), "the input"
                )
                values[name] = self._take_value(INPUT_KEY, self.saga.input_type, input_json)
                continue
            source = self.step(name).action
            reply = None
            if source.status is StepStatus.SUCCEEDED:
                associated_data = reply_associated_data(run.run_id, name, Direction.ACTION)
                reply = self._decrypt(source.reply, associated_data, f"the reply of step {name!r}")
            if reply is None and parameter.optional:
                values[name] = None
            elif source.status is StepStatus.SUCCEEDED:
                reply_type = self.command_spec(name, Direction.ACTION).reply_type
                values[name] = self._take_value(name, reply_type, reply)
            else:
                raise PayloadError(f"there is no reply of step {name!r}")
        return spec.mapping(values, self.limits if self.encryption.codec is None else None)

    def _take_value(self, name: str, payload_type: PayloadType, data: Json) -> Any:
        """Read a value for one mapping, which may change it. Each value is handed out once."""
        decoded = self.decoded_values.pop(name, None)
        return decoded[1] if decoded and decoded[0] is data else payload_type.read(data)

    def _decrypt(self, value: Json, associated_data: AssociatedData, description: str) -> Json:
        try:
            return self.encryption.decrypt(value, associated_data)
        except EncryptionError as error:
            raise EncryptionError(f"needs {description}, which {error}") from None

    def fail_attempt(
        self,
        step: str,
        direction: Direction,
        outcome: Outcome,
        failure: Failure,
        *,
        unroutable: CommandUnroutable | None = None,
    ) -> None:
        """An attempt came to nothing: try again while the policy allows it, else give it up."""
        never_delivered = unroutable is not None and unroutable.first_send
        progress = self.step(step).progress_of(direction)
        retry_policy = self.command_spec(step, direction).retry
        attempts_used = progress.attempts - progress.attempts_before_retry
        retry_at = None
        if attempts_used < retry_policy.attempts and not self.stopping:
            seed = f"{self.run.run_id}/{step}/{direction}/{progress.attempts}"
            retry_at = self.now + retry_policy.delay(attempts_used, seed)
        self.record(
            AttemptFailed(
                step, direction, progress.attempts, outcome, failure, retry_at, never_delivered
            )
        )
        if retry_at is None:
            self._give_up(step, direction, outcome, failure, unroutable=unroutable is not None)

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
            self.open_incident(step, direction, "unroutable", failure.text)
        elif failure.code == DECRYPTION_FAILED:
            self.open_incident(step, direction, DECRYPTION_FAILED, failure.text)
        elif direction is Direction.COMPENSATION:
            self.open_incident(step, direction, f"compensation_{outcome}", failure.text)
        elif self.forward_only(step):
            self.open_incident(step, direction, f"step_{outcome}", failure.text)
        else:
            self.compensation_cause = CompensationCause(outcome.value, step, failure)

    def forward_only(self, step: str) -> bool:
        """Whether giving this step up could leave an effect that no command undoes."""
        kind = self.saga.step_kind(step)
        step_definition = self.saga.steps[step]
        lone_pivot = (
            kind is StepKind.PIVOT
            and step_definition.compensation_spec is None
            and not step_definition.read_only
        )
        return kind is StepKind.RETRIABLE or lone_pivot

    @property
    def stopping(self) -> bool:
        """Whether the run is about to turn back, so that nothing new starts."""
        return self.compensation_cause is not None or self.run.stopping_cause is not None

    @property
    def past_pivot(self) -> bool:
        """Whether there is no way back any more."""
        return _past_pivot(self.saga, self.run)


PASSED_STATUSES = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
"""What an action must be for the steps after it to begin."""


def active_deadline(saga: Saga, run: Run) -> datetime | None:
    """The deadline, while it can still turn the run back; a person at an incident comes first."""
    applies = run.status is Status.RUNNING and run.stopping_cause is None and not run.incidents
    return run.deadline if applies and not _past_pivot(saga, run) else None


def _past_pivot(saga: Saga, run: Run) -> bool:
    return saga.pivot is not None and run.steps[saga.pivot.name].action.status in PASSED_STATUSES
