"""
An event as a message: CloudEvents 1.0 in binary mode, for AMQP 0-9-1.

The attributes are headers that begin with `ce-`, and the body is the data alone (docs/protocol.md,
section 14). A message depends on nothing but its event, so a repeated one is the same.
"""

from datetime import UTC
from functools import lru_cache
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded, data_json
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import FEED

SEQUENCE_DIGITS = 19
"""A position has at most 19 digits; with leading zeros, texts are in the order of the numbers."""


def encode_event(event: Recorded, log_id: UUID) -> Message:
    """
    Make the message of an event.

    Args:
        event: an event.
        log_id: the identity of the log that it is from.

    Raises:
        UnreadableEvent: its data is not JSON that can be read and written.
    """
    return Message(
        exchange=FEED,
        routing_key=routing_key(event),
        body=data_json(event),
        message_id=str(event.id),
        headers={
            f"ce-{name}": value
            for name, value in attributes(event, log_id, event.schema_id).items()
        },
        timestamp=event.recorded_at,
    )


def attributes(event: Recorded, log_id: UUID, schema_id: int | None) -> dict[str, str]:
    """
    Return the attributes of an event, by the names that every binding adds its prefix to.

    Args:
        event: an event.
        log_id: the identity of the log that it is from.
        schema_id: of the registered schema that its data has; None: it is not known.
    """
    optional = {
        "dataschema": None if schema_id is None else schema_uri(log_id, schema_id),
        "correlationid": event.correlation_id,
        "causationid": event.causation_id,
        "actor": event.actor,
    }
    return {
        "specversion": "1.0",
        "id": str(event.id),
        "source": _urn(log_id),
        "type": event.type,
        "subject": event.stream,
        "time": event.recorded_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "sequence": f"{event.position:0{SEQUENCE_DIGITS}}",
        "streamversion": str(event.version),
        "schemaversion": str(event.schema_version),
        **{name: value for name, value in optional.items() if value is not None},
    }


def schema_uri(log_id: UUID, schema_id: int) -> str:
    """Name a registered schema: its id, and the log in whose database it is registered."""
    return f"{_urn(log_id)}#schema/{schema_id}"


@lru_cache(maxsize=16)
def _urn(log_id: UUID) -> str:
    """Return the URN of a log: one process has one or two."""
    return log_id.urn


def routing_key(event: Recorded) -> str:
    """
    Return the routing key of an event: `order.order-placed` for stream `order-o-1`.

    The part before the dot is the name of the stream up to its first `-`: its aggregate, or `run`.
    """
    return f"{event.stream.partition('-')[0]}.{event.type}"
