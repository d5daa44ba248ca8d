"""
How many buffered deliveries are taken into one batch: by number, bytes and JSON values.

A batch is processed and written as a whole, so its size bounds the memory of the process and the
time that other work waits. A small request may need a large answer, which is counted too.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from saga_engine.payload.limits import max_value_count
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.request import is_status_request

NO_LIMIT = 2**62
"""More bytes and values than any batch has."""


@dataclass(frozen=True, slots=True)
class BatchBudget:
    """
    The most bytes and JSON values that the bodies of one batch have; one delivery is always taken.

    `status_answer_bytes` is counted for a request for a run's status, in addition to its body.
    """

    max_bytes: int = NO_LIMIT
    max_values: int = NO_LIMIT
    status_answer_bytes: int = 0


class DeliveryBuffer:
    """
    Deliveries that arrived and are not taken yet.

    Deliveries of the `urgent` queues are taken first. When they fill the budget and leave none for
    the others, the others come first the next time: neither kind waits for more than one batch.
    """

    def __init__(self, urgent: Collection[str]) -> None:
        self._urgent_queues = urgent
        self._urgent_deliveries: deque[Delivery] = deque()
        self._other_deliveries: deque[Delivery] = deque()
        self._others_first = False

    def __len__(self) -> int:
        return len(self._urgent_deliveries) + len(self._other_deliveries)

    def append(self, delivery: Delivery) -> None:
        """Add a delivery that has just arrived."""
        (
            self._urgent_deliveries
            if delivery.queue in self._urgent_queues
            else self._other_deliveries
        ).append(delivery)

    def clear(self) -> None:
        """Drop all of them."""
        self._urgent_deliveries.clear()
        self._other_deliveries.clear()

    def take(self, limit: int, budget: BatchBudget, *, only_urgent: bool) -> list[Delivery]:
        """Remove and return up to `limit` deliveries that the budget allows."""
        batch = _BatchFill(limit, budget)
        if only_urgent:
            batch.take_from(self._urgent_deliveries)
        elif self._others_first:
            batch.take_from(self._other_deliveries)
            batch.take_from(self._urgent_deliveries)
            self._others_first = False
        else:
            batch.take_from(self._urgent_deliveries)
            self._others_first = bool(self._other_deliveries) and not batch.take_from(
                self._other_deliveries
            )
        return batch.taken


class _BatchFill:
    def __init__(self, limit: int, budget: BatchBudget) -> None:
        self.taken: list[Delivery] = []
        self._limit = limit
        self._bytes_left, self._values_left = budget.max_bytes, budget.max_values
        self._budget = budget
        self._full = False

    def take_from(self, deliveries: deque[Delivery]) -> int:
        """Take deliveries from the front while the budget allows; return how many."""
        taken_before = len(self.taken)
        while deliveries and not self._full and len(self.taken) < self._limit:
            self._charge(deliveries[0])
            if not self._full:
                self.taken.append(deliveries.popleft())
        return len(self.taken) - taken_before

    def _charge(self, delivery: Delivery) -> None:
        self._bytes_left -= len(delivery.body) + (
            self._budget.status_answer_bytes if is_status_request(delivery) else 0
        )
        self._values_left -= max_value_count(delivery.body)
        self._full = bool(self.taken) and (self._bytes_left < 0 or self._values_left < 0)
