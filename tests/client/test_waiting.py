"""Waiting until a run is finished, and what is reported meanwhile."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from saga_engine.client import Client
from saga_engine.errors import (
    NotFound,
    NotStarted,
    TimedOut,
)
from saga_engine.identifiers import uuid7
from saga_engine.store import pending_requests
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.vocabulary import Status
from tests.kit.greeter import ANN


@pytest.mark.usefixtures("greeter")
async def test_waiting_for_an_unknown_run_ends_after_the_client_timeout(settings):
    hasty = settings.model_copy(update={"client_timeout": 0.5})
    async with Client(settings=hasty) as client:
        with pytest.raises(NotFound, match="There is no run"):
            await client.result(uuid7())


@pytest.mark.usefixtures("greeter")
async def test_an_accepted_start_that_waits_is_awaited_without_limit(settings):
    """The start named no version, so the answer says only that it is there."""
    run_id, hasty = uuid7(), settings.model_copy(update={"client_timeout": 0.5})
    waits = NewRequest(
        kind=RequestKind.START,
        run_id=str(run_id),
        body={"input": ANN},
        saga="greet",
        delay=timedelta(seconds=1.5),
    )
    async with (
        Database(settings.require_database_url(), settings) as database,
        Client(settings=hasty) as client,
    ):
        async with database.transaction() as tx:
            await pending_requests.record(tx, [waits])
        with pytest.raises(NotStarted, match="has not started yet"):
            await client.status(run_id)
        assert (await client.result(run_id, timeout=60)).status is Status.COMPLETED


async def test_waiting_times_out_and_the_run_continues(client, greeter):
    handle = await client.start("held", ANN)
    with pytest.raises(TimedOut, match=r"not finished after 0\.3 seconds; it goes on"):
        await client.result(handle.run_id, timeout=0.3)
    greeter.may_finish.set()
    assert (await client.result(handle.run_id, timeout=20)).status is Status.COMPLETED


async def test_a_client_is_notified_that_its_run_waits_for_a_person(client):
    handle = await client.start("stuck", {"name": "secret-name"})
    seen: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        result = client.result(handle.run_id, on_incident=seen.put_nowait)
        waiting = group.create_task(result)
        ending = await seen.get()
        waiting.cancel()
    assert (ending.status, ending.open_incidents) == (Status.RUNNING, 1)
    incident = ending.incident
    assert (incident.number, incident.step, incident.cause) == (1, "lose", "unroutable")
    assert await client.status(handle.run_id) == ending
    with pytest.raises(TimedOut) as raised:
        await client.result(handle.run_id, timeout=1)
    text = str(raised.value)
    assert f"it waits for a person, incident {handle.run_id}/1: unroutable at step lose" in text
    assert f"{incident.since:%Y-%m-%d %H:%M}" in text
    assert "secret-name" not in text


async def test_a_run_without_incident_notifies_no_client(client, greeter):
    handle = await client.start("held", ANN)
    status = await client.status(handle.run_id)
    assert (status.open_incidents, status.incident) == (0, None)
    greeter.may_finish.set()
