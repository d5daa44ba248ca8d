"""The loop that calls a duty: at once after work, after its interval otherwise, with backoff."""

import asyncio

from saga_engine.telemetry.operations import Operation
from saga_engine.worker import periodic
from saga_engine.worker.periodic import run_periodically

LONG = 3600.0
"""An interval that no test waits for."""


class ScriptedDuty:
    """A duty that returns, or raises, what it is given; it stops the loop with the last one."""

    def __init__(self, *results: bool | Exception) -> None:
        self.results = list(results)
        self.stop = asyncio.Event()
        self.errors: list[tuple[Operation, Exception]] = []

    async def __call__(self) -> bool:
        result = self.results.pop(0)
        if not self.results:
            self.stop.set()
        if isinstance(result, Exception):
            raise result
        return result

    async def run(self, interval: float) -> None:
        await run_periodically(
            Operation.PURGE,
            self,
            interval=interval,
            stop=self.stop,
            on_error=lambda operation, error: self.errors.append((operation, error)),
        )


async def test_a_duty_that_found_work_is_called_again_immediately():
    duty = ScriptedDuty(True, True, False)
    await duty.run(LONG)
    assert duty.results == []


async def test_a_duty_without_work_is_called_again_after_its_interval():
    duty = ScriptedDuty(False, False, False)
    await duty.run(0.001)
    assert duty.results == []


async def test_an_error_is_reported_and_does_not_end_the_loop(monkeypatch):
    monkeypatch.setattr(periodic, "MAX_RETRY_DELAY", 0.001)
    bug = KeyError("a bug")
    duty = ScriptedDuty(bug, bug, True)
    await duty.run(LONG)
    assert duty.errors == [(Operation.PURGE, bug)] * 2


async def test_stop_ends_the_wait_for_the_next_call():
    duty = ScriptedDuty(False, False)
    asyncio.get_running_loop().call_later(0.01, duty.stop.set)
    async with asyncio.timeout(10):
        await duty.run(LONG)
    assert len(duty.results) == 1
