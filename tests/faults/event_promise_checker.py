"""
Checks the promises E1 to E6 when nothing is in flight.

What it compares is read with statements of its own, and not with the readers of the engine: the
rows of streams and journals, the effects of the participants, the tables of the projections and of
the engine's read models, and the messages that a consumer of the feed has received. A violation is
a sentence that begins with its promise.
"""

from collections.abc import Mapping
from contextlib import suppress

import asyncpg

from saga_engine.events.feeds import feed_actions
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.faults.environment import FaultEnvironment, asyncpg_url
from tests.faults.event_workload import (
    COMPENSATED,
    COMPLETED,
    EFFECT_DONE,
    EFFECT_UNDONE,
    RECORDED_TYPES,
    STARTED,
    changed,
    everything,
)
from tests.kit.programs import wait_until_true

CATCH_UP_TIMEOUT_S = 30.0
"""Seconds until every reader has every event: more than a lease, a backoff and a reconnection."""

EXAMPLES = 3  # Rows of each kind that a violation shows.

_OPERATOR = Operator("faults", "the queue of the consumer was lost")


class EventPromiseChecker:
    """Checks all events of the environment's database."""

    def __init__(self, environment: FaultEnvironment):
        self._environment = environment
        self._checked_until = 0  # of the feed; tables are compared as a whole
        self._skipped = 0

    def forget_checked(self):
        """Check the whole feed again."""
        self._checked_until = 0

    async def check(self) -> list[str]:
        """Wait until every reader has every event, and return what is violated."""
        violations = await self._wait_for_readers()
        if not violations and self._environment.feed_messages_lost:
            await self._repeat_lost_messages()
        connection = await asyncpg.connect(asyncpg_url(self._environment.engine_url), timeout=5)
        try:
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute(_MATERIALIZE)
                violations += await _compare(connection)
                violations += await _compare_kept_versions(connection)
                violations += await self._check_feed(connection)
        finally:
            connection.terminate()
        problems = self._environment.table_reader.problems
        violations += problems[:EXAMPLES]
        problems.clear()
        return violations

    async def _wait_for_readers(self) -> list[str]:
        """E6: every projection and feed reaches the horizon when the faults have ended."""
        behind: list[asyncpg.Record] = []

        async def have_caught_up():
            behind[:] = await self._environment.execute(_BEHIND)
            return not behind

        try:
            await wait_until_true(have_caught_up, patience=CATCH_UP_TIMEOUT_S)
        except TimeoutError:
            return [
                f"E6: {CATCH_UP_TIMEOUT_S:g} s after the last event {each['name']} is"
                f" {each['state']} at {each['position']}, before {each['horizon']}"
                for each in behind
            ]
        return []

    async def _repeat_lost_messages(self):
        """Rewind the feed, as an operator does for a consumer whose queue was lost."""
        self._environment.feed_messages_lost = False
        rows = await self._environment.execute(_POSITIONS, self._checked_until)
        received = self._environment.feed_consumer.received.messages
        missing = [each["position"] for each in rows if each["position"] not in received]
        if missing:
            url = self._environment.engine_url
            async with Database(url, Settings()) as database, database.transaction() as tx:
                (key,) = FeedKey.of(everything)
                await feed_actions.rewind(tx, key, min(missing) - 1, _OPERATOR)
        [[self._skipped]] = await self._environment.execute(_SKIPPED)
        await self._wait_for_readers()

    async def _check_feed(self, connection: asyncpg.Connection) -> list[str]:
        """E5: the consumer has every event, in the order of its stream, always the same."""
        rows = await connection.fetch(
            "SELECT position, stream FROM logged WHERE position > $1 ORDER BY position",
            self._checked_until,
        )
        received = self._environment.feed_consumer.received
        missing: list[asyncpg.Record] = []

        async def has_all():
            missing[:] = [each for each in rows if each["position"] not in received.messages]
            return not missing

        violations = []
        try:
            await wait_until_true(has_all, patience=CATCH_UP_TIMEOUT_S)
        except TimeoutError:
            violations.append(f"E5: {len(missing)} events were not received: {missing[:EXAMPLES]}")
        for row in rows:
            message = received.messages.get(row["position"])
            if message is not None and message.stream != row["stream"]:
                violations.append(f"E5: {row['position']} was published as of {message.stream}")
        [[skipped]] = await connection.fetch(_SKIPPED)
        if skipped != self._skipped:
            violations.append(f"E5: {skipped - self._skipped} events were skipped")
        [[count]] = await connection.fetch("SELECT count(*) FROM logged")
        if len(received.messages) > count:
            violations.append("E5: events were received that do not exist")
        self._skipped = skipped
        self._checked_until = max((row["position"] for row in rows), default=self._checked_until)
        violations += received.problems[:EXAMPLES]
        received.problems.clear()
        return violations


async def _compare(connection: asyncpg.Connection) -> list[str]:
    violations = []
    for sentence, query in _FORBIDDEN.items():
        if found := await connection.fetch(f"{query} LIMIT {EXAMPLES}"):
            violations.append(f"{sentence}: {[tuple(row) for row in found]}")
    return violations + await _differences(connection, {**_EQUAL, **_projected()})


async def _compare_kept_versions(connection: asyncpg.Connection) -> list[str]:
    """E4 of the tables beside the live ones: those of a rebuild, and those before a switch."""
    violations = []
    for row in await connection.fetch(_KEPT_VERSIONS, changed.name):
        with suppress(asyncpg.UndefinedTableError):  # a projector has removed them meanwhile
            async with connection.transaction():
                violations += await _differences(connection, _projected(f"~{row['version']}"))
    return violations


async def _differences(
    connection: asyncpg.Connection, queries: Mapping[str, tuple[str, str]]
) -> list[str]:
    violations = []
    for sentence, (expected, found) in queries.items():
        rows = await connection.fetch(_DIFFERENCE.format(expected=expected, found=found))
        if rows:
            examples = [tuple(row) for row in rows[:EXAMPLES]]
            violations.append(f"{sentence}: {len(rows)} rows differ, such as {examples}")
    return violations


def _projected(ending: str = "") -> dict[str, tuple[str, str]]:
    """The pairs of queries of the tables of `changed`, with the ending of one of its versions."""
    return {
        f"E4: {table}{ending}": (expected, f'SELECT {columns} FROM "{table}{ending}"')
        for table, (expected, columns) in _PROJECTED.items()
    }


_BEHIND = """
    SELECT name, state, position, horizon
    FROM (SELECT saga_engine.event_horizon() AS horizon) AS now, (
        SELECT 'projection ' || name AS name, state, position FROM saga_engine.projection
        UNION ALL SELECT 'feed ' || name, state, position FROM saga_engine.feed) AS reader
    WHERE position < horizon"""
_SKIPPED = "SELECT coalesce(sum(skipped), 0)::bigint FROM saga_engine.feed"
_LOGGED = """
    SELECT position, stream, version, type, data::jsonb AS data FROM saga_engine.stream_event
    UNION ALL
    SELECT position + place - 1, 'run-' || run_id, revision, event->>'type', event->'data'
    FROM saga_engine.journal, jsonb_array_elements(events) WITH ORDINALITY AS e(event, place)"""
_MATERIALIZE = f"""
    CREATE TEMPORARY TABLE logged ON COMMIT DROP AS {_LOGGED};
    CREATE TEMPORARY TABLE run_of_stream ON COMMIT DROP AS
    SELECT 'run-' || r.run_id AS stream, d.name AS saga, r.status
    FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id"""
_KEPT_VERSIONS = """
    SELECT version FROM saga_engine.projection
    WHERE name = $1 AND role <> 'live' AND has_tables ORDER BY version"""
_POSITIONS = f"SELECT position FROM ({_LOGGED}) AS logged WHERE position > $1"
_EFFECT_TYPES = f"('{EFFECT_DONE}', '{EFFECT_UNDONE}')"
_RECORDED_TYPES = str(RECORDED_TYPES)

_FORBIDDEN = {
    "E1: a stream has a gap": """
        SELECT stream, count(*), max(version) FROM logged WHERE stream NOT LIKE 'run-%'
        GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1""",
    "E1: positions do not rise with the versions": """
        SELECT stream, version, position FROM (
            SELECT stream, version, position,
                max(position) OVER (PARTITION BY stream ORDER BY version
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM logged WHERE stream NOT LIKE 'run-%') AS with_before
        WHERE position <= before""",
    "E1: two events have one position": """
        SELECT position, count(*) FROM logged GROUP BY position HAVING count(*) > 1""",
    "E1: an event was not decided on the newest state": """
        SELECT stream, version, data->>'number' AS number FROM logged
        WHERE type = 'effect-recorded' AND (data->>'number')::integer <> version""",
}
_EQUAL = {
    "E3: the effects and the events of their jobs": (
        "SELECT 'job-' || job_id, step, direction FROM effect_log",
        (
            "SELECT stream, data->>'step', data->>'direction' FROM logged"
            " WHERE type = 'effect-recorded'"
        ),
    ),
    "E3: the effects and the events of their steps": (
        "SELECT 'effect-' || job_id || '/' || step, direction = 'action' FROM effect_log",
        f"SELECT stream, type = '{EFFECT_DONE}' FROM logged WHERE type IN {_EFFECT_TYPES}",
    ),
    "E2: the events as a projection has read them": (
        (
            "SELECT row_number() OVER (ORDER BY position), position, stream FROM logged"
            f" WHERE type IN {_RECORDED_TYPES}"
        ),
        "SELECT number, position, stream FROM event_record",
    ),
    "E4: run_statistics": (
        "SELECT saga, status, count(*) FROM run_of_stream GROUP BY saga, status",
        "SELECT saga, status, runs FROM saga_engine.run_statistics WHERE runs <> 0",
    ),
    "E4: step_duration": (
        """
        SELECT saga, data->>'step', data->>'direction', count(*)
        FROM logged JOIN run_of_stream USING (stream)
        WHERE type = 'step_succeeded' AND data->>'late' IS NULL GROUP BY 1, 2, 3""",
        """
        SELECT saga, step, direction, sum(steps)::bigint FROM saga_engine.step_duration
        GROUP BY saga, step, direction""",
    ),
    "E4: failure_cause": (
        """
        SELECT saga, coalesce(data->>'step', data->'cause'->>'step', ''),
            coalesce(data->>'direction', 'action'), type,
            CASE type WHEN 'incident_opened' THEN data->>'cause'
                WHEN 'run_compensating' THEN data->'cause'->>'code'
                ELSE data->'failure'->>'code' END, count(*)
        FROM logged JOIN run_of_stream USING (stream)
        WHERE type IN ('attempt_failed', 'step_rejected', 'incident_opened', 'run_compensating')
        GROUP BY 1, 2, 3, 4, 5""",
        "SELECT saga, step, direction, event, code, failures FROM saga_engine.failure_cause",
    ),
}
"""Pairs of queries with the same rows, as texts."""

_PROJECTED = {
    "stream_view": (
        (
            "SELECT stream, count(*), (array_agg(type ORDER BY position DESC))[1], max(position)"
            f" FROM logged WHERE type NOT IN {_EFFECT_TYPES} GROUP BY stream"
        ),
        "stream, events, last_type, last_position",
    ),
    "effect_view": (
        (
            f"SELECT stream, CASE max(type) WHEN '{EFFECT_DONE}' THEN 'done' ELSE 'undone' END,"
            f" count(*) - 1 FROM logged WHERE type IN {_EFFECT_TYPES} GROUP BY stream"
        ),
        "stream, status, changes",
    ),
    "type_count": (
        f"SELECT type, count(*) FROM logged WHERE type NOT IN {_EFFECT_TYPES} GROUP BY type",
        "type, events",
    ),
    "unfinished_run": (
        (
            f"SELECT stream FROM logged WHERE stream LIKE 'run-%' GROUP BY stream"
            f" HAVING count(*) FILTER (WHERE type = '{STARTED}') = 1"
            f" AND count(*) FILTER (WHERE type IN ('{COMPLETED}', '{COMPENSATED}')) = 0"
        ),
        "stream",
    ),
}
"""What the first event and those after it give for each table of `changed`, and its columns."""

_DIFFERENCE = """
    WITH expected AS (SELECT e::text AS row FROM ({expected}) AS e),
        found AS (SELECT f::text AS row FROM ({found}) AS f)
    SELECT 'missing', row FROM (TABLE expected EXCEPT ALL TABLE found) AS missing
    UNION ALL
    SELECT 'wrong', row FROM (TABLE found EXCEPT ALL TABLE expected) AS wrong"""
