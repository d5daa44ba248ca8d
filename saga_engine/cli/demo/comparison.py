"""
The services' own ledgers, compared with what the engine says.

The ledger knows nothing of the engine: it is what was really done. An effect is lost when an order
that completed lacks it, or when an order that was compensated still has it; it is doubled when it
happened more than once.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from saga_engine.vocabulary import Status

COMPENSATING_EFFECTS = {"reserve": "release", "charge": "refund", "confirm": "cancel"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many effects are missing or left over, and how many happened more than once."""

    lost: int
    duplicated: int


def compare(statuses: Mapping[str, Status], effects: Mapping[str, Counter[str]]) -> Comparison:
    """Judge every order that ended, and every order that has an effect."""
    lost = duplicated = 0
    for order_id in statuses.keys() | effects.keys():
        counts = effects.get(order_id, Counter())
        duplicated += sum(count - 1 for count in counts.values() if count > 1)
        for effect, compensating in COMPENSATING_EFFECTS.items():
            net_count = counts[effect] - counts[compensating]
            expected = 1 if statuses.get(order_id) is Status.COMPLETED else 0
            lost += net_count != expected
    return Comparison(lost, duplicated)
