"""
The payloads of a decision: the input and replies as their types, commands by the author's mappings.

In a run and its events, payloads are encrypted if a codec is set. They are decrypted here, when a
mapping function needs them, and nowhere else in the decider. Every call into the author's code
goes through `call_user_code`, so it can raise only what this module expects.
"""

from dataclasses import dataclass, field
from typing import Any

from saga_engine.decider.run import Run, StepStatus
from saga_engine.payload.encryption import (
    AssociatedData,
    EncryptionError,
    command_associated_data,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.payload.guard import UserCodeCall, UserCodeError, call_user_code
from saga_engine.payload.payload import PayloadError, PayloadType, type_name
from saga_engine.payload.ports import PayloadPorts
from saga_engine.saga.definition import CommandSpec, Saga
from saga_engine.vocabulary import Direction, IncidentCause, Json

INPUT_KEY = ""
"""The run's input among the decoded values; no step has this name."""

READ_ERRORS = (EncryptionError, PayloadError, UserCodeError)
"""What reading a payload raises; `problem_text` makes a sentence of it."""


class CommandFailed(Exception):
    """The payload of a command cannot be made: the cause of the incident, and its message."""

    def __init__(self, cause: IncidentCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message


def command_spec(saga: Saga, step: str, direction: Direction) -> CommandSpec:
    """What is sent for a step in a direction that is declared."""
    spec = saga.steps[step].command_spec(direction)
    assert spec is not None, f"{step} has no {direction}"
    return spec


@dataclass(slots=True)
class DecisionPayloads:
    """
    Reads and makes the payloads of one decision.

    `code_errors` are the calls into the author's code that returned no value. `decoded` has what
    was read and not yet used by a mapping, by step or INPUT_KEY: the JSON and its value.
    """

    saga: Saga
    ports: PayloadPorts
    code_errors: list[UserCodeError] = field(default_factory=list)
    decoded: dict[str, tuple[Json, Any]] = field(default_factory=dict)

    def read_input(self, run_id: str, value: Json) -> None:
        """
        Read a run's input as its type, or raise one of READ_ERRORS.

        The value is kept for the first mapping that needs it.
        """
        saga, payload_type = self.saga, self.saga.input_type
        plain = self.ports.encryption.decrypt(value, input_associated_data(saga.name, run_id))
        name = type_name(payload_type.python_type)
        call = UserCodeCall(saga.name, run_id, "", None, "", name, saga.source_location)
        self.decoded[INPUT_KEY] = plain, self._call(call, payload_type.read, plain)

    def read_reply(self, run_id: str, step: str, direction: Direction, body: Json) -> None:
        """
        Read a reply as its type, or raise one of READ_ERRORS.

        The value of a step's own reply is kept for the first mapping that needs it.
        """
        spec = command_spec(self.saga, step, direction)
        associated_data = reply_associated_data(run_id, step, direction)
        plain = self.ports.encryption.decrypt(body, associated_data)
        name = type_name(spec.reply_type.python_type)
        call = self._describe_call(run_id, step, direction, spec, name)
        value = self._call(call, spec.reply_type.read, plain)
        if direction is Direction.ACTION:
            self.decoded[step] = plain, value

    def problem_text(self, subject: str, error: Exception) -> str:
        """Why something could not be read, as a sentence about *subject* without payloads."""
        if isinstance(error, UserCodeError):
            text = f"cannot be read: {error.call.function} {self._record_code_error(error)}"
        elif isinstance(error, PayloadError):
            text = self.ports.encryption.safe_error_text(error)
        else:
            text = str(error)
        return f"{subject} {text}."

    def make_command(self, run: Run, step: str, direction: Direction) -> Json:
        """
        Call the mapping function of a command; the result is its payload, encrypted.

        Raises:
            CommandFailed: the step needs a person.
        """
        spec = command_spec(self.saga, step, direction)
        name = spec.mapping.function.__name__
        call = self._describe_call(run.run_id, step, direction, spec, name)
        try:
            payload = self._call(call, self._map, run, spec)
            associated_data = command_associated_data(run.run_id, step, direction)
            return self.ports.encrypt_payload(payload, associated_data)
        except EncryptionError as error:
            cause = IncidentCause.DECRYPTION_FAILED
            raise CommandFailed(cause, f"The payload {error}.") from None
        except PayloadError as error:
            text = f"raised PayloadError: {self.ports.encryption.safe_error_text(error)}"
        except UserCodeError as error:
            text = f"{self._record_code_error(error)}."
        raise CommandFailed(IncidentCause.MAPPING_FAILED, f"{spec.source_location} {text}")

    def _map(self, run: Run, spec: CommandSpec) -> Json:
        values: dict[str, Any] = {}
        for parameter in spec.mapping.parameters:
            name = parameter.name
            if name not in self.saga.steps:
                associated_data = input_associated_data(run.saga, run.run_id)
                data = self._decrypt(run.input, associated_data, "the input")
                values[name] = self._take(INPUT_KEY, self.saga.input_type, data)
                continue
            source, data = run.steps[name].action, None
            succeeded = source.status is StepStatus.SUCCEEDED
            if succeeded:
                associated_data = reply_associated_data(run.run_id, name, Direction.ACTION)
                data = self._decrypt(source.reply, associated_data, f"the reply of step {name!r}")
            if data is None and parameter.optional:
                values[name] = None
            elif succeeded:
                values[name] = self._take(name, self.saga.steps[name].action_spec.reply_type, data)
            else:
                raise PayloadError(f"there is no reply of step {name!r}")
        return spec.mapping(values, self.ports.plain_limits)

    def _take(self, name: str, payload_type: PayloadType, data: Json) -> Any:
        """Read a value for one mapping, which may change it: no two mappings get the same one."""
        decoded = self.decoded.pop(name, None)
        return decoded[1] if decoded and decoded[0] is data else payload_type.read(data)

    def _decrypt(self, value: Json, associated_data: AssociatedData, description: str) -> Json:
        try:
            return self.ports.encryption.decrypt(value, associated_data)
        except EncryptionError as error:
            raise EncryptionError(f"needs {description}, which {error}") from None

    def _call(self, call: UserCodeCall, function: Any, *arguments: Any) -> Any:
        return call_user_code(self.ports.time_limit, call, function, *arguments)

    def _describe_call(
        self, run_id: str, step: str, direction: Direction, spec: CommandSpec, function: str
    ) -> UserCodeCall:
        names = (self.saga.name, run_id, step, direction, spec.command, function)
        return UserCodeCall(*names, spec.source_location)

    def _record_code_error(self, error: UserCodeError) -> str:
        """Note a call that returned no value; return what may be said of it."""
        self.code_errors.append(error)
        return error.text + (error.detail if self.ports.encryption.codec is None else "")
