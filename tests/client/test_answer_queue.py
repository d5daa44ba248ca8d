"""Answers and announcements reach everyone who waits for them."""

import asyncio

from saga_engine.client import Client
from saga_engine.vocabulary import Status
from tests.kit.greeter import ANN


async def test_the_announcement_wakes_every_waiter_without_asking_again(settings, greeter):
    patient = settings.model_copy(update={"client_poll_interval": 60.0})
    async with Client(settings=patient) as client, asyncio.TaskGroup() as group:
        handle = await client.start("held", ANN)
        waiting = [group.create_task(client.result(handle.run_id, timeout=20)) for _ in range(3)]
        await greeter.hold_started.wait()
        greeter.may_finish.set()
    assert [task.result().status for task in waiting] == [Status.COMPLETED] * 3


async def test_a_result_is_found_although_its_announcement_came_first(client):
    handle = await client.start("greet", ANN)
    await client.result(handle.run_id, timeout=20)
    assert (await client.result(handle.run_id, timeout=20)).status is Status.COMPLETED
