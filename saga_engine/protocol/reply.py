"""
A reply on the wire: how a participant writes it and how the engine reads it.

Rule: a reply is believed only if its correlation id is a token of ours. A genuine one that cannot
be read keeps its CommandRef: something was done, and the run must hear of it. The contract is
docs/protocol.md, section "Replies".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saga_engine.protocol.body import read_body, write_json
from saga_engine.protocol.command import ReceivedCommand, fresh_message_id
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.token import CommandRef, read_any
from saga_engine.protocol.topology import REPLIES
from saga_engine.protocol.unreadable import Reason, Unreadable
from saga_engine.settings import Settings
from saga_engine.vocabulary import Failure, Json, Outcome

OUTCOME = "saga-outcome"

CODE_CHARACTERS = 128
"""The longest code of a failure; it is a word for programs, the message is for people."""

_TOLD = {outcome.value: outcome for outcome in Outcome if outcome is not Outcome.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Reply:
    """
    What a participant answered to one attempt.

    `body` is the result of a success, `failure` says why it was rejected or failed; neither shows
    in a log. `outcome` is never unknown: that is concluded, not told.
    """

    ref: CommandRef
    outcome: Outcome
    body: Json = field(repr=False)
    failure: Failure | None = field(repr=False)
    message_id: str
    correlation_id: str


def encode_reply(
    to: ReceivedCommand, outcome: Outcome, body: Json | bytes | Failure, *, message_id: str = ""
) -> Message:
    """
    Write a reply.

    Args:
        body: the result of a success (JSON, or its bytes), or the Failure.
    """
    if isinstance(body, Failure):
        body = write_json(failure_json(body))
    return Message(
        exchange=REPLIES,
        routing_key=to.reply_to,
        body=body if isinstance(body, bytes) else write_json(body),
        message_id=message_id or fresh_message_id(),
        type=to.command.name,
        correlation_id=to.correlation_id,
        headers={OUTCOME: outcome.value},
    )


def decode_reply(
    delivery: Delivery, keys: Sequence[bytes], settings: Settings
) -> Reply | Unreadable:
    """Read a reply with the engine's keys: any of them may have signed its command."""
    ref = read_any(keys, delivery.correlation_id)
    if ref is None:
        return Unreadable(
            Reason.FOREIGN_CORRELATION_ID,
            "The correlation_id is not one of this engine's: it was not copied from a command, or"
            " another engine, with a database of its own, shares this virtual host.",
        )
    found = _decode(delivery, ref, settings)
    return replace(found, ref=ref) if isinstance(found, Unreadable) else found


def read_failure(body: Json) -> Failure | Unreadable:
    """Read {code, message, details}; the code is needed, the rest is not."""
    if not isinstance(body, dict):
        return Unreadable(Reason.BAD_ERROR, "Its body must be an object with a code.")
    code, message = body.get("code"), body.get("message", "")
    if not isinstance(code, str) or not 0 < len(code) <= CODE_CHARACTERS:
        return Unreadable(
            Reason.BAD_ERROR, f"Its code must be a text of 1 to {CODE_CHARACTERS} characters."
        )
    if not isinstance(message, str):
        return Unreadable(Reason.BAD_ERROR, "Its message must be a text.")
    return Failure(code, message, body.get("details"))


def told_outcome(delivery: Delivery) -> Outcome | None:
    """Read what a reply says of itself in its header; None when that is none of the three."""
    told = delivery.headers.get(OUTCOME, Outcome.SUCCEEDED.value)
    return _TOLD.get(told) if isinstance(told, str) else None


def _decode(delivery: Delivery, ref: CommandRef, settings: Settings) -> Reply | Unreadable:
    body = read_body(delivery, settings)
    if isinstance(body, Unreadable):
        return body
    outcome = told_outcome(delivery)
    if outcome is None:
        return Unreadable(
            Reason.BAD_OUTCOME, f"The header {OUTCOME} must be succeeded, rejected or failed."
        )
    failure = None if outcome is Outcome.SUCCEEDED else read_failure(body)
    if isinstance(failure, Unreadable):
        return failure
    return Reply(
        ref=ref,
        outcome=outcome,
        body=None if failure else body,
        failure=failure,
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
    )
