"""A task yields to the event loop once its timeslice is over, and not before."""

import asyncio

from saga_engine.worker import timeslice
from saga_engine.worker.timeslice import Timeslice


async def ran_before_the_yield(slice_seconds: float, monkeypatch) -> bool:
    """Whether another task that is ready runs when a timeslice of that length is checked."""
    monkeypatch.setattr(timeslice, "SLICE_SECONDS", slice_seconds)
    ran = asyncio.Event()
    current = Timeslice()
    asyncio.get_running_loop().call_soon(ran.set)
    await current.yield_if_over()
    return ran.is_set()


async def test_a_timeslice_that_is_over_lets_other_tasks_run(monkeypatch):
    assert await ran_before_the_yield(0.0, monkeypatch)


async def test_a_timeslice_that_is_not_over_does_not_yield(monkeypatch):
    assert not await ran_before_the_yield(3600.0, monkeypatch)
