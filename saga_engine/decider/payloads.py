"""
The payloads of a decision: the input and replies as their types, commands by the author's mappings.

In a run and its events, payloads are encrypted if a codec is set. The decider decrypts them only
here: to check them when they arrive, and for a mapping function. What is used of `payload`:

    PayloadType.read         JSON to the author's type; PayloadError: it does not fit
    PayloadMapping           calls the author's function, and writes its result as JSON
    PayloadPorts.encryption  decrypts a value that belongs to its associated data, which names its
                             run, step and kind; EncryptionError: its key is missing, for example
    call_user_code           makes one UserCodeError of what the author's code raises, or if it does
                             not return within the time limit
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from saga_engine.decider.run import Run, StepStatus
from saga_engine.payload.encryption import (
    AssociatedData,
    EncryptionError,
    command_associated_data,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.payload.guard import UserCodeCall, UserCodeError, call_user_code
from saga_engine.payload.mapping import Parameter
from saga_engine.payload.payload import PayloadError, PayloadType, type_name
from saga_engine.payload.ports import PayloadPorts
from saga_engine.saga.definition import CommandSpec, Saga, declared_command
from saga_engine.vocabulary import Direction, IncidentCause, Json

READ_ERRORS = (EncryptionError, PayloadError, UserCodeError)
"""What reading a payload raises; `problem_text` makes a sentence of it."""


class PayloadNotMade(Exception):
    """The payload of a command cannot be made; the text is the message of the incident."""

    def __init__(self, cause: IncidentCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class _Reading(NamedTuple):
    """A stored value, and what the author's type made of it."""

    stored: Json
    value: Any


@dataclass(slots=True)
class DecisionPayloads:
    """
    Reads and makes the payloads of one decision.

    `code_errors` are the calls into the author's code that returned no value. `unused_readings` has
    what was read to check it and no mapping has used yet.
    """

    saga: Saga
    ports: PayloadPorts
    code_errors: list[UserCodeError] = field(default_factory=list)
    unused_readings: dict[AssociatedData, _Reading] = field(default_factory=dict)

    def check_input(self, run_id: str, value: Json) -> None:
        """Check that a run's input fits its type, or raise one of READ_ERRORS."""
        saga, payload_type = self.saga, self.saga.input_type
        name = type_name(payload_type.python_type)
        call = UserCodeCall(saga.name, run_id, "", None, "", name, saga.source_location)
        self._check(call, payload_type, value, input_associated_data(saga.name, run_id))

    def check_reply(self, run_id: str, step: str, direction: Direction, body: Json) -> None:
        """Check that a reply fits its type, or raise one of READ_ERRORS."""
        spec = declared_command(self.saga, step, direction)
        name = type_name(spec.reply_type.python_type)
        call = self._describe_call(run_id, step, direction, spec, name)
        associated_data = reply_associated_data(run_id, step, direction)
        self._check(call, spec.reply_type, body, associated_data)

    def _check(
        self, call: UserCodeCall, type_: PayloadType, stored: Json, associated_data: AssociatedData
    ) -> None:
        value = self._call(call, type_.read, self.ports.encryption.decrypt(stored, associated_data))
        self.unused_readings[associated_data] = _Reading(stored, value)

    def problem_text(self, subject: str, error: Exception) -> str:
        """Why something could not be read, as a sentence about *subject* without payloads."""
        if isinstance(error, UserCodeError):
            text = f"cannot be read: {error.call.function} {self._shown_text(error)}"
        elif isinstance(error, PayloadError):
            text = self.ports.encryption.safe_error_text(error)
        else:
            text = str(error)
        return f"{subject} {text}."

    def make_command(self, run: Run, step: str, direction: Direction) -> Json:
        """
        Call the mapping function of a command; the result is its payload, encrypted.

        Raises:
            PayloadNotMade: the step needs a person.
        """
        spec = declared_command(self.saga, step, direction)
        name = spec.mapping.function.__name__
        call = self._describe_call(run.run_id, step, direction, spec, name)
        try:
            payload = self._call(call, self._map, run, spec)
            associated_data = command_associated_data(run.run_id, step, direction)
            return self.ports.encrypt_payload(payload, associated_data)
        except EncryptionError as error:
            raise PayloadNotMade(IncidentCause.DECRYPTION_FAILED, f"The payload {error}.") from None
        except PayloadError as error:
            text = f"raised PayloadError: {self.ports.encryption.safe_error_text(error)}"
        except UserCodeError as error:
            text = f"{self._shown_text(error)}."
        raise PayloadNotMade(IncidentCause.MAPPING_FAILED, f"{spec.source_location} {text}")

    def _map(self, run: Run, spec: CommandSpec) -> Json:
        arguments = {each.name: self._argument(run, each) for each in spec.mapping.parameters}
        return spec.mapping(arguments, self.ports.plain_limits)

    def _argument(self, run: Run, parameter: Parameter) -> Any:
        """The value of one parameter: the run's input, or the reply of the step of its name."""
        name = parameter.name
        if name not in self.saga.steps:
            stored, payload_type, description = run.input, self.saga.input_type, "the input"
            associated_data = input_associated_data(run.saga, run.run_id)
        elif run.steps[name].action.status is StepStatus.SUCCEEDED:
            stored, description = run.steps[name].action.reply, f"the reply of step {name!r}"
            payload_type = self.saga.steps[name].action_spec.reply_type
            associated_data = reply_associated_data(run.run_id, name, Direction.ACTION)
        elif parameter.optional:
            return None
        else:
            raise PayloadError(f"there is no reply of step {name!r}")
        reading = self.unused_readings.pop(associated_data, None)
        if reading is not None and reading.stored is stored:
            return reading.value  # for one mapping only: it may change the value
        try:
            data = self.ports.encryption.decrypt(stored, associated_data)
        except EncryptionError as error:
            raise EncryptionError(f"needs {description}, which {error}") from None
        return None if data is None and parameter.optional else payload_type.read(data)

    def _call(self, call: UserCodeCall, function: Any, *arguments: Any) -> Any:
        """Call the author's code; note a call that returns no value in `code_errors`."""
        try:
            return call_user_code(self.ports.time_limit, call, function, *arguments)
        except UserCodeError as error:
            self.code_errors.append(error)
            raise

    def _describe_call(
        self, run_id: str, step: str, direction: Direction, spec: CommandSpec, function: str
    ) -> UserCodeCall:
        names = (self.saga.name, run_id, step, direction, spec.command, function)
        return UserCodeCall(*names, spec.source_location)

    def _shown_text(self, error: UserCodeError) -> str:
        """What may be shown of it; with a codec not the paths, which quote keys of the payload."""
        return error.text + (error.detail if self.ports.encryption.codec is None else "")
