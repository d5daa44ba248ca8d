"""An event is waited for, for at most so many seconds."""

import asyncio

from saga_engine.waiting import wait_for_any, wait_for_event


async def test_an_event_that_is_set_ends_the_wait():
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_for_event(event, None)


async def test_the_time_limit_ends_the_wait_for_an_event_that_is_not_set():
    assert not await wait_for_event(asyncio.Event(), 0.001)


async def test_the_first_of_some_events_ends_the_wait_for_any():
    events = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().call_soon(events[1].set)
    async with asyncio.timeout(60.0):
        await wait_for_any(events, 3600.0)
    await wait_for_any([asyncio.Event()], 0.001)
