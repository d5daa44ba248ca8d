"""
The payloads of a decision: checks the input and replies, and makes the payloads of commands.

It says which payload of which run and step is meant; how it is decrypted, read by the author's
types, and made by the author's mapping functions is in payload/reader.py.
"""

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
from saga_engine.saga.definition import CommandSpec, Saga
from saga_engine.vocabulary import Direction, IncidentCause, Json


class PayloadNotMade(Exception):
    """The payload of a command cannot be made; the text is the message of the incident."""

    def __init__(self, cause: IncidentCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class DecisionPayloads(PayloadReader):
    """Checks and makes the payloads of one decision about a run of *saga*."""

    def __init__(self, saga: Saga, run_id: str, ports: PayloadPorts) -> None:
        super().__init__(ports)
        self.saga = saga
        self.run_id = run_id

    def check_input(self, content: Json) -> None:
        """Check that the run's input fits its type, or raise one of READ_ERRORS."""
        function, location = type_name(self.saga.input_type.python_type), self.saga.source_location
        call = UserCodeCall(self.saga.name, self.run_id, "", None, "", function, location)
        self.check(call, self._input(content))

    def check_reply(self, step: str, direction: Direction, content: Json) -> None:
        """Check that a reply fits its type, or raise one of READ_ERRORS."""
        reply = self._reply(step, direction, content)
        function = type_name(reply.payload_type.python_type)
        self.check(self._user_code_call(step, direction, function), reply)

    def encrypt_reply(self, step: str, direction: Direction, content: Json) -> Json:
        """Encrypt what an operator gives as a reply, or raise EncryptionError."""
        associated_data = reply_associated_data(self.run_id, step, direction)
        return self.ports.encryption.encrypt(content, associated_data)

    def make_command(self, run: Run, step: str, direction: Direction) -> Json:
        """
        Call the mapping function of a command; the result is its payload, encrypted.

        Raises:
            PayloadNotMade: the step needs a person.
        """
        spec = self._spec(step, direction)
        mapping = spec.mapping
        call = self._user_code_call(step, direction, mapping.function.__name__)
        sources = {each.name: self._source(run, each.name) for each in mapping.parameters}
        associated_data = command_associated_data(self.run_id, step, direction)
        try:
            return self.make(call, mapping, sources, associated_data)
        except EncryptionError as error:
            raise PayloadNotMade(IncidentCause.DECRYPTION_FAILED, f"The payload {error}.") from None
        except PayloadError as error:
            text = f"raised PayloadError: {self.error_text(error)}"
        except UserCodeError as error:
            text = f"{self.error_text(error)}."
        raise PayloadNotMade(IncidentCause.MAPPING_FAILED, f"{spec.source_location} {text}")

    def problem_text(self, subject: str, error: Exception) -> str:
        """Why something could not be read, as a sentence about *subject* without payloads."""
        text = self.error_text(error)
        if isinstance(error, UserCodeError):
            text = f"cannot be read: {error.call.function} {text}"
        return f"{subject} {text}."

    def _source(self, run: Run, name: str) -> StoredPayload | None:
        """The payload that a mapping's parameter is named for; None without such a reply."""
        if name not in self.saga.steps:
            return self._input(run.input)
        action = run.steps[name].action
        if action.status is not StepStatus.SUCCEEDED:
            return None
        return self._reply(name, Direction.ACTION, action.reply)

    def _input(self, content: Json) -> StoredPayload:
        associated_data = input_associated_data(self.saga.name, self.run_id)
        return StoredPayload(content, self.saga.input_type, associated_data)

    def _reply(self, step: str, direction: Direction, content: Json) -> StoredPayload:
        associated_data = reply_associated_data(self.run_id, step, direction)
        return StoredPayload(content, self._spec(step, direction).reply_type, associated_data)

    def _user_code_call(self, step: str, direction: Direction, function: str) -> UserCodeCall:
        """How a call of the author's code is described if it returns no value."""
        saga, spec = self.saga.name, self._spec(step, direction)
        location = spec.source_location
        return UserCodeCall(saga, self.run_id, step, direction, spec.command, function, location)

    def _spec(self, step: str, direction: Direction) -> CommandSpec:
        spec = self.saga.steps[step].command_spec(direction)
        assert spec is not None, f"{step} has no {direction}"
        return spec
