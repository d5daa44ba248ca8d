"""The workloads of a seed: an example and random sagas."""

from examples.create_order.sagas import create_order
from examples.place_order.sagas import place_order
from simulation.faults import seeded_random
from simulation.workload import Workload
from tests.kit.random_sagas import random_saga

PLACE_ORDER = Workload(
    place_order,
    {"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "9.90", "card": "ok"},
    {
        "inventory.reserve": {"reservation_id": "r-1"},
        "payment.charge": {"charge_id": "c-1"},
        "order.confirm": {"order_id": "o-1"},
    },
)
CREATE_ORDER = Workload(
    create_order,
    {"order_id": 7, "consumer_id": 1, "restaurant_id": 2, "total": "61.70"},
    {"kitchen.create-ticket": {"ticket_id": 7}},
)


def workloads_for(seed):
    """
    An example and two random sagas, one of them without the barrier.

    Every third seed has a second version of a saga, which is rolled out.
    """
    rng = seeded_random(seed, "plays")
    example = rng.choice([PLACE_ORDER, CREATE_ORDER])
    workloads = [example, _random_workload(rng, "one", True), _random_workload(rng, "two", False)]
    if seed % 3 == 0:
        workloads.append(_random_workload(rng, "one", True, version=2))
    return workloads


def _random_workload(rng, name, barrier, version=1):
    saga = random_saga(rng, name, version)
    replies = {step.action_spec.command: n for n, step in enumerate(saga.steps.values())}
    return Workload(saga, {"n": 1}, replies, barrier)
