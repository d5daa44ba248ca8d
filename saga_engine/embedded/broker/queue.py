"""
A queue: messages in order, the consumers that want them, and the ways a message leaves.

It hands out by itself whenever something changed (a message, room at a consumer, time), to its
consumers in turn. Quorum queues differ in two rules only: they count returns, and put a message
that came back at the end unless they have a delivery limit (RabbitMQ 3.10, #3776).
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

from saga_engine.embedded.broker.arguments import Declaration
from saga_engine.embedded.broker.message import PublishedMessage, QueuedMessage

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
_MAXLEN: Final = "maxlen"
_DELIVERY_LIMIT: Final = "delivery_limit"

_MILLISECOND: Final = 0.001


class Consumer(Protocol):
    """Somebody who takes messages of a queue."""

    def has_room(self) -> bool:
        """Whether it can take one more now."""

    def take(self, queued: QueuedMessage) -> None:
        """Take one; it will settle it, give it back or drop it."""

    def cancelled(self) -> None:
        """The queue is gone."""


class Queue:
    """One queue. `bury(queue, message, reason)` gets what dies, `account` the bytes that change."""

    def __init__(
        self,
        declaration: Declaration,
        owner: object,
        bury: Callable[["Queue", PublishedMessage, str], None],
        account: Callable[[int], None],
    ) -> None:
        self.declaration = declaration
        self.owner = owner  # The connection of an exclusive queue.
        self.consumers: list[Consumer] = []
        self.exclusive_consumer = False
        self._bury = bury
        self._account = account
        self._ready: deque[QueuedMessage] = deque()
        self._ready_bytes = 0
        self._positions = count()
        self._timer: asyncio.TimerHandle | None = None
        self._deleted = False

    def __len__(self) -> int:
        """How many messages are ready."""
        return len(self._ready)

    @property
    def name(self) -> str:
        """Its name."""
        return self.declaration.name

    def subscribe(self, consumer: Consumer, *, exclusive: bool) -> None:
        """Hand out to this consumer too."""
        self.consumers.append(consumer)
        self.exclusive_consumer = exclusive
        self.hand_out()

    def unsubscribe(self, consumer: Consumer) -> None:
        """Hand out to it no more."""
        self.consumers.remove(consumer)
        self.exclusive_consumer = False

    def put(self, message: PublishedMessage) -> bool:
        """Add a message at the end; False when the queue is full and refuses."""
        if self.declaration.overflow != "drop-head" and self._full(message):
            if self.declaration.overflow == "reject-publish-dlx":
                self._bury(self, message, _MAXLEN)
            return False
        self._account(message.size)
        self._append(QueuedMessage(message, next(self._positions), self._expiry(message)))
        self.hand_out()
        while self._ready and self._over():
            self.drop(self._pop(), _MAXLEN)
        return True

    def hand_out(self) -> None:
        """Give what is ready to those who have room, in turn."""
        self._expire()
        while self._ready and (consumer := self._next_consumer()):
            consumer.take(self._pop())
            self._expire()
        self._watch_head()

    def get(self) -> QueuedMessage | None:
        """Take the first message, if there is one."""
        self._expire()
        return self._pop() if self._ready else None

    def settle(self, queued: QueuedMessage) -> None:
        """A message that was taken is done with."""
        self._account(-queued.message.size)

    def drop(self, queued: QueuedMessage, reason: str) -> None:
        """A message that was taken dies: it goes to the dead-letter exchange, if there is one."""
        self.settle(queued)
        if not self._deleted:
            self._bury(self, queued.message, reason)

    def give_back(self, queued: QueuedMessage) -> None:
        """A message that was taken comes back."""
        if self._deleted:
            self.settle(queued)
            return
        queued.redelivered = True
        queued.returns += 1
        limit = self.declaration.number("x-delivery-limit")
        if limit is not None and queued.returns > limit:
            self.drop(queued, _DELIVERY_LIMIT)
        elif self.declaration.quorum and limit is None:
            queued.position = next(self._positions)
            self._append(queued)
        else:
            self._insert(queued)

    def purge(self) -> int:
        """Forget what is ready; return how many that were."""
        purged = len(self._ready)
        while self._ready:
            self.settle(self._pop())
        return purged

    def delete(self) -> int:
        """Forget everything and tell the consumers; return how many messages were ready."""
        self._deleted = True
        for consumer in list(self.consumers):
            consumer.cancelled()
        self.consumers.clear()
        if self._timer:
            self._timer.cancel()
        return self.purge()

    def _next_consumer(self) -> Consumer | None:
        for consumer in self.consumers:
            if consumer.has_room():
                self.consumers.remove(consumer)
                self.consumers.append(consumer)
                return consumer
        return None

    def _full(self, message: PublishedMessage) -> bool:
        length = self.declaration.number("x-max-length")
        size = self.declaration.number("x-max-length-bytes")
        return (length is not None and len(self._ready) >= length) or (
            size is not None and self._ready_bytes + len(message.body) > size
        )

    def _over(self) -> bool:
        length = self.declaration.number("x-max-length")
        size = self.declaration.number("x-max-length-bytes")
        return (length is not None and len(self._ready) > length) or (
            size is not None and self._ready_bytes > size
        )

    def _expiry(self, message: PublishedMessage) -> float | None:
        own = message.raw.expiration
        limits = [self.declaration.number("x-message-ttl"), None if own is None else int(own)]
        lives = [limit for limit in limits if limit is not None]
        now = asyncio.get_running_loop().time()
        return now + min(lives) * _MILLISECOND if lives else None

    def _expire(self) -> None:
        """Drop what is too old at the head, and only there (rabbitmq.com/docs/ttl)."""
        now = asyncio.get_running_loop().time()
        while self._ready and (expires := self._ready[0].expires) is not None and expires < now:
            self.drop(self._pop(), EXPIRED)

    def _watch_head(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._ready and (expires := self._ready[0].expires) is not None:
            self._timer = asyncio.get_running_loop().call_at(expires, self.hand_out)

    def _append(self, queued: QueuedMessage) -> None:
        self._ready.append(queued)
        self._ready_bytes += len(queued.message.body)

    def _insert(self, queued: QueuedMessage) -> None:
        """Put it back at its old place."""
        place = bisect_left(self._ready, queued.position, key=lambda ready: ready.position)
        self._ready.insert(place, queued)
        self._ready_bytes += len(queued.message.body)

    def _pop(self) -> QueuedMessage:
        queued = self._ready.popleft()
        self._ready_bytes -= len(queued.message.body)
        return queued
