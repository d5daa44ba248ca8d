"""The orders of the demo: what each is like, and how it must end."""

from dataclasses import dataclass

from saga_engine.vocabulary import Status


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """One order; `story` is what happens to it, in a few words."""

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
    """About thirty orders, the slow one first."""
    scenarios = (
        (1, "slow", "A1", "the bank is silent: outcome unknown, undone", Status.COMPENSATED),
        (18, "ok", "A1", "everything works", Status.COMPLETED),
        (5, "declined", "A1", "the card is declined: undone in reverse", Status.COMPENSATED),
        (4, "flaky", "A1", "the bank hangs up twice: retried", Status.COMPLETED),
        (2, "ok", "NONE", "out of stock: nothing to undo", Status.COMPENSATED),
    )
    return [
        DemoOrder(
            f"{prefix}-{card if sku != 'NONE' else 'none'}-{number}",
            card,
            sku,
            scenario,
            expected_status,
        )
        for count, card, sku, scenario, expected_status in scenarios
        for number in range(1, count + 1)
    ]
