"""
Payloads as the core holds them: sealed by a codec, and opened only where a value is needed.

A sealed value is JSON like any other, `{"$sealed": "<text>"}`, so whatever stores and carries
payloads need not know of it. Each is tied to its place (which run, step and kind of value it is of)
and opens nowhere else. Without a codec values are held as they are. `null` is never sealed: that
there is nothing is no secret.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias, TypeGuard, runtime_checkable

from saga_engine.payload.payload import PayloadError
from saga_engine.vocabulary import Direction, Failure, Json

SEALED = "$sealed"
"""The only member of a sealed value. An object of this shape is never taken for a user's own."""

PAYLOAD_SEALED = "payload_sealed"
"""Cause of an incident, and code of a participant's failure: the key is not there."""

Place: TypeAlias = tuple[str, ...]


class SealError(Exception):
    """A value cannot be sealed or unsealed. The text names the key and the problem, never data."""


@runtime_checkable
class Codec(Protocol):
    """
    What seals payloads; named by the setting `payload_codec`.

    It must be deterministic, because decisions are: the same bytes at the same place under the same
    key are sealed to the same text. It is called inside the engine's batches: no I/O.
    """

    def seal(self, plain: bytes, place: str) -> str | None:
        """
        Seal bytes for a place, to text that says by itself which key opens it.

        Args:
            plain: the value as JSON.
            place: which run, step and kind of value it belongs to; it opens nowhere else.

        Returns:
            The sealed text; None leaves the value in clear.
        """

    def unseal(self, sealed: str, place: str) -> bytes:
        """
        Open what `seal` made for the same place.

        Args:
            sealed: what `seal` returned.
            place: the same as when it was sealed.

        Raises:
            SealError: its key is not here, or it was made for another place, or is damaged.
        """


@dataclass(frozen=True, slots=True)
class Sealing:
    """
    What is done with payloads: sealed and unsealed by a codec, or left alone without one.

    Raises:
        SealError: from what does not only look, when the codec cannot.
    """

    codec: Codec | None = None

    def sealed(self, value: Json, place: Place) -> Json:
        """Seal a value for a place, unless it is sealed already."""
        if self.codec is None or value is None or is_sealed(value):
            return value
        try:
            text = self.codec.seal(_written(value), "/".join(place))
        except BaseException as error:  # noqa: BLE001 - a codec of the user's may raise anything
            _refuse("sealed", error)
        return value if text is None else {SEALED: text}

    def unsealed(self, value: Json, place: Place) -> Json:
        """Open a value of that place; one that is not sealed is given back as it is."""
        if not is_sealed(value):
            return value
        if self.codec is None:
            raise SealError("cannot be unsealed: no codec is set here")
        try:
            plain: Json = json.loads(
                self.codec.unseal(value[SEALED], "/".join(place)), parse_constant=_no_constant
            )
        except BaseException as error:  # noqa: BLE001 - the same, and what was sealed may be no JSON
            _refuse("unsealed", error)
        return plain

    def sealed_failure(self, failure: Failure, run_id: str) -> Failure:
        """Seal what a failure says; its code is a word for programs and stays."""
        told = failure.message or not (failure.details is None or is_sealed(failure.details))
        if self.codec is None or not told or failure.code == PAYLOAD_SEALED:
            return failure
        hidden: Json = {"message": failure.message, "details": failure.details}
        details = self.sealed(hidden, failure_place(run_id))
        return failure if details is hidden else Failure(failure.code, "", details)

    def readable(self, value: Json, place: Place) -> Json:
        """As `unsealed`, for whoever only looks: what cannot be opened here stays sealed."""
        try:
            return self.unsealed(value, place)
        except SealError:
            return value

    def readable_failure(self, failure: Failure, run_id: str) -> Failure:
        """What `sealed_failure` sealed, as far as it can be opened here."""
        hidden = self.readable(failure.details, failure_place(run_id))
        if hidden is failure.details or not isinstance(hidden, dict):
            return failure
        return Failure(failure.code, str(hidden.get("message", "")), hidden.get("details"))

    def readable_result(self, result: Json, run_id: str) -> Json:
        """A run's result, which maps each step to its reply, as far as it can be opened here."""
        if not isinstance(result, Mapping):
            return result
        return {
            step: self.readable(reply, reply_place(run_id, step, Direction.ACTION))
            for step, reply in result.items()
        }

    def told(self, error: Exception) -> str:
        """What may be said of an error; with a codec, nothing that may quote a payload."""
        if self.codec is None:
            return str(error)
        return error.brief if isinstance(error, PayloadError) else ""


PLAIN = Sealing()
"""No codec."""


def is_sealed(value: Json) -> TypeGuard[dict[str, str]]:
    """Whether a value has the shape of a sealed one."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(SEALED), str)


# The places. What is free text comes last, so that no two places are written alike.


def input_place(saga: str, run_id: str) -> Place:
    """Where a run's input belongs."""
    return "input", saga, run_id


def command_place(run_id: str, step: str, direction: Direction) -> Place:
    """Where the payload of a command belongs, whichever attempt carries it."""
    return "command", run_id, step, direction.value


def reply_place(run_id: str, step: str, direction: Direction) -> Place:
    """Where the result of a command belongs."""
    return "reply", run_id, step, direction.value


def failure_place(run_id: str) -> Place:
    """Where what a failure says belongs: a run's failure is told without its step."""
    return "failure", run_id


def key_place(saga: str, key: str) -> Place:
    """Where the digest of the input belongs that a business key came with."""
    return "key", saga, key


def _written(value: Json) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse(participle: str, error: BaseException) -> NoReturn:
    if isinstance(error, SealError):
        raise error
    raise SealError(f"cannot be {participle}: {type(error).__name__}") from None
