"""
What travels, before it means anything: a message to publish, a delivery that arrived.

Only plain data. `publisher` turns a Message into frames, `consumer` turns frames into a Delivery;
what the bytes mean is the business of `command`, `reply` and `request`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    One message to publish; always persistent, always JSON, always from `saga-engine`.

    `message_id` must be fresh for every publish: it is how the broker's return is matched to its
    message. `mandatory`: come back when no queue is bound. `timestamp`: informational.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    type: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    headers: Mapping[str, str | int | bool] = field(default_factory=dict)
    mandatory: bool = True
    timestamp: datetime | None = None


class PublishOutcome(StrEnum):
    """What is known of one publish."""

    CONFIRMED = "confirmed"
    UNROUTABLE = "unroutable"  # no queue is bound: it is nowhere
    NACKED = "nacked"  # the broker declined: it may be published again
    UNKNOWN = "unknown"  # cut, timed out or never written: it has often arrived
    UNPUBLISHABLE = "unpublishable"  # it breaks a limit and was not sent: it can never be published


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    One message that arrived, as the sender made it: every field may be hostile.

    Every string and header can be stored in PostgreSQL as it is: valid Unicode without NUL, headers
    as plain JSON. `size` is the body's length in bytes; a body longer than the consumer keeps is
    cut to what it keeps. `problem` says why its headers are not to be read, if so. `tag`
    acknowledges it on the consuming channel numbered `epoch`; an acknowledgement for an epoch that
    is over is dropped: the broker delivers the message again.
    """

    queue: str
    generation: int
    delivery_tag: int
    body: bytes
    body_size: int
    exchange: str
    routing_key: str
    redelivered: bool
    message_id: str
    correlation_id: str
    reply_to: str
    type: str
    content_type: str
    content_encoding: str
    user_id: str
    app_id: str
    timestamp: datetime | None
    headers: Mapping[str, Json]
    header_problem: str = ""
