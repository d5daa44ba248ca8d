"""
Publishing: putting a message together from its frames, judging it, routing and confirming it.

Returned before it is confirmed, confirmed after it is queued (rabbitmq.com/docs/confirms). A
message is judged when it is complete, so that its frames are always read in step.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pamqp import base, commands

from saga_engine.embedded.broker.channel import Channel, Draft
from saga_engine.embedded.broker.frames import read_publish, write_return
from saga_engine.embedded.broker.message import PublishedMessage
from saga_engine.embedded.broker.properties import Properties
from saga_engine.embedded.broker.refusal import (
    ConnectionRefusal,
    not_implemented,
    precondition_failed,
)

MESSAGE_MAX: Final = 16_777_216  # Bytes of a body, RabbitMQ 4's default; 3.x allows 128 MiB.
_LONGEST: Final = 2**32 - 1  # Milliseconds of an expiration, as Erlang's timers.


class PublishAttempt:
    """One complete publish and the moves that answer it; the faults' `Attempt`."""

    def __init__(self, channel: Channel, message: PublishedMessage, *, mandatory: bool) -> None:
        self.message = message
        self._channel = channel
        self._mandatory = mandatory
        self._number = channel.published
        self._accepted = True

    def route(self) -> None:
        """Put it into its queues; return it when it is mandatory and there are none."""
        routing = self._channel.peer.host.route(self.message)
        self._accepted = routing.accepted
        if self._mandatory and not routing.queues:
            method = write_return(self._channel.number, self.message.place)
            self._channel.send_content(method, self.message, self.message.raw.raw)

    def confirm(self) -> None:
        """Confirm it, or refuse it when a queue was full; nothing without confirm.select."""
        if not self._accepted:
            self.refuse()
        elif self._channel.confirming:
            self._channel.send(commands.Basic.Ack(self._number, multiple=False))

    def refuse(self) -> None:
        """Send basic.nack."""
        if self._channel.confirming:
            self._channel.send(commands.Basic.Nack(self._number, multiple=False, requeue=False))

    def cut(self) -> None:
        """End the publisher's connection without a word."""
        self._channel.peer.cut()


def begin(channel: Channel, payload: bytes) -> None:
    """Take basic.publish; the content follows."""
    if channel.draft:
        raise ConnectionRefusal(505, "UNEXPECTED_FRAME - expected content, got a method")
    publish = read_publish(payload)
    if publish.immediate:
        raise not_implemented("immediate=true")
    channel.draft = Draft(publish, None, 0, bytearray())


def take_header(channel: Channel, payload: bytes) -> None:
    """Take a content header."""
    draft = channel.draft
    if draft is None or draft.properties or len(payload) < 14:
        raise ConnectionRefusal(505, "UNEXPECTED_FRAME - expected a method, got a content header")
    try:
        draft.properties = Properties.parse(payload[12:])
    except ValueError as error:
        raise ConnectionRefusal(502, f"SYNTAX_ERROR - {error}") from None
    draft.size = int.from_bytes(payload[4:12], "big")
    if draft.size > MESSAGE_MAX:
        channel.draft = None
        raise precondition_failed(
            f"message size {draft.size} is larger than configured max size {MESSAGE_MAX}"
        )
    if not draft.size:
        _complete(channel, draft, draft.properties)


def take_body(channel: Channel, payload: bytes) -> None:
    """Take a part of the body."""
    draft = channel.draft
    if draft is None or draft.properties is None:
        raise ConnectionRefusal(505, "UNEXPECTED_FRAME - expected a method, got a content body")
    draft.body += payload
    if len(draft.body) > draft.size:
        raise ConnectionRefusal(501, "FRAME_ERROR - a body is longer than its header says")
    if len(draft.body) == draft.size:
        _complete(channel, draft, draft.properties)


def _complete(channel: Channel, draft: Draft, properties: Properties) -> None:
    channel.draft = None
    publish = draft.publish
    _judge(channel, properties)
    if publish.exchange:
        channel.peer.host.exchange(publish.exchange)
    if channel.confirming:
        channel.published += 1
    message = PublishedMessage(publish.exchange, publish.routing_key, properties, bytes(draft.body))
    attempt = PublishAttempt(channel, message, mandatory=publish.mandatory)
    if rule := channel.peer.faults.rule_for(message):
        rule.fire(attempt)
        return
    attempt.route()
    attempt.confirm()


def _judge(channel: Channel, properties: Properties) -> None:
    """Refuse (406) a forged user id and a lifetime that is none."""
    user = properties.user_id
    if user is not None and user != channel.peer.user:
        raise precondition_failed(
            f"user_id property set to '{user}' but authenticated user was '{channel.peer.user}'"
        )
    expiration = properties.expiration
    if expiration is not None and not _is_lifetime(expiration):
        raise precondition_failed(f"invalid expiration '{expiration}'")


def _is_lifetime(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LONGEST


def _select(channel: Channel, method: commands.Confirm.Select) -> None:
    channel.confirming = True
    if not method.nowait:
        channel.send(commands.Confirm.SelectOk())


HANDLERS: Mapping[type[base.Frame], Callable[[Channel, Any], None]] = MappingProxyType(
    {commands.Confirm.Select: _select}
)
