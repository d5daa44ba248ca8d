import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from saga_engine.client import start_in_transaction
from saga_engine.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SchemaMismatch,
    SerializationFailure,
)
from saga_engine.vocabulary import Status
from tests.kit.greeter import ANN, Greeting, greet_saga
from tests.kit.user_engines import user_engine


@pytest.fixture
async def shop(settings):
    """The caller's engine, on the same database, with a table of its own."""
    async with user_engine(settings.require_database_url()) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id text PRIMARY KEY)"))
        yield engine


async def test_an_order_and_its_saga_commit_together(shop, client):
    async with shop.begin() as connection:
        await connection.execute(text("INSERT INTO orders VALUES ('o-1')"))
        handle = await start_in_transaction(connection, "greet", ANN, key="o-1")
    ending = await client.result(handle.run_id, timeout=20)
    assert (handle.existing, ending.status) == (False, Status.COMPLETED)


async def test_a_rolled_back_transaction_starts_nothing_and_frees_the_key(shop, client, greeter):
    async with shop.connect() as connection:
        await start_in_transaction(connection, "greet", {"name": "never"}, key="o-1")
        await connection.rollback()
    async with shop.begin() as connection:
        handle = await start_in_transaction(connection, "greet", ANN, key="o-1")
    await client.result(handle.run_id, timeout=20)
    assert greeter.greeted == ["Ann"]


async def test_a_connection_without_a_transaction_is_refused(shop):
    """Its start would be committed, also if the order is rolled back."""
    async with shop.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with pytest.raises(InvalidInput, match="Your connection is in autocommit"):
            await start_in_transaction(connection, "greet", ANN)


async def test_a_transaction_that_has_failed_is_named(shop):
    async with shop.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1/0"))
        with pytest.raises(InvalidInput, match="Your transaction has failed"):
            await start_in_transaction(connection, "greet", ANN)


async def test_a_session_can_be_used(shop, client):
    async with AsyncSession(shop) as session, session.begin():
        handle = await start_in_transaction(
            await session.connection(), greet_saga, Greeting(name="Ann")
        )
    assert (await client.result(handle.run_id, timeout=20)).status is Status.COMPLETED


async def test_one_key_is_one_run_for_every_kind_of_start(shop, client, greeter):
    async with shop.begin() as connection:
        first = await start_in_transaction(connection, "greet", ANN, key="a")
        again = await start_in_transaction(connection, greet_saga, ANN, key="a")
    sent = await client.start("greet", ANN, key="a")
    await client.result(first.run_id, timeout=20)
    assert {first.run_id} == {again.run_id, sent.run_id}
    assert (again.existing, sent.existing) == (True, True)
    assert greeter.greeted == ["Ann"]


@pytest.mark.usefixtures("greeter")
async def test_another_input_for_a_key_is_an_immediate_conflict(shop):
    async with shop.begin() as connection:
        first = await start_in_transaction(connection, "greet", ANN, key="a")
        with pytest.raises(Conflict, match=f"belongs to run {first.run_id}, with another input"):
            await start_in_transaction(connection, "greet", {"name": "Bob"}, key="a")


@pytest.mark.usefixtures("greeter")
async def test_a_name_that_no_worker_has_loaded_is_not_found(shop):
    async with shop.begin() as connection:
        with pytest.raises(NotFound, match="ever loaded saga 'greets'"):
            await start_in_transaction(connection, "greets", ANN)
        with pytest.raises(NotFound, match="'greet' version 7"):
            await start_in_transaction(connection, "greet", ANN, version=7)


async def test_a_definition_starts_before_its_worker_is_rolled_out(shop):
    async with shop.begin() as connection:
        handle = await start_in_transaction(connection, greet_saga, ANN)
        waiting = await connection.execute(
            text("SELECT run_id, kind FROM saga_engine.pending_request")
        )
    assert waiting.all() == [(handle.run_id, "start")]


async def test_a_definition_refuses_an_invalid_input(shop):
    async with shop.begin() as connection:
        with pytest.raises(InvalidInput, match="name: missing"):
            await start_in_transaction(connection, greet_saga, {})


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]


@pytest.mark.usefixtures("greeter")
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"name": "x" * 300_000}, "max_body_bytes allows 262144"),
        ({"name": DEEP}, "nests deeper than 64"),
        ({"name": [1e308] * 1000}, "longer than max_body_bytes, 262144"),
        ({"name": [0] * 60_000}, "more than 10000 values"),
    ],
    ids=lambda each: each[:20] if isinstance(each, str) else "",
)
async def test_an_input_that_a_worker_would_refuse_is_refused_before_the_commit(
    shop, given, problem
):
    async with shop.begin() as connection:
        with pytest.raises(InvalidInput, match=problem):
            await start_in_transaction(connection, "greet", given)
        waiting = await connection.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
    assert waiting.scalar_one() == 0


async def test_a_database_without_the_engines_tables_is_refused(database_url):
    async with user_engine(database_url) as engine, engine.connect() as connection:
        with pytest.raises(SchemaMismatch, match="saga-engine migrate"):
            await start_in_transaction(connection, greet_saga, ANN, key="a")


async def test_two_transactions_that_want_one_key_get_one_run(shop):
    async def order():
        async with shop.begin() as connection:
            return await start_in_transaction(connection, greet_saga, ANN, key="a")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(order()) for _ in range(5)]
    handles = [task.result() for task in tasks]
    assert len({handle.run_id for handle in handles}) == 1
    assert sorted(handle.existing for handle in handles) == [False] + [True] * 4


async def test_a_run_that_is_not_committed_yet_is_awaited(shop, client):
    async with asyncio.TaskGroup() as group, shop.begin() as connection:
        handle = await start_in_transaction(connection, "greet", ANN)
        with pytest.raises(NotFound, match="no run"):
            await client.status(handle.run_id)
        waiting = group.create_task(client.result(handle.run_id, timeout=20))
    assert waiting.result().status is Status.COMPLETED


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_at_stricter_isolation_the_second_start_with_a_key_must_be_repeated(level, shop):
    strict = shop.execution_options(isolation_level=level)
    second = await strict.connect()
    await second.execute(text("SELECT 1"))  # its snapshot is older than the first one's commit
    async with strict.begin() as connection:
        first = await start_in_transaction(connection, greet_saga, ANN, key="a")
    with pytest.raises(SerializationFailure, match="repeat it from its beginning"):
        await start_in_transaction(second, greet_saga, ANN, key="a")
    await second.rollback()
    again = await start_in_transaction(second, greet_saga, ANN, key="a")
    assert (again.run_id, again.existing) == (first.run_id, True)
    await second.close()
