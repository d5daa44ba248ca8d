"""
A message to publish and a delivery, before their content is read.

Plain data: `amqp` encodes a Message as frames and builds a Delivery from frames; `command`,
`reply`, `request` and `answer` read and write the content.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    A message to publish: persistent, JSON, with `app_id` saga-engine.

    `message_id` must be unique for each publish: a `basic.return` is matched to its message by it.
    A `mandatory` message is returned when no queue is bound. A message with `other_routing_keys` is
    routed as if it had been published with each of them too; receivers do not see them (RabbitMQ
    guide "Sender-selected Distribution"). `timestamp` is informational.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    type: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    headers: Mapping[str, str | int | bool] = field(default_factory=dict)
    other_routing_keys: tuple[str, ...] = ()
    mandatory: bool = True
    timestamp: datetime | None = None


class PublishOutcome(StrEnum):
    """What is known about one publish."""

    CONFIRMED = "confirmed"
    UNROUTABLE = "unroutable"  # no queue is bound: no queue has it
    NACKED = "nacked"  # the broker refused it: it may be published again
    UNKNOWN = "unknown"  # timeout or lost connection: it has often arrived
    UNPUBLISHABLE = "unpublishable"  # it exceeds a limit and was not sent; a retry cannot succeed
    WAITING = "waiting"  # the sink of a feed sends it later, behind another one of its stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    A message that arrived. Its sender controls every field: none can be trusted.

    Strings and headers can be stored in PostgreSQL: they are valid Unicode without NUL, and headers
    are JSON. `body_size` is the length of the body in bytes; `body` is truncated when it is longer
    than the consumer keeps. `header_problem` says why the headers cannot be read, and is empty when
    they can. `delivery_tag` acknowledges the message on the consuming channel of `generation`. An
    acknowledgement for an earlier generation is dropped: the broker delivers the message again.
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
