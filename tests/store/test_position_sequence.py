"""A database whose sequence is behind its events or checkpoints is not opened."""

import pytest
from sqlalchemy import text

from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from saga_engine.store import position_sequence
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.position_sequence import LAST_POSITIONS
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.schema_drift import unpooled_engine

EVENTS = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
SELECT 'order-' || n, 1, 'order-placed', 1, '{}', '{}' FROM generate_series(1, 20) AS n"""
RUN = """
INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
VALUES (gen_random_uuid(), 1, now(), saga_engine.draw_positions(20),
    (SELECT jsonb_agg('{"type": "run_started", "data": {}}'::jsonb) FROM generate_series(1, 20)))"""
CHECKPOINT = "INSERT INTO saga_engine.{0} (name, {1}, position) VALUES ('orders', {2}, 20)"
PROJECTION = CHECKPOINT.format("projection", "version, code_version", "1, 1")
FEED = CHECKPOINT.format("feed", "sink", "'exchange'")
SET_BACK = "SELECT setval('saga_engine.event_position', {}, {})"


async def execute(url: str, *statements: str) -> None:
    connecting = unpooled_engine(url)
    async with connecting.begin() as connection:
        for each in statements:
            await connection.execute(text(each))
    await connecting.dispose()


async def opened(url: str) -> None:
    async with Database(url, Settings()):
        pass
    async with Database(url, Settings(), EVENT_DATABASE):
        pass


@pytest.mark.parametrize("rows", [EVENTS, RUN, PROJECTION, FEED], ids=[*LAST_POSITIONS])
async def test_a_database_whose_sequence_is_behind_is_refused_with_the_statement_that_corrects_it(
    migrated_url: str, rows: str
):
    await execute(migrated_url, rows, SET_BACK.format(19, "true"))
    with pytest.raises(ConfigurationError, match="has position 20 in") as refused:
        await opened(migrated_url)
    statement = str(refused.value).split("`")[1]
    assert statement == "SELECT setval('saga_engine.event_position', 20)"
    await execute(migrated_url, statement)
    await opened(migrated_url)


async def test_a_sequence_that_draws_its_value_again_is_behind(migrated_url: str):
    await execute(migrated_url, EVENTS, SET_BACK.format(20, "false"))
    with pytest.raises(ConfigurationError, match="up to 19"):
        await opened(migrated_url)


async def test_a_role_is_asked_for_no_right_that_it_does_not_need(migrated_url: str):
    """Only the tables that it may read are checked."""
    await execute(migrated_url, FEED, SET_BACK.format(19, "true"))
    connecting = unpooled_engine(migrated_url)
    async with connecting.connect() as connection:
        for statement in (
            "CREATE ROLE reads_streams",
            "GRANT USAGE ON SCHEMA saga_engine TO reads_streams",
            "GRANT SELECT ON saga_engine.stream_event, saga_engine.event_position TO reads_streams",
            "SET LOCAL ROLE reads_streams",
        ):
            await connection.execute(text(statement))
        await position_sequence.require_ahead(SqlAlchemyTransaction(connection), "db")
    await connecting.dispose()


@pytest.mark.parametrize("table", ["saga_engine.stream_event", "saga_engine.journal"])
async def test_the_check_reads_the_end_of_an_index(migrated_url: str, table: str):
    """Its cost does not depend on the number of events."""
    connecting = unpooled_engine(migrated_url)
    async with connecting.begin() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        rows = (await connection.execute(text(f"EXPLAIN {LAST_POSITIONS[table]}"))).scalars()
        plan = "\n".join(rows)
    await connecting.dispose()
    assert "Index" in plan
    assert "Sort  (" not in plan
    assert "Seq Scan" not in plan
