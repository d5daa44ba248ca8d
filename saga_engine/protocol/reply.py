"""
A reply on the wire: written by a participant, read by the engine.

The engine accepts a reply only if its correlation id is a token that the engine signed. A reply
with such a token that cannot be read keeps its CommandRef: the participant processed the command,
and the run must learn of it. The contract is docs/protocol.md, section "Replies".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saga_engine.protocol.body import read_body, write_json
from saga_engine.protocol.command import ReceivedCommand, new_message_id
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.token import CommandRef, verify_with_any
from saga_engine.protocol.topology import REPLIES
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import EngineFailureCode, Failure, Json, Outcome

OUTCOME_HEADER = "saga-outcome"

MAX_CODE_CHARACTERS = 128
"""The longest code of a failure. Programs read the code, people read the message."""

_OUTCOME_BY_VALUE = {
    outcome.value: outcome for outcome in Outcome if outcome is not Outcome.UNKNOWN
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    A participant's reply to one attempt of a command.

    `body` is the result of a success; `failure` says why the command was rejected or failed.
    Neither is logged. `outcome` is never unknown: the engine concludes that from a missing reply.
    """

    command_ref: CommandRef
    outcome: Outcome
    body: Json = field(repr=False)
    failure: Failure | None = field(repr=False)
    message_id: str
    correlation_id: str


def encode_reply(
    received: ReceivedCommand,
    outcome: Outcome,
    body: Json | bytes | Failure,
    *,
    message_id: str = "",
) -> Message:
    """
    Encode a reply.

    Args:
        body: the result of a success (JSON, or its bytes), or a Failure.
    """
    if isinstance(body, Failure):
        body = write_json(failure_json(body))
    return Message(
        exchange=REPLIES,
        routing_key=received.reply_to,
        body=body if isinstance(body, bytes) else write_json(body),
        message_id=message_id or new_message_id(),
        type=received.command.name,
        correlation_id=received.correlation_id,
        headers={OUTCOME_HEADER: outcome.value},
    )


def decode_reply(
    delivery: Delivery, keys: Sequence[bytes], settings: Settings
) -> Reply | UnreadableMessage:
    """Read a reply; any of the engine's `keys` may have signed the token of its command."""
    command_ref = verify_with_any(keys, delivery.correlation_id)
    if command_ref is None:
        return UnreadableMessage(
            DeadLetterReason.UNCORRELATED_REPLY,
            "This engine did not sign the correlation_id: it was not copied from a command, or"
            " another engine, with a database of its own, shares this virtual host.",
        )
    decoded = _decode_with_ref(delivery, command_ref, settings)
    return (
        replace(decoded, command_ref=command_ref)
        if isinstance(decoded, UnreadableMessage)
        else decoded
    )


def read_failure(body: Json) -> Failure | UnreadableMessage:
    """Read {code, message, details}; only the code is required."""
    if not isinstance(body, dict):
        return UnreadableMessage(
            DeadLetterReason.BAD_FAILURE, "Its body must be an object with a code."
        )
    code, message = body.get("code"), body.get("message", "")
    if not isinstance(code, str) or not 0 < len(code) <= MAX_CODE_CHARACTERS:
        return UnreadableMessage(
            DeadLetterReason.BAD_FAILURE,
            f"Its code must be a text of 1 to {MAX_CODE_CHARACTERS} characters.",
        )
    if not isinstance(message, str):
        return UnreadableMessage(DeadLetterReason.BAD_FAILURE, "Its message must be a text.")
    return Failure(code, message, body.get("details"))


def _with_engine_code(failure: Failure) -> Failure:
    """
    Type the one code that a participant may report and the engine acts on.

    A participant that cannot decrypt its command answers failed with `decryption_failed`. The
    contract reserves the code for that; any other code is the participant's own.
    """
    if failure.code != EngineFailureCode.DECRYPTION_FAILED:
        return failure
    return replace(failure, engine_code=EngineFailureCode.DECRYPTION_FAILED)


def read_outcome(delivery: Delivery) -> Outcome | None:
    """Read the outcome of a reply from its header; None when it is not one of the three."""
    value = delivery.headers.get(OUTCOME_HEADER, Outcome.SUCCEEDED.value)
    return _OUTCOME_BY_VALUE.get(value) if isinstance(value, str) else None


def _decode_with_ref(
    delivery: Delivery, command_ref: CommandRef, settings: Settings
) -> Reply | UnreadableMessage:
    body = read_body(delivery, settings)
    if isinstance(body, UnreadableMessage):
        return body
    outcome = read_outcome(delivery)
    if outcome is None:
        return UnreadableMessage(
            DeadLetterReason.BAD_OUTCOME,
            f"The header {OUTCOME_HEADER} must be succeeded, rejected or failed.",
        )
    failure = None if outcome is Outcome.SUCCEEDED else read_failure(body)
    if isinstance(failure, UnreadableMessage):
        return failure
    if failure is not None and outcome is Outcome.FAILED:
        failure = _with_engine_code(failure)
    return Reply(
        command_ref=command_ref,
        outcome=outcome,
        body=None if failure else body,
        failure=failure,
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
    )
