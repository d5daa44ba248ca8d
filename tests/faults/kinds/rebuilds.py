"""
Rebuilds of a projection during other faults: an operator rebuilds it, switches, and may go back.

The other fault is injected again and again while the operator is at work.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

from tests.faults.environment import FaultEnvironment, projectors_of
from tests.faults.fault import RESTART_RESUME_LIMIT_S, Fault
from tests.faults.kinds import postgres, projectors, transactions
from tests.faults.rebuild_operator import RebuildOperator
from tests.kit.programs import sleep

INTERVAL_S, RESTART_INTERVAL_S = (0.5, 3.0), (3.0, 6.0)
"""The shortest and the longest time between two of the other faults."""

MAX_FAULTS = 5  # Then the operator finishes without any: a switch needs both versions up to date.


async def rebuild(
    inject: Callable[[FaultEnvironment, Random], Awaitable[object]],
    interval_s: tuple[float, float],
    environment: FaultEnvironment,
    random: Random,
    *,
    back: bool = False,
):
    """Rebuild and switch, and perhaps switch back, while another fault is injected repeatedly."""
    operator = RebuildOperator(environment)
    reads, faults = environment.table_reader.reads, 0
    async with asyncio.TaskGroup() as group:
        finished = group.create_task(operator.rebuild_and_switch(back=back))
        while not finished.done() and faults < MAX_FAULTS:
            await inject(environment, random)
            faults += 1
            await sleep(random.uniform(*interval_s))
    over = await environment.database_now()
    for member in environment.projectors:
        await member.wait_until_ready()
    assert environment.table_reader.reads > reads, "nothing has read the tables"
    return over


async def _kill_one(environment: FaultEnvironment, random: Random):
    await random.choice(environment.projectors).program.kill()


_killed = partial(rebuild, _kill_one, INTERVAL_S)
_commits_lost = partial(transactions.lose_commit_answers, projectors_of)

FAULTS = (
    Fault("a rebuild switched while projectors are killed", _killed, times=1, ci_times=1),
    Fault(
        "a rebuild switched back while projectors are killed", partial(_killed, back=True), times=1
    ),
    Fault(
        "a rebuild switched while projectors are stopped",
        partial(rebuild, projectors.pause, INTERVAL_S),
        times=1,
    ),
    Fault(
        "a rebuild switched while sessions are terminated",
        partial(rebuild, postgres.end_every_session, INTERVAL_S),
        times=1,
    ),
    Fault(
        "a rebuild switched while COMMIT answers are lost",
        partial(rebuild, _commits_lost, INTERVAL_S),
        times=1,
    ),
    Fault(
        "a rebuild switched while PostgreSQL is killed",
        partial(rebuild, postgres.kill, RESTART_INTERVAL_S),
        times=1,
        resume_limit_s=RESTART_RESUME_LIMIT_S,
    ),
)
