"""
Publishing: assembles a message from its frames, validates, routes and confirms it.

A message is returned before it is confirmed and confirmed after it is queued
(rabbitmq.com/docs/confirms). It is validated when it is complete, so that the stream of frames
stays in step after a refusal.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pamqp import base, commands

from saga_engine.embedded.broker.channel import Channel, IncomingPublish
from saga_engine.embedded.broker.frames import read_publish, write_return
from saga_engine.embedded.broker.message import PublishedMessage
from saga_engine.embedded.broker.properties import EncodedProperties, read_array
from saga_engine.embedded.broker.refusal import (
    ConnectionException,
    not_implemented,
    precondition_failed,
)

MAX_MESSAGE_BYTES: Final = 16_777_216  # Bytes of a body, RabbitMQ 4's default; 3.x allows 128 MiB.
_MAX_EXPIRATION_MS: Final = 2**32 - 1  # Milliseconds of an expiration, as Erlang's timers.


class PublishOperation:
    """A complete published message and what the broker can do with it: a `PublishAttempt`."""

    def __init__(self, channel: Channel, message: PublishedMessage, *, mandatory: bool) -> None:
        self.message = message
        self._channel = channel
        self._mandatory = mandatory
        self._delivery_tag = channel.publish_count
        self._accepted = True

    def route(self) -> None:
        """Add it to the queues bound for it; return it if it is mandatory and there are none."""
        result = self._channel.peer.virtual_host.route(self.message)
        self._accepted = result.accepted
        if self._mandatory and not result.queue_count:
            method = write_return(self._channel.number, self.message.destination)
            self._channel.send_content(method, self.message, self.message.raw_properties.raw)

    def confirm(self) -> None:
        """Send basic.ack, or basic.nack if a full queue rejected it; only in confirm mode."""
        if not self._accepted:
            self.nack()
        elif self._channel.confirm_mode:
            self._channel.send(commands.Basic.Ack(self._delivery_tag, multiple=False))

    def nack(self) -> None:
        """Send basic.nack, in confirm mode."""
        if self._channel.confirm_mode:
            self._channel.send(
                commands.Basic.Nack(self._delivery_tag, multiple=False, requeue=False)
            )

    def abort_connection(self) -> None:
        """Close the publisher's socket without a close handshake."""
        self._channel.peer.abort()


def begin_publish(channel: Channel, payload: bytes) -> None:
    """Handle basic.publish; the content follows."""
    if channel.incoming:
        raise ConnectionException(505, "UNEXPECTED_FRAME - expected content, got a method")
    publish = read_publish(payload)
    if publish.immediate:
        raise not_implemented("immediate=true")
    channel.incoming = IncomingPublish(publish, None, 0, bytearray())


def receive_header(channel: Channel, payload: bytes) -> None:
    """Handle a content header."""
    incoming = channel.incoming
    if incoming is None or incoming.properties or len(payload) < 14:
        raise ConnectionException(505, "UNEXPECTED_FRAME - expected a method, got a content header")
    try:
        incoming.properties = EncodedProperties.parse(payload[12:])
    except ValueError as error:
        raise ConnectionException(502, f"SYNTAX_ERROR - {error}") from None
    incoming.size = int.from_bytes(payload[4:12], "big")
    if incoming.size > MAX_MESSAGE_BYTES:
        channel.incoming = None
        raise precondition_failed(
            f"message size {incoming.size} is larger than configured max size {MAX_MESSAGE_BYTES}"
        )
    if not incoming.size:
        _complete_publish(channel, incoming, incoming.properties)


def receive_body(channel: Channel, payload: bytes) -> None:
    """Handle a body frame."""
    incoming = channel.incoming
    if incoming is None or incoming.properties is None:
        raise ConnectionException(505, "UNEXPECTED_FRAME - expected a method, got a content body")
    incoming.body += payload
    if len(incoming.body) > incoming.size:
        raise ConnectionException(501, "FRAME_ERROR - a body is longer than its header says")
    if len(incoming.body) == incoming.size:
        _complete_publish(channel, incoming, incoming.properties)


def _complete_publish(
    channel: Channel, incoming: IncomingPublish, properties: EncodedProperties
) -> None:
    channel.incoming = None
    publish = incoming.publish
    _validate_properties(channel, properties)
    if publish.exchange:
        channel.peer.virtual_host.exchange(publish.exchange)
    if channel.confirm_mode:
        channel.publish_count += 1
    message = PublishedMessage(
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        other_routing_keys=_read_other_routing_keys(properties),
        raw_properties=_without_bcc(properties),
        body=bytes(incoming.body),
    )
    operation = PublishOperation(channel, message, mandatory=publish.mandatory)
    channel.peer.interceptor(operation)


def _validate_properties(channel: Channel, properties: EncodedProperties) -> None:
    """Refuse (406) a forged user id and an invalid expiration."""
    username = properties.user_id
    if username is not None and username != channel.peer.username:
        raise precondition_failed(
            f"user_id property set to '{username}' but authenticated user was"
            f" '{channel.peer.username}'"
        )
    expiration = properties.expiration
    if expiration is not None and not _is_valid_expiration(expiration):
        raise precondition_failed(f"invalid expiration '{expiration}'")


def _read_other_routing_keys(properties: EncodedProperties) -> tuple[str, ...]:
    """The routing keys of the headers CC and BCC; RabbitMQ refuses (406) other types."""
    keys: list[str] = []
    for name in (b"CC", b"BCC"):
        value = properties.headers.get(name)
        if value is None:
            continue
        items = read_array(value)
        if value[:1] != b"A" or any(item[:1] != b"S" for item in items):
            raise precondition_failed(f"header '{name.decode()}' is not a list of routing keys")
        keys += [item[5:].decode("utf-8", "surrogateescape") for item in items]
    return tuple(keys)


def _without_bcc(properties: EncodedProperties) -> EncodedProperties:
    headers = properties.headers
    return properties.with_headers(headers) if headers.pop(b"BCC", None) else properties


def _is_valid_expiration(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_EXPIRATION_MS


def _select_confirms(channel: Channel, method: commands.Confirm.Select) -> None:
    channel.confirm_mode = True
    if not method.nowait:
        channel.send(commands.Confirm.SelectOk())


HANDLERS: Mapping[type[base.Frame], Callable[[Channel, Any], None]] = MappingProxyType(
    {commands.Confirm.Select: _select_confirms}
)
