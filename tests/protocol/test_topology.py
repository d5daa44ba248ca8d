import json
import re
from collections import Counter

from saga_engine.identifiers import uuid7
from saga_engine.protocol import topology
from saga_engine.protocol.topology import (
    REPLIES,
    Topology,
    engine_topology,
    is_reply_queue,
    participant_topology,
    queue_policy,
    reply_queue,
    reply_queue_of,
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
    names = [queue.name for queue in engine_topology(2).queues] + [
        "saga.participant.x",
        "other.replies",
    ]
    covered = [name for name in names if re.search(found["pattern"], name)]
    assert covered == ["saga.replies", "saga.replies.1", "saga.requests", "saga.participant.x"]
    assert found["definition"]["delivery-limit"] == 20


def test_empty_topology_declares_nothing():
    assert Topology() == Topology((), (), ())
    assert topology.DEAD_LETTERS == "saga.dead-letters"


def test_replies_to_a_run_come_to_the_same_queue_in_every_process_and_version():
    """The values are part of the contract between the workers of a rolling upgrade."""
    runs = [f"0198c0de-0000-7000-8000-00000000000{number}" for number in range(5)]
    numbers = [3, 1, 3, 1, 2]
    assert [reply_queue_of(run_id, 4) for run_id in runs] == list(map(reply_queue, numbers))
    assert {reply_queue_of(run_id, 1) for run_id in runs} == {REPLIES}


def test_runs_are_spread_over_the_queues_of_replies():
    queues = Counter(reply_queue_of(str(uuid7()), 8) for _ in range(8000))
    assert set(queues) == {reply_queue(number) for number in range(8)}
    assert min(queues.values()) > 800


def test_a_queue_of_replies_is_known_by_its_name():
    assert all(is_reply_queue(reply_queue(number)) for number in (0, 1, 10, 31))
    others = (
        "saga.replies.",
        "saga.replies.01",
        "saga.replies.x",
        "saga.replies2",
        "saga.requests",
    )
    assert not any(map(is_reply_queue, others))


def test_each_queue_of_replies_is_bound_by_its_name():
    bindings = [each for each in engine_topology(3).bindings if each.exchange == REPLIES]
    assert [each.queue for each in bindings] == ["saga.replies", "saga.replies.1", "saga.replies.2"]
    assert all(each.binding_key == each.queue for each in bindings)
