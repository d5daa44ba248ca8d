import pytest

from saga_engine.client import Client
from saga_engine.errors import (
    BrokerUnavailable,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
)
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.vocabulary import Status
from tests.kit.greeter import ANN, Greeting, greet_saga


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


async def test_the_status_of_a_run_in_flight_and_of_no_run(client, greeter):
    handle = await client.start("held", ANN)
    await greeter.hold_started.wait()
    assert (await client.status(str(handle.run_id))).status is Status.RUNNING
    with pytest.raises(NotFound, match="There is no run"):
        await client.status(uuid7())


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


async def test_a_broker_that_is_unavailable_or_refuses_is_an_immediate_error(rabbitmq_url):
    away = "amqp://guest:guest@127.0.0.1:1/"  # Nothing listens there.
    with pytest.raises(BrokerUnavailable, match="out of reach"):
        async with Client(away, settings=Settings()):
            pass
    wrong = rabbitmq_url.replace("guest:guest@", "guest:wrong@")
    with pytest.raises(ConfigurationError, match="refuses this user or password"):
        async with Client(wrong, settings=Settings()):
            pass


async def test_a_client_is_used_only_while_it_is_open(settings):
    client = Client(settings=settings)
    calls = [
        lambda: client.start("greet", ANN),
        lambda: client.status(uuid7()),
        lambda: client.result(uuid7(), timeout=1),
        lambda: client.cancel(uuid7(), reason="late", operator="ann"),
    ]
    for _ in ("before it is entered", "after it was left"):
        for call in calls:
            with pytest.raises(InvalidInput, match=r"Client is not open\. Use it within"):
                await call()
        async with client:
            pass


async def test_an_error_in_the_block_leaves_the_client_as_it_is(settings):
    with pytest.raises(KeyError):
        async with Client(settings=settings):
            raise KeyError
