"""
What is returned instead of a message that cannot be handled: a reason, a sentence and whose it is.

It is a value and not an error, because nothing a sender does is an error of ours: the message is
set aside with it. The sentence never quotes the message.
"""

from dataclasses import dataclass
from enum import StrEnum

from saga_engine.protocol.token import CommandRef


class UnreadableReason(StrEnum):
    """Why a message is set aside; the words stand in docs/protocol.md, metrics and dead letters."""

    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    MALFORMED_JSON = "malformed_json"
    NOT_STORABLE = "not_storable"
    NOT_AN_OBJECT = "not_an_object"
    BAD_HEADERS = "bad_headers"
    BAD_OUTCOME = "bad_outcome"
    BAD_FAILURE = "bad_failure"
    BAD_COMMAND = "bad_command"
    BAD_REQUEST = "bad_request"
    UNCORRELATED_REPLY = "uncorrelated_reply"


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """
    A message that cannot be handled.

    `ref` is the command it answers when its correlation id is genuine: something was done there,
    and the run must learn that nobody knows what.
    """

    reason: UnreadableReason
    explanation: str
    command_ref: CommandRef | None = None
