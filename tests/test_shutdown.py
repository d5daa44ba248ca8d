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
from tests.cli.conftest import EventRecorder
from tests.kit.greeter import GreeterParticipant, worker


@pytest.mark.parametrize("drain", [2.0, 25.0, 86_400.0])
@pytest.mark.parametrize("program", ["worker", "participant"])
async def test_the_waits_of_a_shutdown_are_the_moments_of_its_drain(
    migrated_url, rabbitmq_url, monkeypatch, program, drain
):
    loop, moments = asyncio.get_running_loop(), list[float | None]()
    timeout_at = asyncio.timeout_at

    def noting(when: float | None) -> asyncio.Timeout:
        moments.append(when)
        return timeout_at(when)

    settings = Settings(database_url=migrated_url, broker_url=rabbitmq_url, shutdown_timeout=drain)
    facts, stop = EventRecorder(), asyncio.Event()
    made: Worker | ParticipantService = worker(settings, facts)
    if program == "participant":
        made = ParticipantService([GreeterParticipant().participant], settings, Emitter(facts))
    async with made as served:
        running = loop.create_task(served.run(stop))
        monkeypatch.setattr(asyncio, "timeout_at", noting)
        stop.set()
        await facts.wait_for(ProcessStopping)
        began = loop.time()
        async with asyncio.timeout(300):
            await running
    work, left = moments
    assert work is not None
    assert left is not None
    assert left - work == pytest.approx(
        ShutdownSchedule(drain).close_deadline - ShutdownSchedule(drain).work_deadline, abs=1e-6
    )
    # Counted from when the signal was heard, which is no later than `began`.
    assert work - ShutdownSchedule(drain).work_deadline <= began
