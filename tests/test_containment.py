"""User code cancels no task of the engine or of another call, and does not stop the event loop."""

import asyncio
from types import CoroutineType

from saga_engine.containment import guard_event_loop
from tests.kit.misbehaving_participant import (
    turn_of_the_loop,
)


async def test_tasks_that_no_handler_started_are_not_guarded():
    with guard_event_loop():
        task = asyncio.get_running_loop().create_task(turn_of_the_loop())
        coroutine = task.get_coro()
        assert isinstance(coroutine, CoroutineType)
        assert coroutine.__name__ == "turn_of_the_loop"
        await task
    assert asyncio.get_running_loop().get_task_factory() is None
