import json
import re

from saga_engine.protocol import topology
from saga_engine.protocol.topology import (
    ENGINE_TOPOLOGY,
    Topology,
    participant_topology,
    queue_policy,
)


def test_participant_binds_each_of_its_commands():
    found = participant_topology("payment", ["payment.charge", "payment.refund"])
    assert [queue.name for queue in found.queues] == ["saga.participant.payment"]
    assert [(one.exchange, one.binding_key) for one in found.bindings] == [
        ("saga.commands", "payment.charge"),
        ("saga.commands", "payment.refund"),
    ]


def test_policy_is_json_and_omits_the_dead_letter_queue():
    found = json.loads(json.dumps(queue_policy()))
    names = [queue.name for queue in ENGINE_TOPOLOGY.queues] + [
        "saga.participant.x",
        "other.replies",
    ]
    covered = [name for name in names if re.search(found["pattern"], name)]
    assert covered == ["saga.replies", "saga.requests", "saga.participant.x"]
    assert found["definition"]["delivery-limit"] == 20


def test_empty_topology_declares_nothing():
    assert Topology() == Topology((), (), ())
    assert topology.DEAD_LETTERS == "saga.dead-letters"
