"""
Compare the effect log of the services with the statuses of the runs.

The services write the effect log without the engine. An effect is lost if a completed order lacks
it, or if a compensated order still has it; it is duplicated if it happened more than once.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from saga_engine.vocabulary import Status

COMPENSATING_EFFECTS = {"reserve": "release", "charge": "refund", "confirm": "cancel"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The number of effects that are missing or left over, and of those that happened twice."""

    lost: int
    duplicated: int


def compare(statuses: Mapping[str, Status], effects: Mapping[str, Counter[str]]) -> Comparison:
    """Check every order that finished, and every order that has an effect."""
    lost = duplicated = 0
    for order_id in statuses.keys() | effects.keys():
        counts = effects.get(order_id, Counter())
        duplicated += sum(count - 1 for count in counts.values() if count > 1)
        for effect, compensating in COMPENSATING_EFFECTS.items():
            net_count = counts[effect] - counts[compensating]
            expected = 1 if statuses.get(order_id) is Status.COMPLETED else 0
            lost += net_count != expected
    return Comparison(lost, duplicated)
