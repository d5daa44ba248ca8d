import asyncio
from datetime import timedelta
from typing import Any

import pytest

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.client import Client
from saga_engine.errors import (
    BrokerUnavailable,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    NotStarted,
    TimedOut,
)
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import Answer, AnswerOutcome, answer_address, encode_answer
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.request import StartRequest, decode_request
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REQUESTS
from saga_engine.settings import Settings
from saga_engine.store import pending_requests
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import ConnectionRole, Status
from tests.kit.greeter import Greeting, greet_saga

ANN = {"name": "Ann"}


async def test_a_run_is_started_and_its_result_returned(client, greeter):
    handle = await client.start("greet", ANN)
    ending = await client.result(handle.run_id, timeout=20)
    assert not handle.existing
    assert (ending.status, ending.result) == (Status.COMPLETED, {"say": {"said": "Hello, Ann"}})
    assert ending.error is None
    assert greeter.greeted == ["Ann"]


async def test_a_run_can_be_started_with_a_definition_and_a_model(client):
    handle = await client.start(greet_saga, Greeting(name="Bea"))
    assert (await client.result(handle.run_id, timeout=20)).status is Status.COMPLETED


async def test_a_rejected_run_ends_compensated_with_a_reason(client):
    handle = await client.start("greet", {"name": "unknown"})
    ending = await client.result(handle.run_id, timeout=20)
    assert ending.status is Status.COMPENSATED
    assert (ending.error.code, ending.error.message) == ("unknown_name", "There is no such person.")


async def test_one_key_and_one_input_are_one_run(client, greeter):
    first, second = await client.start("greet", ANN, key="a"), None
    second = await client.start("greet", ANN, key="a")
    await client.result(first.run_id, timeout=20)
    assert (second.run_id, second.existing) == (first.run_id, True)
    assert greeter.greeted == ["Ann"]


async def test_one_key_with_another_input_is_a_conflict_that_names_the_run(client):
    first = await client.start("greet", ANN, key="a")
    with pytest.raises(Conflict, match=f"belongs to run {first.run_id}, with another input"):
        await client.start("greet", {"name": "Bob"}, key="a")


async def test_an_unknown_saga_is_not_found(client):
    with pytest.raises(NotFound, match="No worker has ever loaded saga 'greets'"):
        await client.start("greets", ANN)


async def test_an_unknown_version_is_not_found(client):
    with pytest.raises(NotFound, match="version 7"):
        await client.start("greet", ANN, version=7)


async def test_an_invalid_input_is_refused_by_the_engine(client):
    with pytest.raises(InvalidInput, match="name: missing"):
        await client.start("greet", {"nome": "Ann"})


async def test_an_input_that_is_too_large_is_refused_before_it_is_sent(client):
    with pytest.raises(InvalidInput, match="262144"):
        await client.start("greet", {"name": "x" * 300_000})


async def test_the_status_of_a_run_in_flight_and_of_no_run(client, greeter):
    handle = await client.start("held", ANN)
    await greeter.hold_started.wait()
    assert (await client.status(str(handle.run_id))).status is Status.RUNNING
    with pytest.raises(NotFound, match="There is no run"):
        await client.status(uuid7())


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
        kind="start",
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


async def test_a_cancelled_run_is_undone(client, greeter):
    handle = await client.start("held", ANN)
    await greeter.hold_started.wait()
    await client.cancel(handle.run_id, reason="changed her mind", operator="ann")
    greeter.may_finish.set()
    ending = await client.result(handle.run_id, timeout=20)
    assert (ending.status, ending.error.code) == (Status.COMPENSATED, "cancelled")
    assert greeter.greeted == ["sorry, Ann"]


async def test_a_finished_run_is_not_cancelled_and_no_run_is_not_found(client):
    handle = await client.start("greet", ANN)
    await client.result(handle.run_id, timeout=20)
    with pytest.raises(Conflict, match="completed already"):
        await client.cancel(handle.run_id, reason="too late", operator="ann")
    with pytest.raises(NotFound, match="There is no run"):
        await client.cancel(uuid7(), reason="none", operator="ann")


async def test_a_start_without_any_engine_is_refused(settings):
    async with Client(settings=settings) as client:
        with pytest.raises(BrokerUnavailable, match="No worker has ever run on this broker"):
            await client.start("greet", ANN)


async def test_an_unanswered_start_is_sent_again_as_the_same_request(settings):
    async with (
        SupervisedConnection(
            settings.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=settings,
            topology=ENGINE_TOPOLOGY,
        ) as link,
        Consumer(link, [REQUESTS]) as requests,
        Client(settings=settings) as client,
        asyncio.TaskGroup() as group,
    ):
        starting = group.create_task(client.start("greet", ANN))
        received: list[Delivery] = []
        while len(received) < 2:  # The first one stays unanswered.
            received += await requests.take(10)
        first, second = [decode_request(each, settings) for each in received[:2]]
        assert isinstance(first, StartRequest)
        assert first == second
        answer = Answer(outcome=AnswerOutcome.EXISTING, run_id=first.run_id, status=Status.RUNNING)
        back = answer_address(received[1])
        assert back is not None
        await Publisher(link).publish([encode_answer(back, answer)])
        handle = await starting
    assert (handle.run_id, handle.existing) == (first.run_id, False)


async def test_an_unanswered_start_times_out_and_names_its_run(settings):
    hasty = settings.model_copy(update={"client_timeout": 0.5})
    async with (
        SupervisedConnection(
            hasty.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=hasty,
            topology=ENGINE_TOPOLOGY,
        ),
        Client(settings=hasty) as client,
    ):
        with pytest.raises(TimedOut, match=r"No worker answered in 0.5 seconds. Run [0-9a-f-]{36}"):
            await client.start("greet", ANN)


async def test_a_broker_that_is_unavailable_or_refuses_is_an_immediate_error(rabbitmq_url):
    away = "amqp://guest:guest@127.0.0.1:1/"  # Nothing listens there.
    with pytest.raises(BrokerUnavailable, match="out of reach"):
        async with Client(away, settings=Settings()):
            pass
    wrong = rabbitmq_url.replace("guest:guest@", "guest:wrong@")
    with pytest.raises(ConfigurationError, match="refuses this user or password"):
        async with Client(wrong, settings=Settings()):
            pass


async def test_an_error_in_the_block_leaves_the_client_as_it_is(settings):
    with pytest.raises(KeyError):
        async with Client(settings=settings):
            raise KeyError


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
