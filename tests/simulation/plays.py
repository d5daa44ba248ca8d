"""What is simulated: the examples and random sagas, chosen by the seed."""

from examples.create_order.sagas import create_order
from examples.place_order.sagas import orders
from simulation.faults import dice
from simulation.workload import Play
from tests.saga.random_sagas import random_saga

PLACE_ORDER = Play(
    orders,
    {"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "9.90", "card": "ok"},
    {
        "inventory.reserve": {"reservation_id": "r-1"},
        "payment.charge": {"charge_id": "c-1"},
        "order.confirm": {"order_id": "o-1"},
    },
)
CREATE_ORDER = Play(
    create_order,
    {"order_id": 7, "consumer_id": 1, "restaurant_id": 2, "total": "61.70"},
    {"kitchen.create-ticket": {"ticket_id": 7}},
)


def plays_of(seed):
    """
    Three plays: an example and two random sagas, one of them without the barrier.

    Every third seed has a second version of one of them, which is rolled out.
    """
    by_lot = dice(seed, "plays")
    example = by_lot.choice([PLACE_ORDER, CREATE_ORDER])
    plays = [example, _random(by_lot, "one", True), _random(by_lot, "two", False)]
    if seed % 3 == 0:
        plays.append(_random(by_lot, "one", True, version=2))
    return plays


def _random(by_lot, name, barrier, version=1):
    saga = random_saga(by_lot, name, version)
    replies = {step.action.command: n for n, step in enumerate(saga.steps.values())}
    return Play(saga, {"n": 1}, replies, barrier)
