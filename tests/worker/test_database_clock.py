"""The time of the database without asking for it."""

from datetime import UTC, datetime, timedelta

from saga_engine.worker.database_clock import MAX_AGE, DatabaseClock
from simulation.virtual_time import run
from tests.kit.programs import sleep

NOW = datetime(2026, 11, 15, tzinfo=UTC)


def test_the_time_goes_on_with_the_clock_of_the_process_and_is_asked_for_again():
    async def observe() -> list[datetime | None]:
        clock = DatabaseClock()
        times = [clock.now, clock.observe(NOW), clock.now]
        await sleep(2.5)
        times.append(clock.now)
        clock.observe(NOW + timedelta(seconds=1))  # the answer to an older question
        times.append(clock.now)
        clock.observe(NOW - timedelta(hours=1))  # it was set back
        times.append(clock.now)
        await sleep(MAX_AGE + 0.1)
        times.append(clock.now)
        clock.observe(NOW)
        clock.forget()
        times.append(clock.now)
        return times

    assert run(observe()) == [
        None,
        NOW,
        NOW,
        NOW + timedelta(seconds=2.5),
        NOW + timedelta(seconds=2.5),
        NOW - timedelta(hours=1),
        None,
        None,
    ]
