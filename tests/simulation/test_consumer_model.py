"""The model of a consumer shares queues out, and delivers to standbys, as RabbitMQ does."""

import asyncio

import pytest

from saga_engine.amqp.queue_sharing import SharedQueues
from saga_engine.protocol.topology import REPLIES, REQUESTS, engine_topology, reply_queue
from simulation import virtual_time
from simulation.broker_model import BrokerModel, PublisherModel
from simulation.config import SimulationConfig
from simulation.consumer_model import SHARING_INTERVAL_S, ConsumedQueues, ConsumerModel
from simulation.faults import FaultInjector, seeded_random
from simulation.process import SimulatedProcess
from simulation.rollout import ROLLBACK_AT_S, ROLLOUT_AT_S, Rollout
from simulation.world import simulate
from tests.kit.messages import make_message
from tests.kit.programs import sleep
from tests.simulation.workloads import PLACE_ORDER

NAMES = tuple(map(reply_queue, range(4)))
SHARED = SharedQueues(names=NAMES, owner_prefetch=2, counted_queue=REQUESTS)


class Processes:
    """Processes on one broker with four queues of replies."""

    def __init__(self):
        self.broker = BrokerModel(seeded_random(0, "network"))
        self.broker.declare(engine_topology(4))

    def start(self, names=(*NAMES, REQUESTS), **changes):
        queues = ConsumedQueues(names=names, prefetch=2, urgent=NAMES, **changes)
        return ConsumerModel(self.broker, self._process(), queues)

    async def publish(self, name, count):
        publisher = PublisherModel(self.broker, self._process(), 5.0)
        await publisher.publish([make_message(name, exchange=REPLIES) for _ in range(count)])
        await sleep(1.0)

    def _process(self):
        return SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))


def test_processes_share_the_queues_out():
    async def share():
        processes = Processes()
        consumers = [processes.start(shared=SHARED) for _ in range(2)]
        await sleep(20 * SHARING_INTERVAL_S)
        owners = [list(processes.broker.queues[name].owners) for name in NAMES]
        assert sorted(owners.count([each]) for each in consumers) == [2, 2]
        consumers[0]._close()
        await sleep(20 * SHARING_INTERVAL_S)
        assert all(list(processes.broker.queues[name].owners) == consumers[1:] for name in NAMES)

    virtual_time.run(share())


def test_a_standby_gets_what_the_owner_has_no_room_for():
    async def deliver():
        processes = Processes()
        standby, owner = processes.start(), processes.start()
        processes.broker.queues[NAMES[1]].owners[owner] = None
        await processes.publish(NAMES[1], 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await standby.take(10)
        assert len(await owner.take(10)) == 2
        assert len(await standby.take(10)) == 1
        await owner.stop()
        await processes.publish(NAMES[1], 1)
        assert len(await standby.take(10)) == 1

    virtual_time.run(deliver())


def test_an_optional_queue_is_consumed_if_it_exists():
    async def deliver():
        processes = Processes()
        consumer = processes.start([REPLIES], optional=[NAMES[3], reply_queue(5)])
        await processes.publish(NAMES[3], 1)
        assert [each.queue for each in await consumer.take(10)] == [NAMES[3]]

    virtual_time.run(deliver())


def test_the_number_of_queues_changes_at_each_stage():
    rollout = Rollout([PLACE_ORDER], 100.0, (4, 1))
    times = (0.0, ROLLOUT_AT_S, ROLLBACK_AT_S, 100.0)
    assert [rollout.reply_queues_at(each) for each in times] == [4, 1, 1, 1]
    assert Rollout([PLACE_ORDER], 100.0).restart_times == ()


def test_every_promise_holds_while_the_number_of_queues_changes():
    config = SimulationConfig(seed=1, runs=20, reply_queues=(3, 5, 2, 1))
    outcome = simulate(config, [PLACE_ORDER])
    assert not outcome.violations
    assert outcome.counts["stops"] >= 6
