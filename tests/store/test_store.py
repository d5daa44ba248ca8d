"""
What every Store promises that no other test runs on both of them, and that no method is left out.

The other tests that ask for the fixture `store` run on PostgreSQL and on its model as well.
"""

import ast
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from saga_engine.decider.events import IncidentOpened, IncidentResolved, RunAbandoned
from saga_engine.errors import StoreRefused
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.store.partitions import LockRetry, MaintenanceResult, ReaderReport
from saga_engine.store.pending_requests import DEFAULT_READ_LIMITS, NewRequest, RequestKind
from saga_engine.vocabulary import Direction, IncidentCause, Resolution
from tests.kit.stored_runs import ORDERS, insert_run, run_id, take_run_ids
from tests.kit.stores import RequesterStore

HERE = Path(__file__).parent


async def test_runs_that_another_transaction_has_locked_are_found(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        first, second = sorted([(await insert_run(tx, definition_id)).run_id for _ in range(2)])
    async with store.transaction() as one, store.batch() as other:
        await one.defer_wake(first, timedelta(0))
        for _ in range(2):  # it leaves no lock behind
            assert await other.locked_runs([first, second, run_id()]) == {first}
        await one.defer_wake(second, timedelta(0))
        assert not other.has_started
        assert set(await other.read_runs([first, second])) == {first, second}


async def test_a_key_is_released_unless_its_run_has_it(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id, key="kept")
        kept = KeyRequest(ORDERS.name, "kept", run.run_id, {})
        refused = KeyRequest(ORDERS.name, "refused", run_id(), {})
        await tx.reserve_keys([kept, refused])
        for request in (kept, refused):
            await tx.release_key(request.saga, request.key, run_id())
            await tx.release_key(request.saga, request.key, request.run_id)
        again = [KeyRequest(ORDERS.name, each.key, run_id(), {}) for each in (kept, refused)]
        assert await tx.reserve_keys(again) == [
            KeyOwner(run.run_id, same_input=True),
            KeyOwner(again[1].run_id, same_input=True),
        ]


async def test_starts_of_a_definition_that_was_never_loaded_are_taken(
    store: RequesterStore, definition_id: int
):
    loaded, lost, ours = (
        NewRequest(
            kind=RequestKind.START,
            run_id=run_id(),
            body={},
            saga=ORDERS.name,
            version=1,
            fingerprint=fingerprint,
            role=role,
        )
        for fingerprint, role in (
            (ORDERS.fingerprint, "shop"),
            ("never loaded", "shop"),
            ("never loaded", None),
        )
    )
    cancel = NewRequest(kind=RequestKind.CANCEL, run_id=lost.run_id, body={}, awaits_start=True)
    async with store.transaction() as tx:
        await tx.record_requests([loaded, lost, ours, cancel])
        young = await tx.take_stranded_starts(timedelta(hours=1), 9, DEFAULT_READ_LIMITS)
        taken = await tx.take_stranded_starts(timedelta(seconds=-1), 9, DEFAULT_READ_LIMITS)
        assert (young, [request.run_id for request in taken]) == ([], [lost.run_id])
        assert await take_run_ids(tx, definition_ids=[definition_id]) == [cancel.run_id]


def incident(number: int, step: str, at) -> IncidentOpened:
    return IncidentOpened(
        number=number,
        step=step,
        direction=Direction.ACTION,
        cause=IncidentCause.STEP_FAILED,
        message="",
        opened_at=at,
    )


async def test_an_incident_is_open_until_it_or_its_run_is_resolved(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        now = await tx.database_now()

        async def record(*events) -> dict:
            await tx.record_incidents([(run.run_id, event) for event in events])
            return dict((await tx.count_backlog(10_000)).open_incidents)

        charge, reserve = (
            (ORDERS.name, IncidentCause.STEP_FAILED, step) for step in ("charge", "reserve")
        )
        opened = await record(incident(1, "charge", now), incident(2, "reserve", now))
        assert opened == {charge: 1, reserve: 1}
        assert await record(IncidentResolved(1, Resolution.RETRY, "ada", "fixed")) == {reserve: 1}
        assert await record(RunAbandoned(now, "ada", "given up")) == {}
    with pytest.raises(StoreRefused, match="23505"):
        async with store.transaction() as tx:
            await tx.record_incidents([(run.run_id, incident(2, "reserve", now))])


async def test_dead_letters_beyond_the_quota_of_their_sender_are_not_kept(store: RequesterStore):
    def letter(sender: str, *, exempt: bool = False) -> DeadLetter:
        return DeadLetter(
            queue="q",
            reason=DeadLetterReason.BAD_REQUEST,
            detail="",
            body=b"",
            body_size=0,
            sender=sender,
            exempt_from_quota=exempt,
        )

    async with store.transaction() as tx:
        await tx.record_dead_letters([], 9, quota=2)
        await tx.record_dead_letters([letter("shop")] * 3, 9, quota=2)
        await tx.record_dead_letters([letter("shop"), letter("desk")], 9, quota=2)
        await tx.record_dead_letters([letter("shop", exempt=True)], 9, quota=2)
        kept = (await tx.count_backlog(10_000)).dead_letters
    assert kept == {("q", DeadLetterReason.BAD_REQUEST): 4}


async def test_an_action_with_an_outcome_gets_no_request(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        of = (await insert_run(tx, definition_id)).run_id
    action = OperatorAction(
        id=str(uuid4()), operator="ada", action=ActionKind.CANCEL, reason="why", run_id=of
    )
    body = {"operator": "ada", "reason": "why"}
    cancel = NewRequest(kind=RequestKind.CANCEL, run_id=of, body=body, audit_id=action.id)
    async with store.transaction() as tx:
        await tx.record_actions([action])
        await tx.record_outcomes([])
        await tx.record_outcomes([ActionOutcome(action.id, AuditOutcome.REFUSED, "no")])
    with pytest.raises(StoreRefused, match="22023"):
        async with store.transaction() as tx:
            await tx.record_operator_requests([cancel])


async def test_the_token_keys_are_generated_once(store: RequesterStore):
    async with store.transaction() as tx:
        keys = await tx.token_keys()
        assert await tx.token_keys() == keys
    assert keys.accepted == (keys.signing,)


async def test_maintenance_changes_nothing_when_there_is_nothing_to_do(store: RequesterStore):
    done = await store.maintain_partitions(
        retention_days=30, months_ahead=12, lock_retry=LockRetry(), retention_hold=1.0
    )
    assert done == MaintenanceResult(created=0, dropped=(), readers=ReaderReport())
    assert await store.purge_expired(dead_letter_days=1, audit_days=1) == 0


# no method is left out


def methods_of(protocol: type) -> set[str]:
    """The methods of a protocol and of those that it extends."""
    classes = [each for each in protocol.__mro__ if getattr(each, "_is_protocol", False)]
    return {
        name
        for each in classes
        for name, member in vars(each).items()
        if not name.startswith("_") and not isinstance(member, property)
    }


def functions_of(paths: list[Path]) -> Iterator[ast.AsyncFunctionDef]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef):
                yield node


def calls_of(function: ast.AsyncFunctionDef) -> set[str]:
    """The names of methods that a function calls, and of functions."""
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    methods = {node.attr for node in called if isinstance(node, ast.Attribute)}
    return methods | {node.id for node in called if isinstance(node, ast.Name)}


def test_each_method_of_a_store_is_called_on_both_of_them():
    functions = {each.name: each for each in functions_of(sorted(HERE.glob("test_*.py")))}
    helpers = {each.name: each for each in functions_of([HERE.parent / "kit" / "stored_runs.py"])}
    on_both = [
        each for each in functions.values() if "store" in {arg.arg for arg in each.args.args}
    ]
    called = set[str]().union(*map(calls_of, on_both))
    called |= set[str]().union(*(calls_of(helpers[name]) for name in called & helpers.keys()))
    assert methods_of(StoreTransaction) | methods_of(Store) <= called
