"""
Worker and participant divide `shutdown_timeout` alike, and every wait of their shutdown ends
within it.
"""

import asyncio

import pytest

from saga_engine.participant.service import ParticipantService
from saga_engine.settings import Settings
from saga_engine.shutdown import ShutdownSchedule
from saga_engine.telemetry.events import Emitter, ProcessStopping
from saga_engine.worker.worker import Worker
from tests.kit.events import EventRecorder
from tests.kit.greeter import GreeterParticipant, worker


@pytest.mark.parametrize("shutdown_timeout", [2.0, 25.0, 86_400.0])
@pytest.mark.parametrize("program", ["worker", "participant"])
async def test_the_waits_of_a_shutdown_end_at_its_deadlines(
    migrated_url, rabbitmq_url, monkeypatch, program, shutdown_timeout
):
    loop, deadlines = asyncio.get_running_loop(), list[float | None]()
    timeout_at = asyncio.timeout_at

    def record_deadline(when: float | None) -> asyncio.Timeout:
        deadlines.append(when)
        return timeout_at(when)

    urls = {"database_url": migrated_url, "broker_url": rabbitmq_url}
    settings = Settings(**urls, shutdown_timeout=shutdown_timeout)
    events, stop = EventRecorder(), asyncio.Event()
    created: Worker | ParticipantService = worker(settings, events)
    if program == "participant":
        created = ParticipantService([GreeterParticipant().participant], settings, Emitter(events))
    async with created as service:
        running = loop.create_task(service.run(stop))
        monkeypatch.setattr(asyncio, "timeout_at", record_deadline)
        stop.set()
        await events.wait_for(ProcessStopping)
        started_at = loop.time()
        async with asyncio.timeout(300):
            await running
    work, close = deadlines
    schedule = ShutdownSchedule(shutdown_timeout)
    assert work is not None
    assert close is not None
    assert close - work == pytest.approx(schedule.close_deadline - schedule.work_deadline, abs=1e-6)
    # It counts from when the signal arrives, which is not after `started_at`.
    assert work - schedule.work_deadline <= started_at


@pytest.mark.parametrize("seconds", [0.001, 0.5, 2.0, 10.0, 25.0, 86_400.0])
def test_the_deadlines_of_a_shutdown_are_ordered_within_its_timeout(seconds):
    schedule = ShutdownSchedule(seconds)
    deadlines = [
        schedule.work_deadline,
        schedule.suspect_recording_at,
        schedule.suspect_recording_deadline,
        schedule.close_deadline,
        schedule.exit_deadline,
        seconds,
    ]
    assert deadlines == sorted(deadlines)
    assert deadlines[0] > 0
    assert schedule.work_deadline + schedule.handler_grace_period <= schedule.close_deadline
