"""The replies to a run come to one queue, and none is lost when the number of queues changes."""

from collections import defaultdict
from dataclasses import replace

import pytest

from saga_engine.protocol.topology import is_reply_queue, reply_queue, reply_queue_of
from saga_engine.telemetry.events import MessagesConsumed, RunFinished
from saga_engine.vocabulary import Status
from saga_engine.worker.worker_queues import create_consumer
from tests.kit.connections import open_connection, wait_until
from tests.kit.engine import no_reply, succeed

RUNS = 12


async def start_runs(engine, **settings):
    """Runs whose first command is not answered yet: the worker, the participant, the commands."""
    worker, participant, client = (
        await engine.start_worker(**settings),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    for _ in range(RUNS):
        await client.start()
    return worker, participant, await participant.wait_for_commands("parcel.pack", RUNS)


async def test_the_replies_to_a_run_come_to_one_queue_of_several(engine_on_any_broker):
    worker, participant, commands = await start_runs(engine_on_any_broker, reply_queues=4)
    await participant.publish(*(reply for each in commands for reply in succeed(each)))
    await worker.events.wait_for(RunFinished, RUNS, status=Status.COMPLETED)
    used: dict[str, set[str]] = defaultdict(set)
    for each in participant.received:
        used[each.command.run_id].add(each.reply_to)
    assert used == {run_id: {reply_queue_of(run_id, 4)} for run_id in used}
    consumed = {each.queue for each in worker.events.matching(MessagesConsumed)}
    assert set.union(*used.values()) == set(filter(is_reply_queue, consumed))


@pytest.mark.parametrize(("before", "after"), [(4, 1), (4, 2), (1, 4), (2, 4)])
async def test_no_reply_is_lost_when_the_number_of_queues_changes(
    engine_on_any_broker, before, after
):
    worker, participant, commands = await start_runs(engine_on_any_broker, reply_queues=before)
    await worker.stop()
    replies = [reply for each in commands for reply in succeed(each)]
    await participant.publish(*replies[: RUNS // 2])
    worker = await engine_on_any_broker.start_worker(reply_queues=after)
    await participant.publish(*replies[RUNS // 2 :])
    await worker.events.wait_for(RunFinished, RUNS, status=Status.COMPLETED)


async def test_workers_with_different_numbers_consume_the_queues_of_each_other(engine):
    fewer, participant, commands = await start_runs(
        engine, reply_queues=1, broker_topology_check_interval=0.05
    )
    more = await engine.start_worker(reply_queues=4)
    await more.stop()
    replies = [reply for each in commands for reply in succeed(each)]
    await participant.publish(
        *(replace(each, routing_key=reply_queue(at % 4)) for at, each in enumerate(replies))
    )
    await fewer.events.wait_for(RunFinished, RUNS, status=Status.COMPLETED)


async def test_each_worker_gets_the_replies_of_its_queues_and_has_their_runs(engine_on_any_broker):
    settings = {"reply_queues": 4, "broker_topology_check_interval": 0.05}
    first, participant, commands = await start_runs(engine_on_any_broker, **settings)
    second = await engine_on_any_broker.start_worker(**settings)
    sharing = [each.worker._loops._consumer._sharing for each in (first, second)]
    await wait_until(lambda: [len(each.owned) for each in sharing] == [2, 2])
    await participant.publish(*(reply for each in commands for reply in succeed(each)))
    await wait_until(
        lambda: sum(len(each.events.matching(RunFinished)) for each in (first, second)) == RUNS
    )
    for worker, share in zip((first, second), sharing, strict=True):
        finished = {each.run_id for each in worker.events.matching(RunFinished)}
        assert {reply_queue_of(run_id, 4) for run_id in finished} <= share.owned


@pytest.mark.parametrize("count", [1, 2, 7, 32])
async def test_the_prefetch_of_all_queues_of_replies_is_that_of_the_setting(
    development_broker, count
):
    settings = {"reply_queues": count, "reply_prefetch": 500}
    async with open_connection(development_broker.url, **settings) as connection:
        consumer = create_consumer(connection)
        owner = consumer._sharing._shared.owner_prefetch if consumer._sharing else 0
        total = sum(consumer._prefetch[reply_queue(number)] + owner for number in range(count))
        earlier = sum(consumer._prefetch[reply_queue(number)] for number in range(count, 32))
    assert 450 <= total <= 500
    assert earlier <= 500
