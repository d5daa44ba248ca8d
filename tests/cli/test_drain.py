"""Worker and participant divide `drain` alike, and every wait of their shutdown ends within it."""

import asyncio

import pytest

from saga_engine.participant.service import Service
from saga_engine.settings import Settings
from saga_engine.shutdown import Drain
from saga_engine.telemetry.events import ProcessDraining, Tell
from saga_engine.worker.worker import Worker
from tests.cli.conftest import Facts
from tests.client.engine import Greeter, worker


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

    settings = Settings(database_url=migrated_url, broker_url=rabbitmq_url, drain=drain)
    facts, stop = Facts(), asyncio.Event()
    made: Worker | Service = worker(settings, facts)
    if program == "participant":
        made = Service([Greeter().participant], settings, Tell(facts))
    async with made as served:
        running = loop.create_task(served.run(stop))
        monkeypatch.setattr(asyncio, "timeout_at", noting)
        stop.set()
        await facts.until(ProcessDraining)
        began = loop.time()
        async with asyncio.timeout(300):
            await running
    work, left = moments
    assert work is not None
    assert left is not None
    assert left - work == pytest.approx(Drain(drain).left - Drain(drain).work, abs=1e-6)
    # Counted from when the signal was heard, which is no later than `began`.
    assert work - Drain(drain).work <= began
