"""
What travels, before it means anything: a message to publish, a delivery that arrived.

Only plain data. `publisher` turns a Message into frames, `consumer` turns frames into a Delivery;
what the bytes mean is the business of `protocol`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message to publish; always persistent.

    `message_id` must be fresh for every publish: two in flight with one id on a channel swap their
    outcomes (aiormq matches returns by message_id). `mandatory`: come back when no queue is bound.
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


class Published(StrEnum):
    """What the broker said of one publish."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"  # no queue is bound: it is nowhere
    NACKED = "nacked"  # the broker declined: it may be published again
    UNKNOWN = "unknown"  # cut or timed out: it has often arrived


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    One message that arrived, as the sender made it: every field may be hostile.

    `tag` acknowledges it on `channel_number` of the connection numbered `epoch`; an acknowledgement
    for an epoch that is over is dropped, because the broker will deliver the message again.
    """

    queue: str
    epoch: int
    tag: int
    body: bytes
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
    headers: Mapping[str, Any]
