"""
The horizon is asked for in the server, while writers begin and commit.

Another session holds thousands of locks, so that the horizon takes milliseconds: time for a writer
to announce, draw and insert between its two steps.
"""

import asyncio

from tests.kit.event_database import connected

WRITERS = 2
QUESTIONS = 500
LOCKS = 3000

PROCEDURES = """
CREATE TABLE asked (after bigint, horizon bigint, found bigint);

CREATE PROCEDURE write_events(name text) LANGUAGE plpgsql AS $$
DECLARE version integer := 0;
BEGIN
    WHILE NOT EXISTS (SELECT FROM asked) LOOP
        version := version + 1;
        INSERT INTO saga_engine.stream_event
            (stream, version, type, schema_version, data, metadata)
            VALUES (name, version, 'order-placed', 1, '{}', '{}');
        PERFORM pg_sleep(0.004);
        COMMIT;
        PERFORM pg_sleep(0.008);
        COMMIT;
    END LOOP;
END $$;

CREATE PROCEDURE ask(questions integer) LANGUAGE plpgsql AS $$
DECLARE
    before bigint := 0;
    horizons bigint[];
    counts bigint[];
    horizon bigint;
    found bigint;
BEGIN
    FOR question IN 1..questions LOOP
        horizon := saga_engine.event_horizon();
        SELECT count(*) INTO found FROM saga_engine.stream_event
            WHERE position > before AND position <= horizon;
        horizons := horizons || horizon;
        counts := counts || found;
        before := horizon;
        COMMIT;
    END LOOP;
    INSERT INTO asked SELECT coalesce(lag(h) OVER (ORDER BY n), 0), h, c
        FROM unnest(horizons, counts) WITH ORDINALITY AS t(h, c, n);
END $$"""

MISSED = """
SELECT count(*) FROM asked
WHERE found <> (SELECT count(*) FROM saga_engine.stream_event
    WHERE position > asked.after AND position <= asked.horizon)"""


async def test_no_event_appears_below_a_horizon_that_was_returned(event_url: str):
    async def call(statement: str) -> None:
        async with connected(event_url) as connection:
            await connection.execute(statement)

    await call(PROCEDURES)
    async with connected(event_url) as holder, asyncio.TaskGroup() as group:
        await holder.execute(f"SELECT pg_advisory_lock(n) FROM generate_series(1, {LOCKS}) AS n")
        for number in range(WRITERS):
            group.create_task(call(f"CALL write_events('order-{number}')"))
        group.create_task(call(f"CALL ask({QUESTIONS})"))
    async with connected(event_url) as connection:
        assert await connection.fetchval("SELECT count(DISTINCT horizon) FROM asked") > 50
        assert await connection.fetchval(MISSED) == 0
