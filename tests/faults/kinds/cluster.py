"""What befalls a cluster of RabbitMQ nodes, as long as most of them live, and when they do not."""

from saga_engine.protocol.topology import REPLIES
from tests.faults.fault import RESTART_RESUMES_S, Fault
from tests.faults.hearing import Hearing
from tests.faults.processes import eventually, lasting
from tests.faults.site import VHOST

SILENT_S = 20.0  # Twice as long as the nodes take a silent one for living.
OUTAGE_S = 8.0
IN_HAND_S = 1.0  # Seconds in which a batch is decided and committed.


async def kill_leader(site, _random):
    """SIGKILL of the node that leads the replies; the others must do, with nobody's help."""
    cluster = site.rabbit
    await cluster.whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = Hearing(site.members)
    cluster.kill(leader)
    over = await site.now()
    await hearing.anyone("link.changed", phase="connecting")
    return over


async def stop_leader(site, _random):
    """SIGSTOP of that node, until the others have taken it for dead and led on."""
    cluster = site.rabbit
    await cluster.whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = Hearing(site.members)
    cluster.stop(leader)
    try:
        await lasting(SILENT_S)
        assert await cluster.leader(VHOST, REPLIES) is not leader
    finally:
        cluster.go_on(leader)
    over = await site.now()
    await hearing.anyone("link.changed", phase="connecting")
    return over


async def kill_two(site, random):
    """Without a majority nothing may be confirmed; with it, all goes on."""
    cluster = site.rabbit
    await cluster.whole()
    await _nothing_goes_on_without(random.sample(cluster.nodes, k=2), site)


async def stop_one_then_kill_the_others(site, random):
    """
    A node that has missed all that happened for a while is the only one to go on.

    It has no majority, so nothing may be confirmed on the strength of what it remembers; what the
    others had and it had not is in PostgreSQL, should it be lost.
    """
    cluster = site.rabbit
    await cluster.whole()
    behind, *others = random.sample(cluster.nodes, k=3)
    cluster.stop(behind)
    try:
        await lasting(SILENT_S)
    finally:
        cluster.go_on(behind)
    await _nothing_goes_on_without(others, site)


async def _nothing_goes_on_without(majority, site):
    hearing = Hearing(site.workers)
    for node in majority:
        site.rabbit.kill(node)
    try:
        await hearing.everyone("link.changed", role="publish", problem=".")
        before = await _finished_with_what_is_in_hand(site)
        await lasting(OUTAGE_S)
        assert await _finished(site) == before, "runs went on without a majority"
    finally:
        await site.rabbit.whole()


async def part_leader(site, _random):
    """The leading node and the two others take each other for dead; only the two go on."""
    cluster = site.rabbit
    await cluster.whole()
    leader = await cluster.leader(VHOST, REPLIES)
    hearing = Hearing(site.members)
    await cluster.part(leader)
    await hearing.anyone("link.changed", phase="connecting")
    await lasting(OUTAGE_S)
    await cluster.unite(leader)


async def _finished_with_what_is_in_hand(site):
    """Replies that the workers had by then complete runs without any node."""
    seen = -1

    async def is_still():
        nonlocal seen
        before, seen = seen, await _finished(site)
        return before == seen

    await eventually(is_still, every=IN_HAND_S)
    return seen


async def _finished(site):
    [[number]] = await site.execute(
        "SELECT count(*) FROM saga_engine.run WHERE status = 'completed'"
    )
    return number


CLUSTER_FAULTS = (
    Fault("cluster: SIGKILL of the leader", kill_leader, times=1),
    Fault("cluster: SIGSTOP of the leader", stop_leader, times=1),
    Fault("cluster: the leader is parted from the others", part_leader, times=1),
    Fault("cluster: two of three nodes killed", kill_two, times=1, resumes_s=RESTART_RESUMES_S),
    Fault(
        "cluster: one stopped for 20 s, then the others killed",
        stop_one_then_kill_the_others,
        times=1,
        resumes_s=RESTART_RESUMES_S,
    ),
)
