"""
How much of what has arrived is taken into one batch: deliveries, and the bytes and values of them.

A batch is computed and written as a whole, so what it holds bounds the memory of a process and how
long everything else waits. A small message may ask for a large answer: that is counted too.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from saga_engine.payload.limits import likely_values
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.request import is_status

ENOUGH = 2**62
"""More bytes and values than there are."""


@dataclass(frozen=True, slots=True)
class Room:
    """
    The bytes and values of the bodies in one batch, at most; a first delivery always has room.

    `answer` is how many bytes the answer to a question for a run's status counts.
    """

    bytes: int = ENOUGH
    values: int = ENOUGH
    answer: int = 0


class Arrived:
    """
    Deliveries that arrived and were not taken yet.

    Those of the `urgent` queues are taken first. When they leave no room for any of the others that
    were there, the others come first the next time: neither waits for more than one batch.
    """

    def __init__(self, urgent: Collection[str]) -> None:
        self._names = urgent
        self._urgent: deque[Delivery] = deque()
        self._others: deque[Delivery] = deque()
        self._passed_over = False

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def append(self, delivery: Delivery) -> None:
        """Add one that has just arrived."""
        (self._urgent if delivery.queue in self._names else self._others).append(delivery)

    def clear(self) -> None:
        """Forget them all."""
        self._urgent.clear()
        self._others.clear()

    def take(self, limit: int, room: Room, *, only_urgent: bool) -> list[Delivery]:
        """Take out up to *limit* for which there is room."""
        taking = _Taking(limit, room)
        if only_urgent:
            taking.of(self._urgent)
        elif self._passed_over:
            taking.of(self._others)
            taking.of(self._urgent)
            self._passed_over = False
        else:
            taking.of(self._urgent)
            self._passed_over = bool(self._others) and not taking.of(self._others)
        return taking.taken


class _Taking:
    def __init__(self, limit: int, room: Room) -> None:
        self.taken: list[Delivery] = []
        self._limit = limit
        self._bytes, self._values = room.bytes, room.values
        self._room = room
        self._full = False

    def of(self, deliveries: deque[Delivery]) -> int:
        """Take from the front what there is room for; how many."""
        before = len(self.taken)
        while deliveries and not self._full and len(self.taken) < self._limit:
            self._count(deliveries[0])
            if not self._full:
                self.taken.append(deliveries.popleft())
        return len(self.taken) - before

    def _count(self, delivery: Delivery) -> None:
        self._bytes -= len(delivery.body) + (self._room.answer if is_status(delivery) else 0)
        self._values -= likely_values(delivery.body)
        self._full = bool(self.taken) and (self._bytes < 0 or self._values < 0)
