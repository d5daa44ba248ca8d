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

UNDONE_BY = {"reserve": "release", "charge": "refund", "confirm": "cancel"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many effects are missing or left over, and how many happened more than once."""

    lost: int
    doubled: int


def compare(ended: Mapping[str, Status], effects: Mapping[str, Counter[str]]) -> Verdict:
    """Judge every order that ended, and every order that has an effect."""
    lost = doubled = 0
    for order_id in ended.keys() | effects.keys():
        happened = effects.get(order_id, Counter())
        doubled += sum(count - 1 for count in happened.values() if count > 1)
        for effect, undoing in UNDONE_BY.items():
            standing = happened[effect] - happened[undoing]
            expected = 1 if ended.get(order_id) is Status.COMPLETED else 0
            lost += standing != expected
    return Verdict(lost, doubled)
