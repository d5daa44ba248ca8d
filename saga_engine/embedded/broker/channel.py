"""
A channel: what it consumes, what it holds unacknowledged, what it is about to publish.

State and the moves on it; `consuming`, `publishing` and `declaring` translate methods into these
moves. A channel that closes gives back everything it holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pamqp import base, commands

from saga_engine.embedded.broker.faults import Faults
from saga_engine.embedded.broker.frames import (
    Publish,
    write_content,
    write_deliver,
    write_get_ok,
    write_method,
)
from saga_engine.embedded.broker.message import PublishedMessage, QueuedMessage
from saga_engine.embedded.broker.properties import Properties
from saga_engine.embedded.broker.queue import REJECTED, Queue
from saga_engine.embedded.broker.refusal import precondition_failed
from saga_engine.embedded.broker.virtual_host import VirtualHost


class Peer(Protocol):
    """What a channel needs of its connection."""

    host: VirtualHost
    faults: Faults
    user: str
    frame_max: int

    @property
    def congested(self) -> bool:
        """Whether the client reads slower than it is written to."""

    def write(self, written: bytes) -> None:
        """Send frames."""

    def cut(self) -> None:
        """End the connection without a word."""


@dataclass
class Draft:
    """A publish whose content is still arriving."""

    publish: Publish
    properties: Properties | None
    size: int
    body: bytearray


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message this channel holds, for a consumer or (None) for a get."""

    queue: Queue
    queued: QueuedMessage
    consumer: "Subscription | None"


class Subscription:
    """A consumer of a queue on a channel."""

    def __init__(self, channel: "Channel", queue: Queue, tag: str, *, no_ack: bool) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.prefetch = channel.prefetch
        self.held = 0

    def has_room(self) -> bool:
        """Whether prefetch and the socket allow one more."""
        if self.channel.peer.congested:
            return False
        shared = self.channel.shared_prefetch
        if self.no_ack:
            return True
        return (not self.prefetch or self.held < self.prefetch) and (
            not shared or len(self.channel.held) < shared
        )

    def take(self, queued: QueuedMessage) -> None:
        """Deliver it."""
        channel, message = self.channel, queued.message
        tag = channel.hold(Delivery(self.queue, queued, self), settled=self.no_ack)
        method = write_deliver(
            channel.number, self.tag, tag, message.place, again=queued.redelivered
        )
        channel.send_content(method, message, self._properties(queued))

    def cancelled(self) -> None:
        """Tell the client that its queue is gone (consumer_cancel_notify)."""
        self.channel.consumers.pop(self.tag, None)
        self.channel.send(commands.Basic.Cancel(self.tag, nowait=True))

    def _properties(self, queued: QueuedMessage) -> bytes:
        return queued.delivered(counted=self.queue.declaration.quorum)


class Channel:
    """One open channel of a connection."""

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.number = number
        self.prefetch = 0
        self.shared_prefetch = 0
        self.consumers: dict[str, Subscription] = {}
        self.held: dict[int, Delivery] = {}  # By delivery tag, which only grows.
        self.confirming = False
        self.published = 0
        self.draft: Draft | None = None
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

    def hold(self, delivery: Delivery, *, settled: bool) -> int:
        """Number a delivery; keep it until it is acknowledged, unless it is settled already."""
        self._last_tag += 1
        if settled:
            delivery.queue.settle(delivery.queued)
        else:
            self.held[self._last_tag] = delivery
            if delivery.consumer:
                delivery.consumer.held += 1
        return self._last_tag

    def send_got(self, queue: Queue, queued: QueuedMessage, *, no_ack: bool) -> None:
        """Answer basic.get with a message."""
        tag = self.hold(Delivery(queue, queued, None), settled=no_ack)
        method = write_get_ok(
            self.number, tag, queued.message.place, again=queued.redelivered, left=len(queue)
        )
        properties = queued.delivered(counted=queue.declaration.quorum)
        self.send_content(method, queued.message, properties)

    def acknowledge(self, tag: int, *, multiple: bool) -> None:
        """These messages are done with."""
        deliveries = self._take(tag, multiple=multiple)
        for delivery in deliveries:
            delivery.queue.settle(delivery.queued)
        _hand_out(deliveries)

    def refuse(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """These messages go back to their queues, or die."""
        deliveries = self._take(tag, multiple=multiple)
        if requeue:
            _give_back(deliveries)
            return
        for delivery in deliveries:
            delivery.queue.drop(delivery.queued, REJECTED)
        _hand_out(deliveries)

    def recover(self) -> None:
        """Everything unacknowledged goes back."""
        _give_back(self._take(0, multiple=True))

    def cancel(self, tag: str) -> None:
        """End a consumer; what it holds stays held."""
        subscription = self.consumers.pop(tag, None)
        if subscription is None:
            return
        queue = subscription.queue
        queue.unsubscribe(subscription)
        if queue.declaration.auto_delete and not queue.consumers:
            self.peer.host.delete_queue(queue)

    def close(self) -> None:
        """Give everything back; nothing is sent from now on."""
        self.closed = True
        for tag in list(self.consumers):
            self.cancel(tag)
        self.recover()

    def _take(self, tag: int, *, multiple: bool) -> list[Delivery]:
        """The deliveries a tag means; 0 with `multiple` means all of them."""
        everything = multiple and tag == 0
        if not everything and tag not in self.held:
            raise precondition_failed(f"unknown delivery tag {tag}")
        tags = [tag]
        if multiple:
            tags = [held for held in self.held if everything or held <= tag]
        taken = [self.held.pop(held) for held in tags]
        for delivery in taken:
            if delivery.consumer:
                delivery.consumer.held -= 1
        return taken


def _give_back(deliveries: list[Delivery]) -> None:
    """In the order they were taken, because some queues put them at the end."""
    for delivery in deliveries:
        delivery.queue.give_back(delivery.queued)
    _hand_out(deliveries)


def _hand_out(deliveries: Iterable[Delivery]) -> None:
    """Room was made at their consumers and in their queues: let every queue concerned go on."""
    queues = {id(delivery.queue): delivery.queue for delivery in deliveries}
    for delivery in deliveries:
        for consumer in delivery.consumer.channel.consumers.values() if delivery.consumer else ():
            queues[id(consumer.queue)] = consumer.queue
    for queue in queues.values():
        queue.hand_out()
