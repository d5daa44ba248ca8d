"""An aggregate's function that does not return is interrupted, or at least named."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine.errors import DecisionFailed, UnreadableEvent
from saga_engine.events import Aggregate, Append, EventData, Events, handle_in
from saga_engine.events.aggregates.command_time_limit import CommandTimeLimit
from saga_engine.events.event_store.event_types import event_code_call
from saga_engine.payload.guard import UserCodeError, call_user_code
from saga_engine.settings import Settings

LIMIT_S = 0.1
SETTINGS = Settings(mapping_timeout=LIMIT_S)
CALL = event_code_call("place", "orders.py:1", "Place")


class Job(BaseModel):
    """A state."""


class Done(BaseModel):
    """An event."""


class Wait(BaseModel):
    """A command that waits."""


jobs = Aggregate("job", state=Job)


def wait_long() -> None:
    """Wait in C, which a signal interrupts."""
    threading.Event().wait(600)


def wait_a_little() -> None:
    """Return after the limit."""
    threading.Event().wait(LIMIT_S * 2)


@jobs.event("job-done")
def done(job: Job, _: Done) -> Job:
    wait_long()
    return job


@jobs.command
def hang(_job: Job, _command: Wait) -> Done:
    wait_long()
    return Done()


async def test_a_command_that_does_not_return_is_interrupted_and_named(
    event_url: str, user_engine: AsyncEngine
):
    async with Events(event_url, settings=SETTINGS) as events:
        with pytest.raises(DecisionFailed, match=r"hang did not return within 0\.1 s and was "):
            await events.handle(jobs, "1", Wait())
    async with user_engine.begin() as connection:
        with pytest.raises(DecisionFailed, match=r"hang did not return within 0\.1 s and was "):
            await handle_in(connection, jobs, "1", Wait(), settings=SETTINGS)


async def test_a_fold_that_does_not_return_is_interrupted_and_named(event_url: str):
    async with Events(event_url, settings=SETTINGS) as events:
        await events.append(Append("job-1", [EventData("job-done", 1, {})]))
        with pytest.raises(UnreadableEvent, match=r"done did not return within 0\.1 s and was "):
            await events.handle(jobs, "1", Wait())


def call_in_thread(function: Callable[[], None]) -> None:
    """Call it under the limit in another thread, where no signal handler runs."""

    def call() -> None:
        limit = CommandTimeLimit(LIMIT_S)
        with limit.interrupting():
            call_user_code(limit, CALL, function)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def test_a_call_in_another_thread_is_refused_when_it_returns_too_late():
    with pytest.raises(
        UserCodeError, match=r"orders\.py:1 took 0\.\d+ s, and mapping_timeout"
    ) as late:
        call_in_thread(wait_a_little)
    assert late.value.call is CALL
    call_in_thread(lambda: None)


def test_a_call_within_another_is_a_part_of_it():
    limit = CommandTimeLimit(LIMIT_S)

    def outer() -> None:
        call_user_code(limit, event_code_call("inner", "x.py:1", ""), wait_a_little)

    with pytest.raises(UserCodeError) as late:
        call_user_code(limit, CALL, outer)
    assert late.value.call is CALL
