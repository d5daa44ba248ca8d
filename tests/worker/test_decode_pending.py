"""Rows of pending requests that services and operators wrote are decoded one by one."""

import itertools
import json
import os
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from saga_engine.client import start_in_transaction
from saga_engine.identifiers import uuid7
from saga_engine.store import audit, dead_letter_queries
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.telemetry.events import (
    InternalErrorCaught,
    MessageDeadLettered,
    OperatorActionProcessed,
)
from saga_engine.vocabulary import Status
from tests.kit.promises import check_promises

DEEP = '{"operator":"x","reason":' + "[" * 1100 + "]" * 1100 + "}"


HOSTILE = {
    "a run id that is none": ("start", '{"run_id":"x","key":null,"input":{}}'),
    "another run's id": (
        "start",
        '{"run_id":"%s","key":null,"input":{}}'.replace("%s", str(uuid4())),
    ),
    "a key of another form": ("start", '{"key":["k"],"input":{}}'),
    "no input": ("start", "{}"),
    "a start that is a list": ("start", "[]"),
    "a reason that is 1,100 lists": ("cancel", DEEP),
    "a reason that is a number": ("cancel", '{"operator":"x","reason":7}'),
    "a name that is an object": ("cancel", '{"operator":{},"reason":"x"}'),
    "a reason of a megabyte": ("cancel", json.dumps({"operator": "x", "reason": "x" * 1_000_000})),
    "a number no double holds": ("cancel", '{"operator":"x","reason":1e400}'),
    "a number of 100,000 digits": ("cancel", '{"operator":"x","reason":1e100000}'),
    "an integer of 5,000 digits": ("cancel", '{"operator":"x","reason":%s}' % ("9" * 5000)),
    "an incident that is none": (
        "resolve",
        '{"incident_number":"1","resolution":"skip","operator":"x","reason":"x"}',
    ),
    "a resolution that is none": (
        "resolve",
        '{"incident_number":1,"resolution":"pray","operator":"x","reason":"x"}',
    ),
    "a field too many": ("cancel", '{"operator":"x","reason":"x","more":1}'),
    "a reply of another form": ("reply", '{"step":["pack"],"direction":"action","attempt":"x"}'),
    "an unknown outcome": (
        "reply",
        '{"step":"pack","direction":"action","attempt":1,"outcome":"unknown"}',
    ),
}


async def put(connection, **columns):
    """Insert a row as the table's owner; False if a constraint refuses it."""
    names = ", ".join(columns)
    places = ", ".join(
        f"CAST(${number}::text AS {CASTS[name]})" for number, name in enumerate(columns, 1)
    )
    try:
        await connection.execute(
            f"INSERT INTO saga_engine.pending_request ({names}) VALUES ({places})",
            *(None if value is None else str(value) for value in columns.values()),
        )
    except asyncpg.PostgresError:
        return False
    return True


CASTS = {
    "run_id": "uuid",
    "audit_id": "uuid",
    "definition_id": "integer",
    "version": "integer",
    "not_before": "timestamptz",
    "received_at": "timestamptz",
    **dict.fromkeys(("kind", "saga", "key", "role", "reply_to", "correlation_id"), "text"),
    **dict.fromkeys(("sender", "body"), "text"),
}


@pytest.fixture
async def owner(migrated_url):
    url = make_url(migrated_url)
    connection = await asyncpg.connect(
        host=url.query.get("host", url.host),
        port=int(str(url.query.get("port", url.port or 5432))),
        user=url.username,
        password=url.password,
        database=url.database,
    )
    yield connection
    await connection.close()


NOT_LONG = (
    *("a run id that is none", "another run's id", "no input", "a reason that is 1,100 lists"),
    *("a number no double holds", "an incident that is none", "a reply of another form"),
)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(each, marks=() if each in NOT_LONG else pytest.mark.long, id=each)
        for each in HOSTILE
    ],
)
async def test_an_unreadable_row_is_processed_alone(engine, owner, hostile):
    kind, body = HOSTILE[hostile]
    worker, _ = await engine.start_worker(), await engine.start_participant()
    assert await put(owner, run_id=uuid7(), kind=kind, saga="parcel", role="shop", body=body)
    async with engine.database.transaction() as tx:
        mine = await start_in_transaction(tx.connection, "parcel", {}, key="k")
    assert await worker.events.wait_for_end(str(mine.run_id)) == Status.COMPLETED
    await worker.events.wait_for(MessageDeadLettered)
    assert await owner.fetchval("SELECT count(*) FROM saga_engine.pending_request") == 0
    assert not worker.events.matching(InternalErrorCaught), (
        "a row of another's is not a bug of the engine"
    )


async def test_the_columns_of_a_start_decide_its_run(engine, owner):
    worker, _ = await engine.start_worker(), await engine.start_participant()
    run_id, other = uuid7(), uuid7()
    body = json.dumps({"run_id": str(other), "key": "theirs", "input": {}})
    await put(owner, run_id=run_id, kind="start", saga="parcel", body=body)
    async with engine.database.transaction() as tx:
        mine = await start_in_transaction(tx.connection, "parcel", {})
    assert await worker.events.wait_for_end(str(mine.run_id)) == Status.COMPLETED
    await worker.events.wait_for(MessageDeadLettered, run_id=str(run_id))
    assert await owner.fetchval("SELECT count(*) FROM saga_engine.run") == 1


async def test_a_body_beyond_the_limit_is_never_read(engine, owner):
    """As much of it is stored in a dead letter as of a message."""
    worker, _ = (
        await engine.start_worker(max_body_bytes=2000, max_dead_letter_body_bytes=100),
        await engine.start_participant(),
    )
    body = json.dumps({"input": {"sku": "x" * 5_000_000}})
    await put(owner, run_id=uuid7(), kind="start", saga="parcel", role="shop", body=body)
    event = await worker.events.wait_for_dead_letter("too_large")
    async with engine.database.transaction() as tx:
        [letter] = await dead_letter_queries.read_page(tx, limit=10)
    assert (letter.truncated, letter.message.body_size) == (True, len(body))
    assert len(letter.message.body) == 100
    assert "max_body_bytes" in event.problem


async def test_an_unreadable_operator_action_is_refused_in_its_audit_record(engine, owner):
    worker, _ = await engine.start_worker(), await engine.start_participant()
    run_id, act = str(uuid7()), str(uuid7())
    async with engine.database.transaction() as tx:
        await audit.record(
            tx,
            [
                OperatorAction(
                    id=act,
                    operator="ada",
                    action=ActionKind.CANCEL,
                    reason="because",
                    run_id=run_id,
                )
            ],
        )
    await put(owner, run_id=run_id, kind="cancel", audit_id=act, body=DEEP)
    await worker.events.wait_for(OperatorActionProcessed, accepted=False, run_id=run_id)
    async with engine.database.transaction() as tx:
        found = await audit.find(tx, act)
    assert found is not None
    assert found.outcome == "refused"
    assert found.message is not None
    assert "nests deeper" in found.message


TEXTS = (None, "", "k", "saga.client.x", "x" * 3000, "x" * 300_000, "a\nb", "ä" * 100)


TIMES = (None, "infinity", "-infinity", "294276-01-01", "4713-01-01 BC", "9999-12-31", "now")


IDS = st.uuids().map(str) | st.builds(lambda: str(uuid7()))


values = st.sampled_from(
    ["null", "7", "-1", "1e400", "1e100000", "9" * 400, '"x"', '"\\u0000"', '"\\ud800"', "[]",
     "{}", "[" * 500 + "]" * 500, "[" * 1100 + "]" * 1100, '"action"', '"succeeded"', '"skip"',
     "true", '"' + "x" * 3000 + '"', '{"code":7}', '{"code":"x","message":7}']
)  # fmt: skip


names = st.sampled_from(
    ["run_id", "key", "input", "operator", "reason", "incident_number", "resolution", "result",
     "step", "direction", "attempt", "outcome", "body", "failure", "problem", "never_delivered",
     "more"]
)  # fmt: skip


objects = st.dictionaries(names, values, max_size=6).map(
    lambda fields: "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
)


VALID = [
    ("start", '{"input":{}}'),
    ("cancel", '{"operator":"ada","reason":"because"}'),
    ("resolve", '{"incident_number":1,"resolution":"skip","operator":"ada","reason":"because"}'),
    ("reply", '{"step":"pack","direction":"action","attempt":1,"outcome":"succeeded","body":{}}'),
    ("malformed_reply", '{"step":"pack","direction":"action","attempt":1,"problem":"x"}'),
    ("unroutable", '{"step":"pack","direction":"action","attempt":1}'),
    ("wake_up", "{}"),
]


other_kinds = st.sampled_from(["prayed", "", "START", "x" * 3000])


rows = st.fixed_dictionaries(
    {
        "run_id": IDS,
        "said": st.sampled_from(VALID)
        | st.tuples(st.sampled_from([kind for kind, _ in VALID]) | other_kinds, objects | values),
        "saga": st.sampled_from(["parcel", "parcel", "parcel", *TEXTS]),
    },
    optional={
        "version": st.sampled_from([None, 1, 0, -1, 2**31 - 1]),
        "definition_id": st.sampled_from([None, 1]),
        "key": st.sampled_from(TEXTS),
        "role": st.sampled_from([None, "shop"]),
        "reply_to": st.sampled_from(TEXTS),
        "correlation_id": st.sampled_from(TEXTS),
        "audit_id": IDS,
        "not_before": st.sampled_from(TIMES),
        "received_at": st.sampled_from(TIMES),
        "sender": st.sampled_from(TEXTS),
    },
)


ENOUGH, HONEST = 60, 20
"""How many rows must reach the worker, and how many runs complete beside them."""


def drawn(count):
    """Batches of rows with any columns; set `FUZZ_SEED` to the seed that a failure prints."""
    first = int(os.environ.get("FUZZ_SEED") or uuid4().int % 2**32)
    print(f"FUZZ_SEED={first}")  # noqa: T201 - pytest shows it when this fails
    for number in itertools.count(first):
        yield from drawn_from(number, count)


def drawn_from(number, count):
    found = []
    bounded = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    seed(number)(bounded(given(rows)(lambda row: found.append(row))))()  # noqa: PLW0108 - needs a signature
    return found


async def test_valid_runs_complete_beside_rows_of_any_content(engine, owner):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    honest: list[str] = []
    admitted = 0
    for number, row in enumerate(drawn(200)):
        kind, body = row.pop("said")
        admitted += await put(owner, **row, kind=kind, body=body)
        if number % 20 == 0 and len(honest) < HONEST:
            async with engine.database.transaction() as tx:
                honest.append(str((await start_in_transaction(tx.connection, "parcel", {})).run_id))
            honest.append(await client.start())
        if admitted >= ENOUGH and len(honest) == HONEST:
            break
        assert number < 50 * ENOUGH, "constraints refuse nearly every row: generate better ones"
    for run_id in honest:
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED

    # A start of a saga or version that this worker has not loaded waits for one that has, and
    # so does a request of a definition that it has not loaded.
    left = (
        "SELECT kind, run_id, saga, key, role, version, definition_id, not_before, left(body, 200)"
        " FROM saga_engine.pending_request AS i"
        " WHERE definition_id IS NOT DISTINCT FROM NULLIF($1, 0) AND"
        " (saga = 'parcel' AND coalesce(version, 1) = 1 OR kind <> 'start') AND NOT EXISTS ("
        "SELECT FROM saga_engine.pending_request AS s"
        " WHERE s.run_id = i.run_id AND s.kind = 'start')"
    )
    rest = None
    for _ in range(100):
        rest = await owner.fetch(left, 0)
        if not rest:
            break
        async with engine.database.transaction() as tx:
            honest.append(str((await start_in_transaction(tx.connection, "parcel", {})).run_id))
        assert await worker.events.wait_for_end(honest[-1]) == Status.COMPLETED
    assert rest == []
    assert not worker.events.matching(InternalErrorCaught)
    await check_promises(engine.database, settled=False)


async def test_a_row_that_cannot_be_dead_lettered_backs_off_and_blocks_no_other(engine, owner):
    """A constraint of the dead letters refuses it; no other cause is known."""
    worker, _ = await engine.start_worker(), await engine.start_participant()
    await owner.execute("ALTER TABLE saga_engine.dead_letter ADD CONSTRAINT no CHECK (queue <> '')")
    await put(owner, run_id=uuid7(), kind="cancel", role="shop", body="[]")
    await worker.events.wait_for(InternalErrorCaught, 2, operation="pending_requests")
    for _ in range(3):
        async with engine.database.transaction() as tx:
            mine = await start_in_transaction(tx.connection, "parcel", {})
        assert await worker.events.wait_for_end(str(mine.run_id)) == Status.COMPLETED
    assert await owner.fetchval("SELECT not_before > now() FROM saga_engine.pending_request")
