"""
The model refuses the same requests as the SQL functions: at each bound and one beyond.

The functions are in the migrations, the model is simulation/request_checks.py.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.identifiers import uuid7
from saga_engine.postgres.statement import Columns
from saga_engine.store import checked_requests
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from simulation import request_checks
from simulation.memory_store import MemoryStoreTransaction
from simulation.rows import rows_of
from tests.kit.stored_runs import ORDERS, run_id
from tests.kit.stores import (
    RequesterStore,
    RequesterTransaction,
    SqlRequesterStore,
    SqlRequesterTransaction,
)

TEXT = "x" * request_checks.MAX_TEXT_BYTES
BODY = {
    "incident_number": 1,
    "resolution": "retry",
    "operator": "eve",
    "reason": "why",
    "result": None,
}
LONGEST_BODY = {**BODY, "result": ""}
LONGEST_BODY["result"] = "x" * (request_checks.MAX_REQUEST_BYTES - len(json.dumps(LONGEST_BODY)))


def make_action(**more: Any) -> OperatorAction:
    return OperatorAction(**{**ACTION_FIELDS, "id": str(uuid4()), **more})


ACTION_FIELDS = {"operator": "eve", "action": "retry", "reason": "why", "run_id": str(uuid7())}

ACTIONS: dict[str, tuple[list[OperatorAction], bool]] = {
    "as many as allowed": ([make_action() for _ in range(request_checks.MAX_ROWS)], True),
    "one too many": ([make_action() for _ in range(request_checks.MAX_ROWS + 1)], False),
    "a long name": ([make_action(operator=TEXT)], True),
    "a name that is too long": ([make_action(operator=TEXT + "x")], False),
    "a name with few characters and too many bytes": ([make_action(operator="ä" * 1001)], False),
    "no name": ([make_action(operator="")], False),
    "a long reason": ([make_action(reason=TEXT)], True),
    "a reason that is too long": ([make_action(reason=TEXT + "x")], False),
    "an empty reason": ([make_action(reason="")], True),
    "a long target": ([make_action(target=TEXT)], True),
    "a target that is too long": ([make_action(target=TEXT + "x")], False),
    "a long action": ([make_action(action="a" * 40)], True),
    "an action that is too long": ([make_action(action="a" * 41)], False),
    "an action with a space": ([make_action(action="re try")], False),
}

BODIES: dict[str, tuple[str, bool]] = {
    "the same as its audit record": (json.dumps(BODY), True),
    "as long as allowed": (json.dumps(LONGEST_BODY), True),
    "one byte too long": (json.dumps(LONGEST_BODY) + " ", False),
    "another person": (json.dumps({**BODY, "operator": "alice"}), False),
    "another person in a repeated key": (
        json.dumps(BODY)[:-1] + ', "\\u006fperator": "alice"}',
        False,
    ),
    "another reason": (json.dumps({**BODY, "reason": "the chief wants it"}), False),
    "another resolution": (json.dumps({**BODY, "resolution": "abandon"}), False),
    "no person": ('{"resolution":"retry","reason":"why"}', False),
    "not an object": ('["eve","retry","why"]', False),
    "null": ("null", False),
    "not JSON": ("{", False),
    "NUL": (json.dumps({**BODY, "result": "\0"}), False),
    "a lone surrogate": (json.dumps({**BODY, "result": "\ud800"}), False),
    "deep nesting": (json.dumps(BODY)[:-1] + ', "result": ' + "[" * 1_000_000, False),
}


WITH_KEY = {"key": "k", "digest_to_store": b"x" * 32, "input_digest": b"x" * 32}
STARTS: dict[str, tuple[Mapping[str, Any], bool]] = {
    "a valid start": ({}, True),
    "a saga that is too long": ({"saga": TEXT + "x"}, False),
    "no saga": ({"saga": ""}, False),
    "a long key": ({**WITH_KEY, "key": TEXT}, True),
    "a key that is too long": ({**WITH_KEY, "key": TEXT + "x"}, False),
    "an empty key": ({**WITH_KEY, "key": ""}, False),
    "a key without a stored digest": ({**WITH_KEY, "digest_to_store": None}, False),
    "a short digest": ({**WITH_KEY, "digest_to_store": b"x" * 31}, False),
    "an encrypted digest": (
        {**WITH_KEY, "digest_to_store": b"x" * 1000, "input_digest": None},
        True,
    ),
    "a digest that is too long": (
        {**WITH_KEY, "digest_to_store": b"x" * 1001, "input_digest": None},
        False,
    ),
    "version 0": ({"version": 0}, False),
    "no fingerprint": ({"fingerprint": ""}, False),
    "a fingerprint that is too long": ({"fingerprint": "x" * 101}, False),
    "a run id that is random": ({"run_id": str(uuid4())}, False),
    "a run id of another variant": ({"run_id": "0193d0c0-0000-7000-0000-000000000000"}, False),
}


async def refuses(store: RequesterStore, work: Any) -> bool:
    try:
        async with store.transaction() as tx:
            await work(tx)
    except StoreRefused:
        return True
    return False


@pytest.mark.parametrize("name", ACTIONS)
async def test_an_operator_action_has_the_same_bounds(store: RequesterStore, name: str):
    actions, fits = ACTIONS[name]
    assert await refuses(store, lambda tx: tx.record_actions(actions)) is not fits


async def request_resolve(
    tx: RequesterTransaction, actions: Sequence[OperatorAction], bodies: Sequence[str]
) -> None:
    columns: Columns = {
        "run_id": [each.run_id for each in actions],
        "audit_id": [each.id for each in actions],
        "body": list(bodies),
    }
    if isinstance(tx, SqlRequesterTransaction):
        await tx.sql.execute(checked_requests._REQUEST_RESOLVE, columns)
    else:
        assert isinstance(tx, MemoryStoreTransaction)
        await tx.add_operator_requests("resolve", rows_of(columns))


@pytest.mark.parametrize("name", BODIES)
async def test_an_operator_request_has_the_same_bounds(store: RequesterStore, name: str):
    body, fits = BODIES[name]
    action = make_action()

    async def work(tx: RequesterTransaction) -> None:
        await tx.record_actions([action])
        await request_resolve(tx, [action], [body])

    assert await refuses(store, work) is not fits


async def test_an_action_has_at_most_one_request(store: RequesterStore):
    first, second, foreign, settled = (
        make_action(),
        make_action(),
        make_action(action=ActionKind.CANCEL),
        make_action(),
    )
    body = json.dumps(BODY)
    async with store.transaction() as tx:
        await tx.record_actions([first, second, foreign, settled])
        await tx.record_outcomes([ActionOutcome(settled.id, AuditOutcome.ACCEPTED, "done")])
        await request_resolve(tx, [first], [body])
    for actions in ([first], [second, second], [foreign], [settled], [make_action()]):
        bodies = [body] * len(actions)
        assert await refuses(
            store,
            lambda tx, actions=actions, bodies=bodies: request_resolve(tx, actions, bodies),
        )
    many = [make_action() for _ in range(request_checks.MAX_ROWS)]
    async with store.transaction() as tx:
        await tx.record_actions(many)
        await request_resolve(tx, many, [body] * len(many))
    assert await refuses(
        store, lambda tx: request_resolve(tx, [*many, second], [body] * (len(many) + 1))
    )


async def start(store: RequesterStore, **given: Any) -> bool:
    """Request a start at the time of the database; return whether it is refused."""

    async def work(tx: RequesterTransaction) -> None:
        await tx.register_definitions([ORDERS])
        if "run_id" not in given:
            given["run_id"] = run_id(
                await tx.database_now() + timedelta(hours=given.pop("hours", 0))
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
        if isinstance(tx, SqlRequesterTransaction):
            await tx.sql.execute(checked_requests._REQUEST_START, arguments)
        else:
            assert isinstance(tx, MemoryStoreTransaction)
            await tx.request_start(arguments)

    return await refuses(store, work)


@pytest.mark.parametrize("name", STARTS)
async def test_a_start_has_the_same_bounds(store: RequesterStore, name: str):
    arguments, fits = STARTS[name]
    assert await start(store, **arguments) is not fits


@pytest.mark.parametrize("hours", [-25, -23, 23, 25])
async def test_the_time_of_a_run_id_is_within_a_day(sql_store: SqlRequesterStore, hours: int):
    assert await start(sql_store, hours=hours) is (abs(hours) > 24)
