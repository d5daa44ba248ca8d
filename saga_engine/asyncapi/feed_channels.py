"""
The channels of feeds: exchange, streams, topics, webhooks, with their headers and bindings.

To describe another sink, add its arms in `of_sink` and `sink_channel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.asyncapi.channels import AMQP, PERSISTENT, queue_channel, routed_channel
from saga_engine.asyncapi.components import Document
from saga_engine.asyncapi.headers import event_headers, webhook_headers
from saga_engine.events.feeds.feed import (
    Encoding,
    ExchangeOptions,
    KafkaOptions,
    Sink,
    SinkOptions,
    StreamOptions,
    WebhookOptions,
)
from saga_engine.events.feeds.webhook_target import WebhookTarget
from saga_engine.protocol.topology import FEED, ExchangeKind
from saga_engine.vocabulary import Json

HTTP = {"bindingVersion": "0.3.0"}
KAFKA = {"bindingVersion": "0.5.0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEvent:
    """
    An event that a feed can publish.

    Args:
        category: the name of its aggregate, or `run`; None: not known from the declarations.
        name: of its type.
        version: the newest that is declared; None: no module declares it.
        schema: of its data; empty if no module declares it.
    """

    category: str | None
    name: str
    version: int | None
    schema: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkDescription:
    """
    How the events of a kind of sink are described.

    Args:
        suffix: of the names of channels and messages; empty for the exchange.
        headers: the schema of an event's headers.
        message_bindings: of each message.
        operation_bindings: of sending one.
    """

    suffix: str
    headers: Document
    message_bindings: Document
    operation_bindings: Document


def of_sink(sink: Sink) -> SinkDescription:
    """Describe the events of a kind of sink."""
    match sink:
        case Sink.EXCHANGE:
            return SinkDescription(
                suffix="",
                headers=event_headers("ce-"),
                message_bindings={"amqp": AMQP},
                operation_bindings=PERSISTENT,
            )
        case Sink.STREAM:
            return SinkDescription(
                suffix=".stream",
                headers=event_headers("cloudEvents_"),
                message_bindings={"amqp": AMQP},
                operation_bindings={"amqp": AMQP},
            )
        case Sink.KAFKA:
            return SinkDescription(
                suffix=".kafka",
                headers=event_headers("ce_"),
                message_bindings={"kafka": {"key": {"type": "string"}, **KAFKA}},
                operation_bindings={"kafka": KAFKA},
            )
        case Sink.WEBHOOK:
            return SinkDescription(
                suffix=".webhook",
                headers=webhook_headers(),
                message_bindings={"http": HTTP},
                operation_bindings={"http": {"method": "POST", **HTTP}},
            )


def sink_channel(options: SinkOptions, events: Sequence[PublishedEvent]) -> Document:
    """Describe the channel of a sink, without its messages."""
    match options:
        case ExchangeOptions():
            return _exchange_channel(events)
        case StreamOptions():
            return _stream_channel(options)
        case KafkaOptions():
            return _topic_channel(options)
        case WebhookOptions():
            # The path and the query may have a token of the receiver.
            address = str(WebhookTarget.parse(options.url))
            return {"address": address, "title": "A webhook", "messages": {}}


def is_in_avro(options: SinkOptions) -> bool:
    """Whether a sink publishes its events in Avro."""
    match options:
        case StreamOptions() | KafkaOptions():
            return options.encoding == Encoding.AVRO
        case ExchangeOptions() | WebhookOptions():
            return False


def _stream_channel(options: StreamOptions) -> Document:
    """Describe a stream, or the exchange of a super stream, which routes by the partition."""
    if options.partitions == 1:
        return queue_channel(options.stream)
    partitions = [str(each) for each in range(options.partitions)]
    channel = routed_channel(options.stream, "{partition}", ExchangeKind.DIRECT)
    description = f"Of the super stream; a consumer reads {options.stream}-0 and so on."
    parameter: Document = {"description": description, "enum": partitions}
    return {**channel, "parameters": {"partition": parameter}}


def _topic_channel(options: KafkaOptions) -> Document:
    """Describe a topic of Kafka, with the numbers that the feed declares."""
    topic: Document = {
        "topic": options.topic,
        "partitions": options.partitions,
        "replicas": options.replication,
        **KAFKA,
    }
    return {
        "address": options.topic,
        "title": "A topic of Kafka",
        "messages": {},
        "bindings": {"kafka": topic},
    }


def _exchange_channel(events: Sequence[PublishedEvent]) -> Document:
    category: Document = {"description": "The aggregate whose stream the event is in, or run."}
    if events and all(each.category for each in events):
        category["enum"] = sorted({str(each.category) for each in events})
    name: Document = {"description": "The type of the event."}
    if events:
        name["enum"] = sorted({each.name for each in events})
    channel = routed_channel(FEED, "{category}.{type}")
    return {**channel, "parameters": {"category": category, "type": name}}
