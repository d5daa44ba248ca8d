"""Faults of a RabbitMQ cluster: of a minority of its nodes, and of a majority."""

from random import Random
from typing import Any

from saga_engine.protocol.topology import REPLIES
from tests.faults.cluster import RabbitCluster
from tests.faults.environment import VHOST, FaultEnvironment
from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import RESTART_RESUME_LIMIT_S, Fault
from tests.kit.programs import sleep, wait_until_true

PARTITION_S = 20.0  # Twice as long as nodes wait for a silent one.
OUTAGE_S = 8.0
DECIDE_TIME_S = 1.0  # Time to decide and commit a batch.


def _cluster(environment: FaultEnvironment) -> RabbitCluster:
    cluster: Any = environment.rabbit
    assert isinstance(cluster, RabbitCluster)
    return cluster


async def kill_leader(environment: FaultEnvironment, _random: Random):
    """SIGKILL of the leader of the queue of replies; the others must elect a new one."""
    cluster = _cluster(environment)
    await cluster.wait_until_whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = EventLogWatcher(environment.processes)
    cluster.kill(leader)
    over = await environment.database_now()
    await hearing.wait_for_any("broker_connection.changed", state="connecting")
    return over


async def stop_leader(environment: FaultEnvironment, _random: Random):
    """SIGSTOP of that node, until the others have elected a new leader."""
    cluster = _cluster(environment)
    await cluster.wait_until_whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = EventLogWatcher(environment.processes)
    cluster.pause(leader)
    try:
        await sleep(PARTITION_S)
        assert await cluster.leader(VHOST, REPLIES) is not leader
    finally:
        cluster.resume(leader)
    over = await environment.database_now()
    await hearing.wait_for_any("broker_connection.changed", state="connecting")
    return over


async def kill_majority(environment: FaultEnvironment, random: Random):
    """Without a majority no publish may be confirmed; with it, runs resume."""
    cluster = _cluster(environment)
    await cluster.wait_until_whole()
    await _assert_no_progress_without(random.sample(cluster.nodes, k=2), environment)


async def stop_one_then_kill_the_others(environment: FaultEnvironment, random: Random):
    """
    The only node left has missed the messages of a while.

    It has no majority, so it must not confirm publishes. Messages that only the others had are in
    PostgreSQL.
    """
    cluster = _cluster(environment)
    await cluster.wait_until_whole()
    behind, *others = random.sample(cluster.nodes, k=3)
    cluster.pause(behind)
    try:
        await sleep(PARTITION_S)
    finally:
        cluster.resume(behind)
    await _assert_no_progress_without(others, environment)


async def _assert_no_progress_without(majority, environment: FaultEnvironment):
    hearing = EventLogWatcher(environment.workers)
    for node in majority:
        _cluster(environment).kill(node)
    try:
        await hearing.wait_for_all("broker_connection.changed", connection="publish", problem=".")
        before = await _wait_until_idle(environment)
        await sleep(OUTAGE_S)
        assert await _finished(environment) == before, "runs completed without a majority"
    finally:
        await _cluster(environment).wait_until_whole()


async def partition_leader(environment: FaultEnvironment, _random: Random):
    """A partition between the leader and the two others; only the two continue."""
    cluster = _cluster(environment)
    await cluster.wait_until_whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = EventLogWatcher(environment.processes)
    await cluster.partition(leader)
    await hearing.wait_for_any("broker_connection.changed", state="connecting")
    await sleep(OUTAGE_S)
    await cluster.heal_partition(leader)


async def _wait_until_idle(environment: FaultEnvironment):
    """Wait for replies that the workers already had: they complete runs without a broker."""
    seen = -1

    async def is_still():
        nonlocal seen
        before, seen = seen, await _finished(environment)
        return before == seen

    await wait_until_true(is_still, interval=DECIDE_TIME_S)
    return seen


async def _finished(environment: FaultEnvironment):
    [[number]] = await environment.execute(
        "SELECT count(*) FROM saga_engine.run WHERE status = 'completed'"
    )
    return number


CLUSTER_FAULTS = (
    Fault("cluster: SIGKILL of the leader", kill_leader, times=1),
    Fault("cluster: SIGSTOP of the leader", stop_leader, times=1),
    Fault("cluster: partition of the leader", partition_leader, times=1),
    Fault(
        "cluster: two of three nodes killed",
        kill_majority,
        times=1,
        resume_limit_s=RESTART_RESUME_LIMIT_S,
    ),
    Fault(
        "cluster: one node stopped for 20 s, then the others killed",
        stop_one_then_kill_the_others,
        times=1,
        resume_limit_s=RESTART_RESUME_LIMIT_S,
    ),
)
