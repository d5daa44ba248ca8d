"""
Payloads as the core holds them: sealed by a codec, and opened only where a value is needed.

A sealed value is JSON like any other, `{"$encrypted": "<text>"}`, so whatever stores and carries
payloads need not know of it. Each is tied to its place (which run, step and kind of value it is of)
and opens nowhere else. Without a codec values are held as they are. `null` is never sealed: that
there is nothing is no secret.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol, TypeAlias, TypeGuard, runtime_checkable

from saga_engine.payload.payload import PayloadError
from saga_engine.vocabulary import Direction, EngineFailureCode, Failure, Json

ENCRYPTED_KEY = "$encrypted"
"""The only member of a sealed value. An object of this shape is never taken for a user's own."""

AssociatedData: TypeAlias = tuple[str, ...]


class EncryptionError(Exception):
    """A value cannot be encrypted or decrypted. The text names the key and the problem, no data."""


@runtime_checkable
class Codec(Protocol):
    """
    What seals payloads; named by the setting `payload_codec`.

    It must be deterministic, because decisions are: the same bytes at the same place under the same
    key are sealed to the same text. It is called inside the engine's batches: no I/O.
    """

    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        """
        Seal bytes for a place, to text that says by itself which key opens it.

        Args:
            plain: the value as JSON.
            place: which run, step and kind of value it belongs to; it opens nowhere else.

        Returns:
            The sealed text; None leaves the value in clear.
        """

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        """
        Open what `seal` made for the same place.

        Args:
            sealed: what `seal` returned.
            place: the same as when it was sealed.

        Raises:
            SealError: its key is not here, or it was made for another place, or is damaged.
        """


@dataclass(frozen=True, slots=True)
class PayloadEncryption:
    """
    What is done with payloads: sealed and unsealed by a codec, or left alone without one.

    Raises:
        SealError: from what does not only look, when the codec cannot.
    """

    codec: Codec | None = None

    def encrypt(self, value: Json, associated_data: AssociatedData) -> Json:
        """Seal a value for a place, unless it is sealed already."""
        if self.codec is None or value is None or is_encrypted(value):
            return value
        try:
            ciphertext = self.codec.encrypt(_to_json_bytes(value), "/".join(associated_data))
        except BaseException as error:  # noqa: BLE001 - a codec of the user's may raise anything
            _raise_encryption_error("encrypted", error)
        return value if ciphertext is None else {ENCRYPTED_KEY: ciphertext}

    def decrypt(self, value: Json, associated_data: AssociatedData) -> Json:
        """Open a value of that place; one that is not sealed is given back as it is."""
        if not is_encrypted(value):
            return value
        if self.codec is None:
            raise EncryptionError("cannot be decrypted: no codec is set here")
        try:
            plaintext: Json = json.loads(
                self.codec.decrypt(value[ENCRYPTED_KEY], "/".join(associated_data)),
                parse_constant=_reject_constant,
            )
        except BaseException as error:  # noqa: BLE001 - the same, and what was sealed may be no JSON
            _raise_encryption_error("decrypted", error)
        return plaintext

    def encrypt_failure(self, failure: Failure, run_id: str) -> Failure:
        """Seal what a failure says; its code is a word for programs and stays."""
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
        """As `unsealed`, for whoever only looks: what cannot be opened here stays sealed."""
        try:
            return self.decrypt(value, associated_data)
        except EncryptionError:
            return value

    def decrypt_failure_if_possible(self, failure: Failure, run_id: str) -> Failure:
        """What `sealed_failure` sealed, as far as it can be opened here."""
        content = self.decrypt_if_possible(failure.details, failure_associated_data(run_id))
        if content is failure.details or not isinstance(content, dict):
            return failure
        message = str(content.get("message", ""))
        return replace(failure, message=message, details=content.get("details"))

    def decrypt_result_if_possible(self, result: Json, run_id: str) -> Json:
        """A run's result, which maps each step to its reply, as far as it can be opened here."""
        if not isinstance(result, Mapping):
            return result
        return {
            step: self.decrypt_if_possible(
                reply, reply_associated_data(run_id, step, Direction.ACTION)
            )
            for step, reply in result.items()
        }

    def safe_error_text(self, error: Exception) -> str:
        """What may be said of an error; with a codec, nothing that may quote a payload."""
        if self.codec is None:
            return str(error)
        return error.text_without_paths if isinstance(error, PayloadError) else ""


NO_ENCRYPTION = PayloadEncryption()
"""No codec."""


def is_encrypted(value: Json) -> TypeGuard[dict[str, str]]:
    """Whether a value has the shape of a sealed one."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(ENCRYPTED_KEY), str)


# The places. What is free text comes last, so that no two places are written alike.


def input_associated_data(saga: str, run_id: str) -> AssociatedData:
    """Where a run's input belongs."""
    return "input", saga, run_id


def command_associated_data(run_id: str, step: str, direction: Direction) -> AssociatedData:
    """Where the payload of a command belongs, whichever attempt carries it."""
    return "command", run_id, step, direction.value


def reply_associated_data(run_id: str, step: str, direction: Direction) -> AssociatedData:
    """Where the result of a command belongs."""
    return "reply", run_id, step, direction.value


def failure_associated_data(run_id: str) -> AssociatedData:
    """Where what a failure says belongs: a run's failure is told without its step."""
    return "failure", run_id


def key_associated_data(saga: str, key: str) -> AssociatedData:
    """Where the digest of the input belongs that a business key came with."""
    return "key", saga, key


def _to_json_bytes(value: Json) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _raise_encryption_error(participle: str, error: BaseException) -> NoReturn:
    if isinstance(error, EncryptionError):
        raise error
    raise EncryptionError(f"cannot be {participle}: {type(error).__name__}") from None
