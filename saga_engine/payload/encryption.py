"""
Payloads in the core: encrypted by a codec, and decrypted only when a value is needed.

An encrypted value is JSON like any other, `{"$encrypted": "<text>"}`, so the code that stores and
sends payloads does not need to know it. Each is bound to its associated data (the run, the step and
the kind of value) and cannot be decrypted with other associated data. Without a codec values stay
in clear. `null` is never encrypted: that a value is missing is not secret.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol, TypeAlias, TypeGuard, runtime_checkable

from saga_engine.payload.payload import PayloadError
from saga_engine.vocabulary import Direction, EngineFailureCode, Failure, Json

ENCRYPTED_KEY = "$encrypted"
"""The only member of an encrypted value. An object of this shape is never a user's own."""

AssociatedData: TypeAlias = tuple[str, ...]


class EncryptionError(Exception):
    """A value cannot be encrypted or decrypted. The text names the key and the problem, no data."""


@runtime_checkable
class Codec(Protocol):
    """
    Encrypts and decrypts payloads; named by the setting `payload_codec`.

    It must be deterministic, because decisions are: the same bytes with the same associated data
    and key give the same text. It is called inside the engine's batches: no I/O.
    """

    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        """
        Encrypt bytes to text that names its key.

        Args:
            plaintext: the value as JSON.
            associated_data: the run, the step and the kind of value that it belongs to.

        Returns:
            The encrypted text; None leaves the value in clear.
        """

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        """
        Decrypt what `encrypt` returned.

        Args:
            ciphertext: what `encrypt` returned.
            associated_data: the same as when it was encrypted.

        Raises:
            EncryptionError: its key is missing, it has other associated data, or it is damaged.
        """


@dataclass(frozen=True, slots=True)
class PayloadEncryption:
    """
    Encrypts and decrypts payloads by a codec, or leaves them unchanged without one.

    Raises:
        EncryptionError: from methods without `if_possible`, if the codec cannot.
    """

    codec: Codec | None = None

    def encrypt(self, value: Json, associated_data: AssociatedData) -> Json:
        """Encrypt a value, unless it is encrypted already."""
        if self.codec is None or value is None or is_encrypted(value):
            return value
        try:
            ciphertext = self.codec.encrypt(_to_json_bytes(value), "/".join(associated_data))
        except BaseException as error:  # noqa: BLE001 - a user's codec may raise anything
            _raise_encryption_error("encrypted", error)
        return value if ciphertext is None else {ENCRYPTED_KEY: ciphertext}

    def decrypt(self, value: Json, associated_data: AssociatedData) -> Json:
        """Decrypt a value; one that is not encrypted is returned unchanged."""
        if not is_encrypted(value):
            return value
        if self.codec is None:
            raise EncryptionError("cannot be decrypted: no codec is set here")
        try:
            plaintext: Json = json.loads(
                self.codec.decrypt(value[ENCRYPTED_KEY], "/".join(associated_data)),
                parse_constant=_reject_constant,
            )
        except BaseException as error:  # noqa: BLE001 - the same, or it is not JSON
            _raise_encryption_error("decrypted", error)
        return plaintext

    def encrypt_failure(self, failure: Failure, run_id: str) -> Failure:
        """Encrypt the message and the details of a failure; its code is for programs and stays."""
        has_content = failure.message or not (
            failure.details is None or is_encrypted(failure.details)
        )
        if (
            self.codec is None
            or not has_content
            or failure.code == EngineFailureCode.DECRYPTION_FAILED
        ):
            return failure
        content: Json = {"message": failure.message, "details": failure.details}
        details = self.encrypt(content, failure_associated_data(run_id))
        return failure if details is content else replace(failure, message="", details=details)

    def decrypt_if_possible(self, value: Json, associated_data: AssociatedData) -> Json:
        """As `decrypt`, for display: a value that cannot be decrypted here stays encrypted."""
        try:
            return self.decrypt(value, associated_data)
        except EncryptionError:
            return value

    def decrypt_failure_if_possible(self, failure: Failure, run_id: str) -> Failure:
        """A failure that `encrypt_failure` encrypted, decrypted if it can be here."""
        content = self.decrypt_if_possible(failure.details, failure_associated_data(run_id))
        if content is failure.details or not isinstance(content, dict):
            return failure
        message = str(content.get("message", ""))
        return replace(failure, message=message, details=content.get("details"))

    def decrypt_result_if_possible(self, result: Json, run_id: str) -> Json:
        """A run's result, which maps each step to its reply, decrypted where it can be here."""
        if not isinstance(result, Mapping):
            return result
        return {
            step: self.decrypt_if_possible(
                reply, reply_associated_data(run_id, step, Direction.ACTION)
            )
            for step, reply in result.items()
        }

    def safe_error_text(self, error: Exception) -> str:
        """What may be shown of an error; with a codec, nothing that may quote a payload."""
        if self.codec is None:
            return str(error)
        return error.text_without_paths if isinstance(error, PayloadError) else ""


NO_ENCRYPTION = PayloadEncryption()
"""No codec."""


def is_encrypted(value: Json) -> TypeGuard[dict[str, str]]:
    """Whether a value has the shape of an encrypted one."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(ENCRYPTED_KEY), str)


# Free text comes last, so that no two of these are written the same.


def input_associated_data(saga: str, run_id: str) -> AssociatedData:
    """The associated data of a run's input."""
    return "input", saga, run_id


def command_associated_data(run_id: str, step: str, direction: Direction) -> AssociatedData:
    """The associated data of a command's payload, the same for each attempt."""
    return "command", run_id, step, direction


def reply_associated_data(run_id: str, step: str, direction: Direction) -> AssociatedData:
    """The associated data of a command's result."""
    return "reply", run_id, step, direction


def failure_associated_data(run_id: str) -> AssociatedData:
    """The associated data of a failure: without its step, because a run's failure has none."""
    return "failure", run_id


def key_associated_data(saga: str, key: str) -> AssociatedData:
    """The associated data of the input digest of a business key."""
    return "key", saga, key


def _to_json_bytes(value: Json) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _raise_encryption_error(participle: str, error: BaseException) -> NoReturn:
    if isinstance(error, EncryptionError):
        raise error
    raise EncryptionError(f"cannot be {participle}: {type(error).__name__}") from None
