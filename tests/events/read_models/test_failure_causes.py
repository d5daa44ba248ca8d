"""The read model of causes counts every failure, and keeps a limited number of codes."""

from collections import Counter, defaultdict
from datetime import datetime
from random import Random

from saga_engine.events.read_models import failure_causes
from saga_engine.events.read_models.failure_causes import FAILURE_CAUSE, MAX_CODES, OTHER
from saga_engine.postgres.statement import text
from tests.kit.read_models import append_random, is_equal_in_any_windows, table_rows

Group = tuple[str, str, str]
EVENTS = text(
    """
    SELECT j.run_id::text, j.recorded_at, e.event->>'type' AS type, e.event->'data' AS data
    FROM saga_engine.journal AS j,
        jsonb_array_elements(j.events) WITH ORDINALITY AS e(event, place)
    ORDER BY j.position, e.place"""
)


def cause_of(kind, data):
    """What a failure is counted as, without its code, and its code."""
    cause = data.get("cause")
    if kind in ("attempt_failed", "step_rejected"):
        return (data["step"], data["direction"], kind), data["failure"]["code"]
    if kind == "incident_opened":
        return (data["step"], data["direction"], kind), cause
    if kind == "run_compensating":
        return (cause.get("step", ""), "action", kind), cause["code"]
    return None


async def test_every_failure_is_counted_and_the_first_codes_are_kept(database, definition_id):
    histories = await append_random(database, Random(0), definition_id, 1500)
    kept: defaultdict[Group, list[str]] = defaultdict(list)
    counts: Counter[tuple[str, ...]] = Counter()
    last: dict[tuple[str, ...], tuple[datetime, str]] = {}
    async with database.transaction() as tx:
        for run, at, kind, data in await tx.execute(EVENTS):
            if (cause := cause_of(kind, data)) is None:
                continue
            group, code = cause
            if code not in kept[group] and len(kept[group]) < MAX_CODES:
                kept[group].append(code)
            key = (*group, code if code in kept[group] else OTHER)
            counts[key] += 1
            last[key] = max(at, last[key][0] if key in last else at), run
    found = await is_equal_in_any_windows(database, FAILURE_CAUSE)
    assert {row[1:5]: row[5] for row in found} == counts
    assert {row[1:5]: (row[6], str(row[7])) for row in found} == last
    assert any(key[3] == OTHER for key in counts), len(histories)


async def test_a_code_of_any_length_is_counted(database, definition_id):
    """PostgreSQL would refuse an entry of an index with it, and the read model would stop."""
    histories = await append_random(database, Random(0), definition_id, 20)
    async with database.transaction() as tx:
        await tx.execute(
            text(
                "UPDATE saga_engine.journal SET events = jsonb_build_array(jsonb_build_object("
                "'type', 'step_rejected', 'data', jsonb_build_object('step', 's', 'direction',"
                " 'action', 'failure', jsonb_build_object('code', (SELECT string_agg(md5(n::text),"
                " '') FROM generate_series(1, 500) AS n)))))"
            )
        )
    await is_equal_in_any_windows(database, FAILURE_CAUSE)
    [row] = await table_rows(database, FAILURE_CAUSE)
    assert len(row[4]) == failure_causes.MAX_CODE_LENGTH
    assert row[5] >= len(histories)
