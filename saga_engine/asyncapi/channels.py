"""
Channels and references to them: queues, exchanges, and the bindings of AMQP 0-9-1.

An operation refers to the messages of its channel, and a channel to messages of the components.
"""

from saga_engine.asyncapi.components import Document
from saga_engine.protocol.topology import ExchangeKind

AMQP = {"bindingVersion": "0.3.0"}
PERSISTENT = {"amqp": {"deliveryMode": 2, "mandatory": True, **AMQP}}
ACKNOWLEDGED = {"amqp": {"ack": True, **AMQP}}


def channel_reference(name: str) -> Document:
    """Refer to a channel: `/` and `~` have escapes in a JSON pointer (RFC 6901)."""
    return {"$ref": f"#/channels/{_escaped(name)}"}


def message_of(channel: str, message: Document) -> Document:
    """Refer to a message of a channel, as operations must, instead of to the component."""
    key = _key_of(message)
    return {"$ref": f"#/channels/{_escaped(channel)}/messages/{_escaped(key)}"}


def add_message(channel: Document, message: Document) -> None:
    """Add a reference to a component to the messages of a channel."""
    channel["messages"][_key_of(message)] = message


def queue_channel(queue: str) -> Document:
    """Describe a durable queue or stream; docs/protocol.md says how it is declared."""
    properties = {"name": queue, "durable": True, "exclusive": False, "autoDelete": False}
    return {
        "address": queue,
        "messages": {},
        "bindings": {"amqp": {"is": "queue", "queue": properties, **AMQP}},
    }


def routed_channel(
    exchange: str, address: str, kind: ExchangeKind = ExchangeKind.TOPIC
) -> Document:
    """Describe a durable exchange, where the address of the channel is a routing key."""
    properties = {
        "name": exchange,
        "type": kind.value,
        "durable": True,
        "autoDelete": False,
    }
    return {
        "address": address,
        "messages": {},
        "bindings": {"amqp": {"is": "routingKey", "exchange": properties, **AMQP}},
    }


def _key_of(message: Document) -> str:
    reference: str = message["$ref"]
    return reference.rpartition("/")[2]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
