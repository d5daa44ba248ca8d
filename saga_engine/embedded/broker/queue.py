"""
A queue: its messages in order, its consumers, and how messages leave it.

A queue dispatches messages to its consumers in turn whenever a message, capacity of a consumer or
an expiration arrives. Quorum queues differ in two rules: they count redeliveries, and they requeue
a message at the end unless they have a delivery limit (RabbitMQ 3.10, #3776).
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

from saga_engine.embedded.broker.arguments import QueueDeclaration
from saga_engine.embedded.broker.message import PublishedMessage, QueuedMessage

REJECTED_REASON: Final = "rejected"
EXPIRED_REASON: Final = "expired"
_MAXLEN_REASON: Final = "maxlen"
_DELIVERY_LIMIT_REASON: Final = "delivery_limit"

_SECONDS_PER_MILLISECOND: Final = 0.001


class QueueConsumer(Protocol):
    """A consumer of a queue; those with the highest priority get messages first."""

    @property
    def priority(self) -> int:
        """0 unless the consumer has named one."""

    def has_capacity(self) -> bool:
        """Whether the consumer can take another message now."""

    def deliver(self, queued_message: QueuedMessage) -> None:
        """Take a message; the consumer later releases, requeues or dead-letters it."""

    def notify_cancelled(self) -> None:
        """The queue was deleted."""


class Queue:
    """One queue; callbacks receive dead-lettered messages and changes of the memory used."""

    def __init__(
        self,
        declaration: QueueDeclaration,
        owner: object,
        on_dead_letter: Callable[["Queue", PublishedMessage, str], None],
        on_memory_change: Callable[[int], None],
    ) -> None:
        self.declaration = declaration
        self.owner = owner  # The connection of an exclusive queue.
        self.consumers: list[QueueConsumer] = []
        self.has_exclusive_consumer = False
        self._on_dead_letter = on_dead_letter
        self._on_memory_change = on_memory_change
        self._ready: deque[QueuedMessage] = deque()
        self._ready_bytes = 0
        self._positions = count()
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._deleted = False

    def __len__(self) -> int:
        """The number of messages that are ready."""
        return len(self._ready)

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.declaration.name

    def subscribe(self, consumer: QueueConsumer, *, exclusive: bool) -> None:
        """Add a consumer."""
        self.consumers.append(consumer)
        self.has_exclusive_consumer = exclusive
        self.dispatch()

    def unsubscribe(self, consumer: QueueConsumer) -> None:
        """Remove a consumer."""
        self.consumers.remove(consumer)
        self.has_exclusive_consumer = False

    def enqueue(self, message: PublishedMessage) -> bool:
        """Append a message; False if the queue is full and rejects it."""
        if self.declaration.overflow != "drop-head" and self._would_exceed_limit(message):
            if self.declaration.overflow == "reject-publish-dlx":
                self._on_dead_letter(self, message, _MAXLEN_REASON)
            return False
        self._on_memory_change(message.memory_size)
        self._append(
            QueuedMessage(
                message=message,
                position=next(self._positions),
                expires=self._expires_at(message),
            )
        )
        self.dispatch()
        while self._ready and self._exceeds_limit():
            self.dead_letter(self._pop(), _MAXLEN_REASON)
        return True

    def dispatch(self) -> None:
        """Deliver ready messages to consumers with capacity, in turn."""
        self._expire_head()
        while self._ready and (consumer := self._next_consumer()):
            consumer.deliver(self._pop())
            self._expire_head()
        self._schedule_expiry()

    def get(self) -> QueuedMessage | None:
        """Take the first ready message, or None."""
        self._expire_head()
        return self._pop() if self._ready else None

    def release(self, queued_message: QueuedMessage) -> None:
        """Remove a message that was taken."""
        self._on_memory_change(-queued_message.message.memory_size)

    def dead_letter(self, queued_message: QueuedMessage, reason: str) -> None:
        """Send a message that was taken to the dead-letter exchange, if there is one."""
        self.release(queued_message)
        if not self._deleted:
            self._on_dead_letter(self, queued_message.message, reason)

    def requeue(self, queued_message: QueuedMessage) -> None:
        """Put a message that was taken back."""
        if self._deleted:
            self.release(queued_message)
            return
        queued_message.redelivered = True
        queued_message.requeue_count += 1
        limit = self.declaration.integer_argument("x-delivery-limit")
        if limit is not None and queued_message.requeue_count > limit:
            self.dead_letter(queued_message, _DELIVERY_LIMIT_REASON)
        elif self.declaration.is_quorum and limit is None:
            queued_message.position = next(self._positions)
            self._append(queued_message)
        else:
            self._insert(queued_message)

    def purge(self) -> int:
        """Remove the ready messages; return their number."""
        purged_count = len(self._ready)
        while self._ready:
            self.release(self._pop())
        return purged_count

    def delete(self) -> int:
        """Remove everything and notify the consumers; return the number of ready messages."""
        self._deleted = True
        for consumer in list(self.consumers):
            consumer.notify_cancelled()
        self.consumers.clear()
        if self._expiry_timer:
            self._expiry_timer.cancel()
        return self.purge()

    def _next_consumer(self) -> QueueConsumer | None:
        if self.declaration.has_single_active_consumer:
            active = self.consumers[0] if self.consumers else None
            return active if active and active.has_capacity() else None
        with_capacity = [each for each in self.consumers if each.has_capacity()]
        if not with_capacity:
            return None
        consumer = max(with_capacity, key=lambda each: each.priority)  # the first of equal ones
        self.consumers.remove(consumer)
        self.consumers.append(consumer)
        return consumer

    def _would_exceed_limit(self, message: PublishedMessage) -> bool:
        length = self.declaration.integer_argument("x-max-length")
        size = self.declaration.integer_argument("x-max-length-bytes")
        return (length is not None and len(self._ready) >= length) or (
            size is not None and self._ready_bytes + len(message.body) > size
        )

    def _exceeds_limit(self) -> bool:
        length = self.declaration.integer_argument("x-max-length")
        size = self.declaration.integer_argument("x-max-length-bytes")
        return (length is not None and len(self._ready) > length) or (
            size is not None and self._ready_bytes > size
        )

    def _expires_at(self, message: PublishedMessage) -> float | None:
        message_ttl = message.raw_properties.expiration
        ttls = [
            self.declaration.integer_argument("x-message-ttl"),
            None if message_ttl is None else int(message_ttl),
        ]
        finite_ttls = [limit for limit in ttls if limit is not None]
        now = asyncio.get_running_loop().time()
        return now + min(finite_ttls) * _SECONDS_PER_MILLISECOND if finite_ttls else None

    def _expire_head(self) -> None:
        """Drop expired messages at the head, and only there (rabbitmq.com/docs/ttl)."""
        now = asyncio.get_running_loop().time()
        while self._ready and (expires := self._ready[0].expires) is not None and expires < now:
            self.dead_letter(self._pop(), EXPIRED_REASON)

    def _schedule_expiry(self) -> None:
        if self._expiry_timer:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        if self._ready and (expires := self._ready[0].expires) is not None:
            self._expiry_timer = asyncio.get_running_loop().call_at(expires, self.dispatch)

    def _append(self, queued_message: QueuedMessage) -> None:
        self._ready.append(queued_message)
        self._ready_bytes += len(queued_message.message.body)

    def _insert(self, queued_message: QueuedMessage) -> None:
        """Insert a message at its original position."""
        index = bisect_left(self._ready, queued_message.position, key=lambda ready: ready.position)
        self._ready.insert(index, queued_message)
        self._ready_bytes += len(queued_message.message.body)

    def _pop(self) -> QueuedMessage:
        queued_message = self._ready.popleft()
        self._ready_bytes -= len(queued_message.message.body)
        return queued_message
