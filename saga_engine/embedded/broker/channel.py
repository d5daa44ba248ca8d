"""
A channel: its consumers, its unacknowledged messages and the publish being received.

The handlers in `consuming`, `publishing` and `declaring` call its methods. A channel that closes
requeues all its unacknowledged messages.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pamqp import base, commands

from saga_engine.embedded.broker.frames import (
    Publish,
    write_content,
    write_deliver,
    write_get_ok,
    write_method,
)
from saga_engine.embedded.broker.interceptor import PublishInterceptor
from saga_engine.embedded.broker.message import PublishedMessage, QueuedMessage
from saga_engine.embedded.broker.properties import EncodedProperties
from saga_engine.embedded.broker.queue import REJECTED_REASON, Queue
from saga_engine.embedded.broker.refusal import precondition_failed
from saga_engine.embedded.broker.virtual_host import VirtualHost


class PeerConnection(Protocol):
    """What a channel uses of its connection."""

    virtual_host: VirtualHost
    interceptor: PublishInterceptor
    username: str
    frame_max: int

    @property
    def is_congested(self) -> bool:
        """Whether the client reads more slowly than the broker writes."""

    def write(self, data: bytes) -> None:
        """Send frames."""

    def abort(self) -> None:
        """Close the socket without a close handshake."""


@dataclass
class IncomingPublish:
    """A publish whose content has not arrived completely."""

    publish: Publish
    properties: EncodedProperties | None
    size: int
    body: bytearray


@dataclass(frozen=True, slots=True)
class UnackedMessage:
    """A message that was delivered to a consumer or (None) by basic.get."""

    queue: Queue
    queued_message: QueuedMessage
    subscription: "Subscription | None"


class Subscription:
    """A consumer of a queue on a channel."""

    def __init__(
        self,
        channel: "Channel",
        queue: Queue,
        consumer_tag: str,
        *,
        no_ack: bool,
        priority: int = 0,
    ) -> None:
        self.priority = priority
        self.channel = channel
        self.queue = queue
        self.consumer_tag = consumer_tag
        self.no_ack = no_ack
        self.prefetch = channel.prefetch
        self.unacked_count = 0

    def has_capacity(self) -> bool:
        """Whether the prefetch and the socket allow another delivery."""
        if self.channel.peer.is_congested:
            return False
        global_prefetch = self.channel.global_prefetch
        if self.no_ack:
            return True
        return (not self.prefetch or self.unacked_count < self.prefetch) and (
            not global_prefetch or len(self.channel.unacked) < global_prefetch
        )

    def deliver(self, queued_message: QueuedMessage) -> None:
        """Deliver a message."""
        channel, message = self.channel, queued_message.message
        delivery_tag = channel.add_unacked(
            UnackedMessage(self.queue, queued_message, self), auto_ack=self.no_ack
        )
        method = write_deliver(
            channel.number,
            self.consumer_tag,
            delivery_tag,
            message.destination,
            redelivered=queued_message.redelivered,
        )
        channel.send_content(method, message, self._delivery_properties(queued_message))

    def notify_cancelled(self) -> None:
        """Notify the client that its queue was deleted (consumer_cancel_notify)."""
        self.channel.subscriptions.pop(self.consumer_tag, None)
        self.channel.send(commands.Basic.Cancel(self.consumer_tag, nowait=True))

    def _delivery_properties(self, queued_message: QueuedMessage) -> bytes:
        return queued_message.delivery_properties(
            with_delivery_count=self.queue.declaration.is_quorum
        )


class Channel:
    """One open channel of a connection."""

    def __init__(self, peer: PeerConnection, number: int) -> None:
        self.peer = peer
        self.number = number
        self.prefetch = 0
        self.global_prefetch = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.unacked: dict[int, UnackedMessage] = {}  # By delivery tag; tags only increase.
        self.confirm_mode = False
        self.publish_count = 0
        self.incoming: IncomingPublish | None = None
        self.closed = False
        self._last_tag = 0

    def send(self, method: base.Frame) -> None:
        """Send a method, unless the channel is closed."""
        if not self.closed:
            self.peer.write(write_method(self.number, method))

    def send_content(self, method: bytes, message: PublishedMessage, properties: bytes) -> None:
        """Send a method that carries a message."""
        if not self.closed:
            content = write_content(self.number, properties, message.body, self.peer.frame_max)
            self.peer.write(method + content)

    def add_unacked(self, delivery: UnackedMessage, *, auto_ack: bool) -> int:
        """Assign a delivery tag; keep the delivery until it is acknowledged unless `auto_ack`."""
        self._last_tag += 1
        if auto_ack:
            delivery.queue.release(delivery.queued_message)
        else:
            self.unacked[self._last_tag] = delivery
            if delivery.subscription:
                delivery.subscription.unacked_count += 1
        return self._last_tag

    def send_get_ok(self, queue: Queue, queued_message: QueuedMessage, *, no_ack: bool) -> None:
        """Answer basic.get with a message."""
        delivery_tag = self.add_unacked(
            UnackedMessage(queue, queued_message, None), auto_ack=no_ack
        )
        method = write_get_ok(
            self.number,
            delivery_tag,
            queued_message.message.destination,
            redelivered=queued_message.redelivered,
            message_count=len(queue),
        )
        properties = queued_message.delivery_properties(
            with_delivery_count=queue.declaration.is_quorum
        )
        self.send_content(method, queued_message.message, properties)

    def acknowledge(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge deliveries."""
        deliveries = self._pop_unacked(tag, multiple=multiple)
        for delivery in deliveries:
            delivery.queue.release(delivery.queued_message)
        _dispatch_affected_queues(deliveries)

    def reject(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """Requeue deliveries, or dead-letter them."""
        deliveries = self._pop_unacked(tag, multiple=multiple)
        if requeue:
            _requeue_deliveries(deliveries)
            return
        for delivery in deliveries:
            delivery.queue.dead_letter(delivery.queued_message, REJECTED_REASON)
        _dispatch_affected_queues(deliveries)

    def recover(self) -> None:
        """Requeue every unacknowledged message."""
        _requeue_deliveries(self._pop_unacked(0, multiple=True))

    def cancel(self, consumer_tag: str) -> None:
        """Cancel a consumer; its deliveries stay unacknowledged."""
        subscription = self.subscriptions.pop(consumer_tag, None)
        if subscription is None:
            return
        queue = subscription.queue
        queue.unsubscribe(subscription)
        if queue.declaration.auto_delete and not queue.consumers:
            self.peer.virtual_host.delete_queue(queue)

    def close(self) -> None:
        """Requeue everything; the channel sends nothing after this."""
        self.closed = True
        for tag in list(self.subscriptions):
            self.cancel(tag)
        self.recover()

    def _pop_unacked(self, tag: int, *, multiple: bool) -> list[UnackedMessage]:
        """The deliveries that a tag refers to; 0 with `multiple` is all of them."""
        all_unacked = multiple and tag == 0
        if not all_unacked and tag not in self.unacked:
            raise precondition_failed(f"unknown delivery tag {tag}")
        tags = [tag]
        if multiple:
            tags = [
                unacked_tag for unacked_tag in self.unacked if all_unacked or unacked_tag <= tag
            ]
        deliveries = [self.unacked.pop(unacked_tag) for unacked_tag in tags]
        for delivery in deliveries:
            if delivery.subscription:
                delivery.subscription.unacked_count -= 1
        return deliveries


def _requeue_deliveries(deliveries: list[UnackedMessage]) -> None:
    """Requeue in the order of delivery, because some queues append."""
    for delivery in deliveries:
        delivery.queue.requeue(delivery.queued_message)
    _dispatch_affected_queues(deliveries)


def _dispatch_affected_queues(deliveries: Iterable[UnackedMessage]) -> None:
    """Dispatch the queues of the deliveries and those of their consumers' channels."""
    queues = {id(delivery.queue): delivery.queue for delivery in deliveries}
    for delivery in deliveries:
        for consumer in (
            delivery.subscription.channel.subscriptions.values() if delivery.subscription else ()
        ):
            queues[id(consumer.queue)] = consumer.queue
    for queue in queues.values():
        queue.dispatch()
