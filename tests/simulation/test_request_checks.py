"""
What the functions of PostgreSQL refuse, the model of it refuses too: at each bound and one beyond.

The functions are SQL in the migrations, the model is simulation/request_checks.py.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.identifiers import uuid7
from saga_engine.store import audit, checked_requests, definitions, runs
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database, SqlAlchemyTransaction
from simulation import request_checks
from tests.kit.stored_runs import BOTH_DATABASES, ORDERS, run_id

TEXT = "x" * request_checks.MAX_TEXT_BYTES
SAID = {
    "incident_number": 1,
    "resolution": "retry",
    "operator": "eve",
    "reason": "why",
    "result": None,
}
FITS = {**SAID, "result": ""}
FITS["result"] = "x" * (request_checks.MAX_REQUEST_BYTES - len(json.dumps(FITS)))


def act(**more: Any) -> OperatorAction:
    return OperatorAction(**{**ACT, "id": str(uuid4()), **more})


ACT = {"operator": "eve", "action": "retry", "reason": "why", "run_id": str(uuid7())}

ACTS: dict[str, tuple[list[OperatorAction], bool]] = {
    "as many as may be": ([act() for _ in range(request_checks.MAX_ROWS)], True),
    "one too many": ([act() for _ in range(request_checks.MAX_ROWS + 1)], False),
    "a long name": ([act(operator=TEXT)], True),
    "a name that is too long": ([act(operator=TEXT + "x")], False),
    "a name of few characters and too many bytes": ([act(operator="ä" * 1001)], False),
    "no name": ([act(operator="")], False),
    "a long reason": ([act(reason=TEXT)], True),
    "a reason that is too long": ([act(reason=TEXT + "x")], False),
    "an empty reason": ([act(reason="")], True),
    "a long target": ([act(target=TEXT)], True),
    "a target that is too long": ([act(target=TEXT + "x")], False),
    "a long action": ([act(action="a" * 40)], True),
    "an action that is too long": ([act(action="a" * 41)], False),
    "an action with a space": ([act(action="re try")], False),
}

BODIES: dict[str, tuple[str, bool]] = {
    "what its act says": (json.dumps(SAID), True),
    "as long as it may be": (json.dumps(FITS), True),
    "one byte too long": (json.dumps(FITS) + " ", False),
    "another person": (json.dumps({**SAID, "operator": "alice"}), False),
    "another person, said last": (json.dumps(SAID)[:-1] + ', "\\u006fperator": "alice"}', False),
    "another reason": (json.dumps({**SAID, "reason": "the chief wants it"}), False),
    "another resolution": (json.dumps({**SAID, "resolution": "abandon"}), False),
    "no person": ('{"resolution":"retry","reason":"why"}', False),
    "no object": ('["eve","retry","why"]', False),
    "null": ("null", False),
    "no JSON": ("{", False),
    "NUL": (json.dumps({**SAID, "result": "\0"}), False),
    "half a character": (json.dumps({**SAID, "result": "\ud800"}), False),
    "deep nesting": (json.dumps(SAID)[:-1] + ', "result": ' + "[" * 1_000_000, False),
}


KEPT = {"key": "k", "digest_to_store": b"x" * 32, "input_digest": b"x" * 32}
STARTS: dict[str, tuple[Mapping[str, Any], bool]] = {
    "nothing special": ({}, True),
    "a saga that is too long": ({"saga": TEXT + "x"}, False),
    "no saga": ({"saga": ""}, False),
    "a long key": ({**KEPT, "key": TEXT}, True),
    "a key that is too long": ({**KEPT, "key": TEXT + "x"}, False),
    "an empty key": ({**KEPT, "key": ""}, False),
    "a key of which nothing is kept": ({**KEPT, "digest_to_store": None}, False),
    "a short digest": ({**KEPT, "digest_to_store": b"x" * 31}, False),
    "a sealed digest": ({**KEPT, "digest_to_store": b"x" * 1000, "input_digest": None}, True),
    "a digest that is too long": (
        {**KEPT, "digest_to_store": b"x" * 1001, "input_digest": None},
        False,
    ),
    "version 0": ({"version": 0}, False),
    "no fingerprint": ({"fingerprint": ""}, False),
    "a fingerprint that is too long": ({"fingerprint": "x" * 101}, False),
    "a run id that is random": ({"run_id": str(uuid4())}, False),
    "a run id of another variant": ({"run_id": "0193d0c0-0000-7000-0000-000000000000"}, False),
}


async def refuses(database: Database, work: Any) -> bool:
    try:
        async with database.transaction() as tx:
            await work(tx)
    except StoreRefused:
        return True
    return False


@BOTH_DATABASES
@pytest.mark.parametrize("given", ACTS)
async def test_an_act_is_held_to_the_same_bounds(database: Database, given: str):
    acts, fits = ACTS[given]
    assert await refuses(database, lambda tx: audit.record(tx, acts)) is not fits


async def ask(
    tx: SqlAlchemyTransaction, acts: Sequence[OperatorAction], bodies: Sequence[str]
) -> None:
    arguments = {
        "run_ids": [each.run_id for each in acts],
        "audit_ids": [each.id for each in acts],
        "bodies": list(bodies),
    }
    await tx.execute(checked_requests._REQUEST_RESOLVE, arguments)


@BOTH_DATABASES
@pytest.mark.parametrize("given", BODIES)
async def test_a_request_is_held_to_the_same_bounds(database: Database, given: str):
    body, fits = BODIES[given]
    mine = act()

    async def work(tx: SqlAlchemyTransaction) -> None:
        await audit.record(tx, [mine])
        await ask(tx, [mine], [body])

    assert await refuses(database, work) is not fits


@BOTH_DATABASES
async def test_an_act_has_the_same_few_requests(database: Database):
    first, second, foreign, settled = act(), act(), act(action=ActionKind.CANCEL), act()
    said = json.dumps(SAID)
    async with database.transaction() as tx:
        await audit.record(tx, [first, second, foreign, settled])
        await audit.record_outcomes(tx, [ActionOutcome(settled.id, AuditOutcome.ACCEPTED, "done")])
        await ask(tx, [first], [said])
    for acts in ([first], [second, second], [foreign], [settled], [act()]):
        bodies = [said] * len(acts)
        assert await refuses(database, lambda tx, acts=acts, bodies=bodies: ask(tx, acts, bodies))
    many = [act() for _ in range(request_checks.MAX_ROWS)]
    async with database.transaction() as tx:
        await audit.record(tx, many)
        await ask(tx, many, [said] * len(many))
    assert await refuses(database, lambda tx: ask(tx, [*many, second], [said] * (len(many) + 1)))


async def start(database: Database, **given: Any) -> bool:
    """Ask for a start in the time of the database; whether it is refused."""

    async def work(tx: SqlAlchemyTransaction) -> None:
        await definitions.register(tx, [ORDERS])
        if "run_id" not in given:
            given["run_id"] = run_id(
                await runs.database_now(tx) + timedelta(hours=given.pop("hours", 0))
            )
        arguments = {
            "saga": ORDERS.name,
            "version": None,
            "key": None,
            "input_digest": None,
            "digest_to_store": None,
            "body": '{"input":{}}',
            "must_be_known": True,
            "fingerprint": None,
            **given,
        }
        await tx.execute(checked_requests._REQUEST_START, arguments)

    return await refuses(database, work)


@BOTH_DATABASES
@pytest.mark.parametrize("given", STARTS)
async def test_a_start_is_held_to_the_same_bounds(database: Database, given: str):
    arguments, fits = STARTS[given]
    assert await start(database, **arguments) is not fits


@pytest.mark.parametrize("hours", [-25, -23, 23, 25])
async def test_the_time_of_a_run_id_is_that_of_now_or_nearly(database: Database, hours: int):
    assert await start(database, hours=hours) is (abs(hours) > 24)
