"""
The payloads of a decision: checks the input and replies, and makes the payloads of commands.

It says which payload of which run and step is meant; how it is decrypted, read by the author's
types, and made by the author's mapping functions is in payload/reader.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from saga_engine.decider.run import Run, StepStatus
from saga_engine.payload.encryption import (
    EncryptionError,
    command_associated_data,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.payload.guard import UserCodeCall, UserCodeError
from saga_engine.payload.payload import PayloadError, type_name
from saga_engine.payload.ports import PayloadPorts
from saga_engine.payload.reader import PayloadReader, StoredPayload
from saga_engine.saga.definition import CommandSpec, Saga, declared_spec
from saga_engine.vocabulary import Direction, IncidentCause, Json


class PayloadNotMade(Exception):
    """The payload of a command cannot be made; the text is the message of the incident."""

    def __init__(self, cause: IncidentCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(slots=True)
class DecisionPayloads:
    """Checks and makes the payloads of one decision."""

    saga: Saga
    ports: PayloadPorts
    reader: PayloadReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = PayloadReader(self.ports)

    @property
    def code_errors(self) -> Sequence[UserCodeError]:
        """The calls into the author's code that returned no value."""
        return self.reader.code_errors

    def check_input(self, run_id: str, content: Json) -> None:
        """Check that a run's input fits its type, or raise one of READ_ERRORS."""
        saga = self.saga
        function = type_name(saga.input_type.python_type)
        call = UserCodeCall(
            saga=saga.name,
            run_id=run_id,
            step="",
            direction=None,
            command="",
            function=function,
            source_location=saga.source_location,
        )
        self.reader.check(call, self._input(run_id, content))

    def check_reply(self, run_id: str, step: str, direction: Direction, content: Json) -> None:
        """Check that a reply fits its type, or raise one of READ_ERRORS."""
        spec = declared_spec(self.saga, step, direction)
        function = type_name(spec.reply_type.python_type)
        call = self._describe_call(run_id, step, direction, spec, function)
        self.reader.check(call, self._reply(run_id, step, direction, content))

    def encrypt_reply(self, run_id: str, step: str, direction: Direction, content: Json) -> Json:
        """Encrypt what an operator gives as a reply, or raise EncryptionError."""
        associated_data = reply_associated_data(run_id, step, direction)
        return self.ports.encryption.encrypt(content, associated_data)

    def make_command(self, run: Run, step: str, direction: Direction) -> Json:
        """
        Call the mapping function of a command; the result is its payload, encrypted.

        Raises:
            PayloadNotMade: the step needs a person.
        """
        spec = declared_spec(self.saga, step, direction)
        call = self._describe_call(
            run.run_id, step, direction, spec, spec.mapping.function.__name__
        )
        sources = {each.name: self._source(run, each.name) for each in spec.mapping.parameters}
        associated_data = command_associated_data(run.run_id, step, direction)
        try:
            return self.reader.make(call, spec.mapping, sources, associated_data)
        except EncryptionError as error:
            raise PayloadNotMade(IncidentCause.DECRYPTION_FAILED, f"The payload {error}.") from None
        except PayloadError as error:
            text = f"raised PayloadError: {self.reader.error_text(error)}"
        except UserCodeError as error:
            text = f"{self.reader.error_text(error)}."
        raise PayloadNotMade(IncidentCause.MAPPING_FAILED, f"{spec.source_location} {text}")

    def problem_text(self, subject: str, error: Exception) -> str:
        """Why something could not be read, as a sentence about *subject* without payloads."""
        text = self.reader.error_text(error)
        if isinstance(error, UserCodeError):
            text = f"cannot be read: {error.call.function} {text}"
        return f"{subject} {text}."

    def _source(self, run: Run, name: str) -> StoredPayload | None:
        """The payload that a mapping's parameter is named for; None without such a reply."""
        if name not in self.saga.steps:
            return self._input(run.run_id, run.input)
        action = run.steps[name].action
        if action.status is not StepStatus.SUCCEEDED:
            return None
        return self._reply(run.run_id, name, Direction.ACTION, action.reply)

    def _input(self, run_id: str, content: Json) -> StoredPayload:
        associated_data = input_associated_data(self.saga.name, run_id)
        return StoredPayload(content, self.saga.input_type, associated_data, "the input")

    def _reply(self, run_id: str, step: str, direction: Direction, content: Json) -> StoredPayload:
        payload_type = declared_spec(self.saga, step, direction).reply_type
        associated_data = reply_associated_data(run_id, step, direction)
        description = f"the reply of step {step!r}"
        return StoredPayload(content, payload_type, associated_data, description)

    def _describe_call(
        self, run_id: str, step: str, direction: Direction, spec: CommandSpec, function: str
    ) -> UserCodeCall:
        return UserCodeCall(
            saga=self.saga.name,
            run_id=run_id,
            step=step,
            direction=direction,
            command=spec.command,
            function=function,
            source_location=spec.source_location,
        )
