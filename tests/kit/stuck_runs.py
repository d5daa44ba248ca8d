"""Runs that wait for an operator."""

from saga_engine.client import Client
from saga_engine.telemetry.events import IncidentOpened

WHY = ("--reason", "the gateway is back", "--operator", "ann")
"""The options that a command needs to resolve an incident."""


async def start_stuck_runs(engine, number=1):
    """Start runs that open an incident; return their ids, the oldest incident first."""
    ids = []
    async with Client(settings=engine.settings) as client:
        for _ in range(number):
            handle = await client.start("stuck", {"name": "Ann"})
            ids.append(str(handle.run_id))
            await engine.events.wait_for_next(IncidentOpened)
    return ids
