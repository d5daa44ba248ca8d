"""User code cancels no task of the engine or of another call, and does not stop the event loop."""

import asyncio
import sys
from contextvars import copy_context
from types import CoroutineType
from typing import Any

import pytest

from saga_engine.containment import (
    CURRENT_CALL,
    TaskExited,
    guard_event_loop,
    run_until_done,
)
from tests.kit.misbehaving_participant import turn_of_the_loop


def as_user_code(call: object, function: Any) -> Any:
    """Call a function as code of the user's in that call."""
    context = copy_context()
    context.run(CURRENT_CALL.set, call)
    return context.run(function)


async def exit_now() -> None:
    sys.exit(3)


async def test_user_code_cancels_no_task_of_the_engine_and_is_reported():
    reported: list[Any] = []
    with guard_event_loop(lambda *report: reported.append(report), owns_loop=True):
        task = asyncio.get_running_loop().create_task(turn_of_the_loop())
        assert as_user_code("charge", task.cancel) is False
        await task
    assert reported == [
        ("charge", "It cancelled a task that is not its own. Nothing was cancelled.")
    ]


async def test_user_code_does_not_stop_the_loop_and_is_reported():
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    with guard_event_loop(lambda *report: reported.append(report), owns_loop=True):
        as_user_code("charge", loop.stop)
        await turn_of_the_loop()
    assert reported == [("charge", "It stopped the event loop. The loop goes on.")]
    assert "stop" not in vars(loop)


async def test_a_call_cancels_its_own_task_and_those_that_it_started_only():
    with guard_event_loop():
        loop, never = asyncio.get_running_loop(), asyncio.Event()
        context = copy_context()
        context.run(CURRENT_CALL.set, "charge")
        task = loop.create_task(never.wait(), context=context)
        started = as_user_code("charge", lambda: loop.create_task(never.wait()))
        await turn_of_the_loop()
        assert as_user_code("refund", task.cancel) is False
        assert as_user_code("charge", task.cancel) is True
        assert as_user_code("refund", started.cancel) is True
        await asyncio.wait([task, started])
        assert (task.cancelled(), started.cancelled()) == (True, True)


async def test_the_engine_cancels_any_task():
    with guard_event_loop(owns_loop=True):
        task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        assert task.cancel() is True
        await asyncio.wait([task])
        assert task.cancelled()


async def test_a_task_of_user_code_that_exits_does_not_end_the_process():
    with guard_event_loop():
        loop = asyncio.get_running_loop()
        task = as_user_code("charge", lambda: loop.create_task(exit_now()))
        with pytest.raises(TaskExited) as found:
            await task
    assert isinstance(found.value.__cause__, SystemExit)


async def test_a_loop_is_guarded_until_the_last_guard_ends():
    loop = asyncio.get_running_loop()
    with guard_event_loop():
        factory = loop.get_task_factory()
        with guard_event_loop():
            assert loop.get_task_factory() is factory
        assert loop.get_task_factory() is factory
    assert loop.get_task_factory() is None


async def test_tasks_that_no_handler_started_are_not_guarded():
    with guard_event_loop():
        task = asyncio.get_running_loop().create_task(turn_of_the_loop())
        coroutine = task.get_coro()
        assert isinstance(coroutine, CoroutineType)
        assert coroutine.__name__ == "turn_of_the_loop"
        await task
    assert asyncio.get_running_loop().get_task_factory() is None


@pytest.mark.parametrize("stop", [sys.exit, None])
def test_a_stopped_loop_runs_again_until_its_task_is_done(stop):
    stops: list[type[BaseException]] = []
    loop = asyncio.new_event_loop()

    async def work() -> str:
        loop.call_soon(stop or loop.stop)
        await turn_of_the_loop()
        await turn_of_the_loop()
        return "done"

    try:
        task = loop.create_task(work())
        assert run_until_done(loop, task, lambda error: stops.append(type(error))) == "done"
    finally:
        loop.close()
    assert stops == [SystemExit if stop else RuntimeError]


def test_what_the_task_itself_raises_is_raised():
    loop = asyncio.new_event_loop()
    stops: list[BaseException] = []
    try:
        with pytest.raises(SystemExit):
            run_until_done(loop, loop.create_task(exit_now()), stops.append)
    finally:
        loop.close()
    assert stops == []
