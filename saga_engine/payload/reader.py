"""
Stored payloads as values of the author's types, and back through the author's mapping functions.

A PayloadReader belongs to one decision. It decrypts a payload only to check it when it arrives, or
for a mapping function. Each call into the author's code goes through `guard.call_user_code`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from saga_engine.payload.encryption import AssociatedData, EncryptionError
from saga_engine.payload.guard import UserCodeCall, UserCodeError, call_user_code
from saga_engine.payload.mapping import Parameter, PayloadMapping
from saga_engine.payload.payload import PayloadError, PayloadType
from saga_engine.payload.ports import PayloadPorts
from saga_engine.vocabulary import Json

Result = TypeVar("Result")

READ_ERRORS = (EncryptionError, PayloadError, UserCodeError)
"""What reading and making a payload raise; `PayloadReader.error_text` says what may be shown."""


class StoredPayload(NamedTuple):
    """An input or a reply as it is stored, encrypted or not, and what is needed to read it."""

    content: Json
    payload_type: PayloadType
    associated_data: AssociatedData

    @property
    def description(self) -> str:
        """What it is, as the object of a sentence."""
        kind, *names = self.associated_data
        return f"the reply of step {names[1]!r}" if kind == "reply" else f"the {kind}"


@dataclass(slots=True)
class PayloadReader:
    """
    Reads and makes the payloads of one decision.

    `code_errors` are the calls into the author's code that returned no value. `unused_readings` has
    what was read to check it and no mapping has used yet: its content, and the value that the
    author's type made of it.
    """

    ports: PayloadPorts
    code_errors: list[UserCodeError] = field(default_factory=list)
    unused_readings: dict[AssociatedData, tuple[Json, Any]] = field(default_factory=dict)

    def check(self, call: UserCodeCall, payload: StoredPayload) -> None:
        """Check that a payload fits its type, or raise one of READ_ERRORS."""
        data = self.ports.encryption.decrypt(payload.content, payload.associated_data)
        value = self._call(call, payload.payload_type.read, data)
        self.unused_readings[payload.associated_data] = payload.content, value

    def make(
        self,
        call: UserCodeCall,
        mapping: PayloadMapping,
        sources: Mapping[str, StoredPayload | None],
        associated_data: AssociatedData,
    ) -> Json:
        """
        Call a mapping function with the values of *sources*, None for what does not exist.

        Returns:
            The payload that it returns, encrypted for *associated_data*.

        Raises:
            EncryptionError, PayloadError, UserCodeError: it cannot be made.
        """
        payload = self._call(call, self._map, mapping, sources)
        return self.ports.encrypt_payload(payload, associated_data)

    def error_text(self, error: Exception) -> str:
        """What may be shown of one of READ_ERRORS, as the end of a sentence; with a codec less."""
        if isinstance(error, UserCodeError):  # its detail has paths, which quote keys of a payload
            return error.text + (error.detail if self.ports.encryption.codec is None else "")
        if isinstance(error, PayloadError):
            return self.ports.encryption.safe_error_text(error)
        return str(error)

    def _map(self, mapping: PayloadMapping, sources: Mapping[str, StoredPayload | None]) -> Json:
        arguments = {each.name: self._read(each, sources[each.name]) for each in mapping.parameters}
        return mapping(arguments, self.ports.plain_limits)

    def _read(self, parameter: Parameter, source: StoredPayload | None) -> Any:
        if source is None and parameter.optional:
            return None
        if source is None:
            raise PayloadError(f"there is no reply of step {parameter.name!r}")
        reading = self.unused_readings.pop(source.associated_data, None)
        if reading is not None and reading[0] is source.content:
            return reading[1]  # for one mapping only: it may change the value
        try:
            data = self.ports.encryption.decrypt(source.content, source.associated_data)
        except EncryptionError as error:
            raise EncryptionError(f"needs {source.description}, which {error}") from None
        return None if data is None and parameter.optional else source.payload_type.read(data)

    def _call(self, call: UserCodeCall, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call the author's code; note a call that returns no value in `code_errors`."""
        try:
            return call_user_code(self.ports.time_limit, call, function, *arguments)
        except UserCodeError as error:
            self.code_errors.append(error)
            raise
