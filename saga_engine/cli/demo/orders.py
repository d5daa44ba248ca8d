"""The orders of the demo, and the status that the run of each must reach."""

from collections.abc import Mapping
from dataclasses import dataclass

from saga_engine.vocabulary import Json, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOrder:
    """
    One order, which a run of a saga handles.

    Args:
        order_id: also the key of the run.
        saga: its name.
        input: of the saga.
        scenario: what happens to the order, as a sentence.
        expected_status: of its run, when it has ended.
        order_status: of the event-sourced order, when the run has ended; None if it has no events.
    """

    order_id: str
    saga: str
    input: Mapping[str, Json]
    scenario: str
    expected_status: Status
    order_status: str | None = None


def place_orders(prefix: str) -> list[DemoOrder]:
    """Return the orders of the saga place-order, about thirty, the slow one first."""
    scenarios = (
        (1, "slow", "A1", "the bank does not reply in time: compensated", Status.COMPENSATED),
        (18, "ok", "A1", "everything works", Status.COMPLETED),
        (
            5,
            "declined",
            "A1",
            "the card is declined: compensated in reverse order",
            Status.COMPENSATED,
        ),
        (4, "flaky", "A1", "the bank closes the connection twice: retried", Status.COMPLETED),
        (2, "ok", "NONE", "out of stock: nothing to compensate", Status.COMPENSATED),
    )
    return [
        _place_order(
            f"{prefix}-{card if sku != 'NONE' else 'none'}-{number}",
            card,
            sku,
            scenario,
            expected_status,
        )
        for count, card, sku, scenario, expected_status in scenarios
        for number in range(1, count + 1)
    ]


def checkouts(prefix: str) -> list[DemoOrder]:
    """Return the orders of the saga checkout, whose steps append to event-sourced orders."""
    scenarios: tuple[tuple[int, str, str, str, Status, str | None], ...] = (
        (20, "ok", "tea", "the order is paid and confirmed", Status.COMPLETED, "confirmed"),
        (6, "declined", "cup", "not paid: the order is cancelled", Status.COMPENSATED, "cancelled"),
        (2, "ok", "milk", "not sold: the aggregate rejects it", Status.COMPENSATED, None),
    )
    return [
        DemoOrder(
            order_id=f"{prefix}-{item}-{number}",
            saga="checkout",
            input={
                "order_id": f"{prefix}-{item}-{number}",
                "customer": customer(prefix, number),
                "items": {item: number},
                "card": card,
            },
            scenario=scenario,
            expected_status=expected_status,
            order_status=order_status,
        )
        for count, card, item, scenario, expected_status, order_status in scenarios
        for number in range(1, count + 1)
    ]


def customer(prefix: str, number: int) -> str:
    """Return who places the order with this number: each customer places several."""
    return f"{prefix}-{('mara', 'ivo', 'ada')[number % 3]}"


def _place_order(
    order_id: str, card: str, sku: str, scenario: str, expected_status: Status
) -> DemoOrder:
    return DemoOrder(
        order_id=order_id,
        saga="place-order",
        input={
            "order_id": order_id,
            "sku": sku,
            "quantity": 1,
            "amount": "9.90",
            "card": card,
        },
        scenario=scenario,
        expected_status=expected_status,
    )
