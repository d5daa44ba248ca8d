"""Kills of processes and servers at random moments, through all that a block does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest

from saga_engine.waiting import wait_for_event
from tests.kit.figures import print_table

Restart = Callable[[], Awaitable[None]]

SHORTEST, LONGEST = 0.2, 2.0
"""Seconds between two kills."""

LONG_APPENDS, MANY_APPENDS = 800, 8_000
"""About 10,000 and 100,000 events by `append_orders`."""

PATIENCE = 1_200.0
"""Seconds for many events through kills, on a loaded machine."""

THROUGHOUT = None
"""Kill until everything has arrived."""


KILL_VARIANTS = (
    pytest.param(LONG_APPENDS, 10, marks=pytest.mark.long),
    pytest.param(MANY_APPENDS, THROUGHOUT, marks=pytest.mark.kills),
)
"""The parameters `appends` and `kills` of a test: a `long` one, and one of `kills`."""


@dataclass
class Kills:
    """How many there were."""

    number: int = 0

    def report(self, what: str, **figures: int) -> None:
        """Print the figures of a test."""
        print_table(what, {"kills": self.number, **figures})


@asynccontextmanager
async def killing(
    restarts: Sequence[Restart], number: int | None, seed: int
) -> AsyncIterator[Kills]:
    """
    Kill one of several every 0.2 to 2 s, and start it again; the block ends after the last kill.

    Args:
        restarts: of a process or a server each; one that is given twice is killed twice as often.
        number: how many kills; THROUGHOUT: until the block ends.
        seed: of the random numbers.
    """
    rng, kills, ended = Random(seed), Kills(), asyncio.Event()
    until = ended if number is THROUGHOUT else asyncio.Event()

    async def kill_often() -> None:
        while kills.number != number:
            if await wait_for_event(until, rng.uniform(SHORTEST, LONGEST)):
                return
            await rng.choice(restarts)()
            kills.number += 1

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill_often())
        try:
            yield kills
        finally:
            ended.set()
