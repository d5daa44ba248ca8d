"""What befalls a cluster of RabbitMQ nodes, as long as most of them live, and when they do not."""

from saga_engine.protocol.topology import REPLIES
from tests.faults.environment import VHOST
from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import RESTART_RESUME_LIMIT_S, Fault
from tests.kit.programs import sleep, wait_until_true

PARTITION_S = 20.0  # Twice as long as the nodes take a silent one for living.
OUTAGE_S = 8.0
DECIDE_TIME_S = 1.0  # Seconds in which a batch is decided and committed.


async def kill_leader(environment, _random):
    """SIGKILL of the node that leads the replies; the others must do, with nobody's help."""
    cluster = environment.rabbit
    await cluster.whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = EventLogWatcher(environment.members)
    cluster.kill(leader)
    over = await environment.now()
    await hearing.wait_for_any("broker_connection.changed", state="connecting")
    return over


async def stop_leader(environment, _random):
    """SIGSTOP of that node, until the others have taken it for dead and led on."""
    cluster = environment.rabbit
    await cluster.whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = EventLogWatcher(environment.members)
    cluster.stop(leader)
    try:
        await sleep(PARTITION_S)
        assert await cluster.leader(VHOST, REPLIES) is not leader
    finally:
        cluster.go_on(leader)
    over = await environment.now()
    await hearing.wait_for_any("broker_connection.changed", state="connecting")
    return over


async def kill_majority(environment, random):
    """Without a majority nothing may be confirmed; with it, all goes on."""
    cluster = environment.rabbit
    await cluster.whole()
    await _assert_no_progress_without(random.sample(cluster.nodes, k=2), environment)


async def stop_one_then_kill_the_others(environment, random):
    """
    A node that has missed all that happened for a while is the only one to go on.

    It has no majority, so nothing may be confirmed on the strength of what it remembers; what the
    others had and it had not is in PostgreSQL, should it be lost.
    """
    cluster = environment.rabbit
    await cluster.whole()
    behind, *others = random.sample(cluster.nodes, k=3)
    cluster.stop(behind)
    try:
        await sleep(PARTITION_S)
    finally:
        cluster.go_on(behind)
    await _assert_no_progress_without(others, environment)


async def _assert_no_progress_without(majority, environment):
    hearing = EventLogWatcher(environment.workers)
    for node in majority:
        environment.rabbit.kill(node)
    try:
        await hearing.wait_for_all("broker_connection.changed", connection="publish", problem=".")
        before = await _wait_until_idle(environment)
        await sleep(OUTAGE_S)
        assert await _finished(environment) == before, "runs went on without a majority"
    finally:
        await environment.rabbit.whole()


async def partition_leader(environment, _random):
    """The leading node and the two others take each other for dead; only the two go on."""
    cluster = environment.rabbit
    await cluster.whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = EventLogWatcher(environment.members)
    await cluster.part(leader)
    await hearing.wait_for_any("broker_connection.changed", state="connecting")
    await sleep(OUTAGE_S)
    await cluster.unite(leader)


async def _wait_until_idle(environment):
    """Replies that the workers had by then complete runs without any node."""
    seen = -1

    async def is_still():
        nonlocal seen
        before, seen = seen, await _finished(environment)
        return before == seen

    await wait_until_true(is_still, interval=DECIDE_TIME_S)
    return seen


async def _finished(environment):
    [[number]] = await environment.execute(
        "SELECT count(*) FROM saga_engine.run WHERE status = 'completed'"
    )
    return number


CLUSTER_FAULTS = (
    Fault("cluster: SIGKILL of the leader", kill_leader, times=1),
    Fault("cluster: SIGSTOP of the leader", stop_leader, times=1),
    Fault("cluster: the leader is parted from the others", partition_leader, times=1),
    Fault(
        "cluster: two of three nodes killed",
        kill_majority,
        times=1,
        resume_limit_s=RESTART_RESUME_LIMIT_S,
    ),
    Fault(
        "cluster: one stopped for 20 s, then the others killed",
        stop_one_then_kill_the_others,
        times=1,
        resume_limit_s=RESTART_RESUME_LIMIT_S,
    ),
)
