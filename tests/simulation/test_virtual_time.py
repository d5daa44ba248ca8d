"""The clock of virtual time jumps to the next timer."""

import asyncio

import pytest

from simulation.virtual_time import DeadlockError, run


async def after(seconds, seen):
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.call_later(seconds, over.set)
    await over.wait()
    seen.append((seconds, loop.time()))


def test_an_hour_takes_no_time_and_timers_fire_in_order():
    seen: list[tuple[float, float]] = []

    async def main():
        async with asyncio.TaskGroup() as group:
            for seconds in (3600, 1, 60):
                group.create_task(after(seconds, seen))

    run(main())  # In real time the test would time out.
    assert seen == [(1, 1.0), (60, 60.0), (3600, 3600.0)]


def test_a_timeout_fires_when_nothing_else_is_ready():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(30)


def test_a_deadlock_is_an_error():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="waits for another one"):
        run(main())
