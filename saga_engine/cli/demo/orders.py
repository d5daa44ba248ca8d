"""The orders of the demo, and the status that each must reach."""

from dataclasses import dataclass

from saga_engine.vocabulary import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOrder:
    """One order; `scenario` describes what happens to it."""

    order_id: str
    card: str
    sku: str
    scenario: str
    expected_status: Status

    @property
    def input(self) -> dict[str, str | int]:
        """The saga's input."""
        return {
            "order_id": self.order_id,
            "sku": self.sku,
            "quantity": 1,
            "amount": "9.90",
            "card": self.card,
        }


def demo_orders(prefix: str) -> list[DemoOrder]:
    """Return about thirty orders, the slow one first."""
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
        DemoOrder(
            order_id=f"{prefix}-{card if sku != 'NONE' else 'none'}-{number}",
            card=card,
            sku=sku,
            scenario=scenario,
            expected_status=expected_status,
        )
        for count, card, sku, scenario, expected_status in scenarios
        for number in range(1, count + 1)
    ]
