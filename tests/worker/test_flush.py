"""Dead letters within the quota of each source, and snapshots of runs with long journals."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from saga_engine.decider.triggers import Cancel, Start
from saga_engine.identifiers import uuid7
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.settings import Settings
from saga_engine.store import dead_letters, runs
from saga_engine.store.pending_requests import PendingRequest, RequestKind
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Status
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.flush import flush_changes
from saga_engine.worker.work_item import WorkItem
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises

SENDERS = text("SELECT sender, count(*) FROM saga_engine.dead_letter GROUP BY sender")


def stored_request(role, trigger=None, fingerprint=None):
    run_id = str(uuid7())
    trigger = trigger or Cancel("x", "x")
    row = PendingRequest(
        id=1,
        kind=RequestKind.CANCEL,
        run_id=run_id,
        body="{}",
        body_size=2,
        body_complete=True,
        saga=None,
        version=None,
        definition_id=None,
        audit_id=None,
        reply_to=None,
        correlation_id=None,
        sender=None,
        key=None,
        role=role,
        fingerprint=fingerprint,
    )
    return WorkItem(
        run_id=run_id,
        trigger=trigger,
        saga="buy",
        pending_request=row,
        role=role,
        fingerprint=fingerprint,
    )


def start(role=None, fingerprint=None):
    return stored_request(role, Start(str(uuid7()), None, {}), fingerprint)


async def dead_letter_all(engine, *work_items):
    """Dead-letter them with a quota of one a source; return how many are stored by source."""
    changes = ChangeSet(datetime(2026, 11, 15, tzinfo=UTC), {})
    for each in work_items:
        changes.dead_letter(each, DeadLetterReason.INTERNAL_ERROR, "It is junk.")
    async with engine.database.transaction() as tx:
        await flush_changes(
            SqlStoreTransaction(tx), changes, Settings(max_open_dead_letters_per_source=1)
        )
        return dict((await tx.execute(SENDERS)).all())


async def test_dead_letters_of_one_role_use_no_quota_of_another(engine):
    kept = await dead_letter_all(
        engine, *[stored_request("shop")] * 9, stored_request("desk"), stored_request(None)
    )
    assert kept == {"role:shop": 1, "role:desk": 1, "": 1}
    async with engine.database.transaction() as tx:
        assert list((await dead_letters.read_dropped(tx)).values()) == [8]


async def test_an_accepted_start_is_kept_beyond_the_quota(engine):
    work_items = [
        stored_request("shop"),
        start("shop"),
        start("shop"),
        start(fingerprint="f"),
    ]
    kept = await dead_letter_all(engine, *work_items, start(fingerprint="f"), start(), start())
    assert kept == {"role:shop": 3, "": 2}


@pytest.mark.parametrize(("interval", "snapshots"), [(1, (2, 2)), (2, (0, 3)), (3, (0, 0))])
async def test_a_snapshot_is_written_after_as_many_rows_as_are_set(engine, interval, snapshots):
    """A worker that remembers nothing reads the run from its snapshot and the rows after it."""
    stored = await stored_after_two_steps(
        engine, {}, run_cache_bytes=0, run_snapshot_interval=interval
    )
    assert tuple(each.snapshot_revision for each in stored) == snapshots


LARGE = 8_000
"""Bytes of an input: the first row of a journal has it twice, with its first command."""


@pytest.mark.parametrize("run_cache_bytes", [0, 16_777_216])
@pytest.mark.parametrize(
    ("most", "snapshots"), [(2 * LARGE, (2, 2)), (3 * LARGE, (0, 3)), (5 * LARGE, (0, 0))]
)
async def test_a_snapshot_is_written_after_as_many_bytes_as_are_set(
    engine, most, snapshots, run_cache_bytes
):
    """What a worker reads of a journal has at most so many bytes, and those of the last row."""
    stored = await stored_after_two_steps(
        engine, {"text": "x" * LARGE}, run_cache_bytes=run_cache_bytes, run_snapshot_bytes=most
    )
    assert tuple(each.snapshot_revision for each in stored) == snapshots
    assert all(each.journal_size < most + 1.5 * LARGE for each in stored)


async def stored_after_two_steps(engine, parcel, **settings):
    """Let a run be executed; return how it is stored after each of its first two steps."""
    participant, client = await engine.start_participant(), await engine.connect_client()
    for command in ("parcel.send", "parcel.notify"):
        participant.reply_makers[command] = no_reply
    worker = await engine.start_worker(parcels(), **settings)
    run_id = await client.start(input=parcel)
    stored = []
    for command in ("parcel.send", "parcel.notify"):
        [sent] = await participant.wait_for_commands(command)
        async with engine.database.transaction() as tx:
            stored.append((await runs.read(tx, [run_id]))[run_id])
        await participant.publish(*succeed(sent))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)
    return stored
