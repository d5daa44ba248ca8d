"""A request says what its act says: who, why and what; and an act has one request."""

import json
from uuid import uuid4

import pytest
from sqlalchemy import text

from saga_engine.errors import StoreRefused
from saga_engine.store import audit, checked_requests
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.vocabulary import Resolution
from tests.kit.stored_runs import run_id

SAID = {
    "incident_number": 1,
    "resolution": "retry",
    "operator": "eve",
    "reason": "why",
    "result": None,
}
DEEP = '{"operator":"eve","reason":"why","resolution":"retry","result":' + "[" * 1_000_000
ADD = text(
    """
    SELECT saga_engine.request_resolve(CAST(:run_ids AS uuid[]), CAST(:ids AS uuid[]),
        CAST(:bodies AS text[]))"""
)
COUNT = text("SELECT count(*) FROM saga_engine.pending_request")


async def ask(database: Database, *bodies: str, act: OperatorAction | None = None) -> None:
    """Record an act of Eve's, and requests with these bodies under it."""
    act = act or OperatorAction(
        id=str(uuid4()), operator="eve", action=ActionKind.RETRY, reason="why", run_id=run_id()
    )
    arguments = {
        "run_ids": [act.run_id] * len(bodies),
        "ids": [act.id] * len(bodies),
        "bodies": list(bodies),
    }
    async with database.transaction() as tx:
        await audit.record(tx, [act])
        await tx.execute(ADD, arguments)


async def waiting(database: Database) -> int:
    async with database.transaction() as tx:
        found: int = (await tx.execute(COUNT)).scalar_one()
        return found


FORGED = {
    "another person": json.dumps({**SAID, "operator": "alice"}),
    "another person, said last": json.dumps(SAID)[:-1] + ', "\\u006fperator": "alice"}',
    "another reason": json.dumps({**SAID, "reason": "the chief wants it"}),
    "another resolution": json.dumps({**SAID, "resolution": "abandon"}),
    "no person": '{"resolution":"retry","reason":"why"}',
    "no object": '["eve","retry","why"]',
    "null": "null",
    "no JSON": "{",
    "NUL": json.dumps({**SAID, "result": "\0"}),
    "a number beyond all numbers": json.dumps(SAID)[:-1] + ', "result": 1e999999999}',
    "deep nesting": DEEP,
    "too long": json.dumps({**SAID, "result": "x" * (4 * 1024 * 1024)}),
}


@pytest.mark.parametrize("forged", FORGED)
async def test_a_request_that_differs_from_its_action_is_refused(database: Database, forged):
    with pytest.raises(StoreRefused):
        await ask(database, FORGED[forged])
    assert await waiting(database) == 0


async def test_an_action_has_one_request(database: Database):
    said = json.dumps(SAID)
    with pytest.raises(StoreRefused):
        await ask(database, *[said] * 1000)
    act = OperatorAction(
        id=str(uuid4()), operator="eve", action=ActionKind.RETRY, reason="why", run_id=run_id()
    )
    await ask(database, said, act=act)
    with pytest.raises(StoreRefused):
        await ask(database, said, act=act)
    assert await waiting(database) == 1


async def test_a_decided_action_takes_no_request(database: Database):
    act = OperatorAction(
        id=str(uuid4()), operator="eve", action=ActionKind.RETRY, reason="why", run_id=run_id()
    )
    await ask(database, json.dumps(SAID), act=act)
    async with database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.pending_request"))
        await audit.record_outcomes(tx, [ActionOutcome(act.id, AuditOutcome.ACCEPTED, "done")])
    with pytest.raises(StoreRefused):
        await ask(database, json.dumps(SAID), act=act)
    assert await waiting(database) == 0


@pytest.mark.parametrize("resolution", Resolution)
async def test_requests_of_the_command_line_are_recorded(database: Database, resolution):
    act = OperatorAction(
        id=str(uuid4()),
        operator="é\\",
        action=ActionKind(resolution.value),
        reason='why "so"',
        run_id=run_id(),
    )
    body = {**SAID, "resolution": resolution.value, "operator": act.operator, "reason": act.reason}
    cancel = OperatorAction(
        id=str(uuid4()), operator="é\\", action=ActionKind.CANCEL, reason="why", run_id=act.run_id
    )
    assert act.run_id is not None
    assert cancel.run_id is not None
    async with database.transaction() as tx:
        await audit.record(tx, [act, cancel])
        await checked_requests.record_operator_requests(
            tx,
            [
                NewRequest(kind=RequestKind.RESOLVE, run_id=act.run_id, body=body, audit_id=act.id),
                NewRequest(
                    kind=RequestKind.CANCEL,
                    run_id=act.run_id,
                    body={"operator": "é\\", "reason": "why"},
                    audit_id=cancel.id,
                ),
            ],
        )
    assert await waiting(database) == 2
