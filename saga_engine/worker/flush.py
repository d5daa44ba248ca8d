"""
Writes a change set to the store: the runs in one statement, and one for each other kind of row.

Nothing is decided here. Usually a batch has no other rows: then the one statement is committed
alone. Otherwise everything is one transaction, and the runs come first: if another worker has
changed one of them, nothing is written and the batch is decided again.

Other modules write in the same transaction: `starts` reserves business keys, `start_refusals` and
`batch_transaction` release the keys of refused starts, `batch_transaction` clears crash suspects,
and the duties take pending requests.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from saga_engine.decider.commands import commands_to_send
from saga_engine.decider.events import Event, IncidentOpened, IncidentResolved, RunAbandoned
from saga_engine.decider.triggers import Cancel, ResolveIncident, Start
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.token import redact_token
from saga_engine.settings import Settings
from saga_engine.store.audit import ActionOutcome, AuditOutcome
from saga_engine.store.batch_append import AppendResult, BatchAppend, RunAppend
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.journal import NewDecision, NewJournalRow
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.runs import StoredRun
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.worker.change_set import AppliedDecision, ChangeSet
from saga_engine.worker.work_item import DeadLetterItem, WorkItem

LOCK_RETRY_DELAY = timedelta(seconds=1)
"""The delay before a deferred work item is retried: another transaction holds its run or key."""

INTERNAL_ERROR_DELAY = timedelta(minutes=5)
"""
The backoff of a run whose timers hit a bug of the engine, and of a request that does. It is longer
than `idle_run_threshold`, so that such a run does not keep a slot that another run could use.
"""

_INCIDENT_EVENTS = (IncidentOpened, IncidentResolved, RunAbandoned)


class RunsChanged(Exception):
    """Another worker has decided about runs of this transaction: nothing of it is written."""

    def __init__(self, run_ids: Collection[str]) -> None:
        super().__init__(f"{len(run_ids)} runs were changed by another worker")
        self.run_ids = run_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class _OtherRows:
    """What a change set writes besides the runs."""

    incident_events: Sequence[tuple[str, Event]]
    dead_letters: Sequence[DeadLetter]
    requests: Sequence[NewRequest]
    outcomes: Sequence[ActionOutcome]
    postponed_run_ids: Collection[str]

    def __bool__(self) -> bool:
        return any(
            (
                self.incident_events,
                self.dead_letters,
                self.requests,
                self.outcomes,
                self.postponed_run_ids,
            )
        )


async def flush_changes(
    tx: StoreTransaction,
    changes: ChangeSet,
    settings: Settings,
    confirmed_ids: Sequence[int] = (),
) -> AppendResult | None:
    """
    Write the change set; then `after_commit.commands` are the outbox rows to publish.

    Args:
        confirmed_ids: rows of the outbox that the broker has confirmed; they are deleted.

    Returns:
        What became of the runs; None if the change set has none.

    Raises:
        RunsChanged: another worker was first, and the transaction has other rows or deletes
            unroutable commands.
    """
    other_rows, unroutable_ids = _other_rows(changes), changes.unroutable_ids
    if other_rows or unroutable_ids:
        await tx.begin()
    result = await _append_runs(tx, changes, settings, [*confirmed_ids, *unroutable_ids])
    if result is not None and result.lost:
        if tx.has_started:
            raise RunsChanged(result.lost)
        changes.discard_runs(result.lost)
    if other_rows:
        await _write_other_rows(tx, other_rows, settings)
    return result


async def _append_runs(
    tx: StoreTransaction, changes: ChangeSet, settings: Settings, confirmed_ids: Sequence[int]
) -> AppendResult | None:
    appends = _run_appends(changes, settings)
    appended_ids = {each.journal_row.run_id for each in appends}
    unchanged = {
        run_id: changes.runs[run_id].revision
        for run_id in sorted(changes.decided_run_ids - appended_ids)
    }
    if not (appends or unchanged or confirmed_ids):
        return None
    batch = BatchAppend(runs=appends, unchanged=unchanged, confirmed_ids=confirmed_ids)
    changes.batch_append = batch
    result = await tx.append_runs(batch)
    changes.after_commit.commands = list(result.outbox)
    for each in appends:
        run_id, stored = each.journal_row.run_id, each.stored_run
        written = result.written_bytes[run_id]
        if stored.snapshot_revision == stored.revision:
            size, journal_size = written, 0
        else:
            size, journal_size = stored.size + written, stored.journal_size + written
        changes.runs[run_id] = replace(stored, size=size, journal_size=journal_size)
    return result


def _run_appends(changes: ChangeSet, settings: Settings) -> list[RunAppend]:
    """One entry for each run with a decision, or whose timers were processed."""
    by_run: dict[str, list[AppliedDecision]] = {
        run_id: [] for run_id in sorted(changes.woken_run_ids)
    }
    for decision in changes.after_commit.decisions:
        by_run.setdefault(decision.after.run_id, []).append(decision)
    return [
        _run_append(_next_revision(changes.runs[run_id], decisions, settings), decisions, changes)
        for run_id, decisions in by_run.items()
    ]


def _run_append(
    stored: StoredRun, decisions: Sequence[AppliedDecision], changes: ChangeSet
) -> RunAppend:
    run_id = stored.run.run_id
    return RunAppend(
        stored_run=stored,
        journal_row=NewJournalRow(
            run_id=run_id,
            revision=stored.revision,
            recorded_at=changes.now,
            decisions=[NewDecision(each.events, _metadata(each)) for each in decisions],
        ),
        commands=[
            command for each in decisions for command in commands_to_send(each.after, each.events)
        ],
        new_key=changes.new_keys.get(run_id),
        wakes=run_id in changes.woken_run_ids,
    )


def _next_revision(
    stored: StoredRun, decisions: Sequence[AppliedDecision], settings: Settings
) -> StoredRun:
    """The run with the revision of its new row; one that starts in this batch has it already."""
    if decisions and decisions[0].before is None:
        return stored
    revision, snapshot_revision = stored.revision + 1, stored.snapshot_revision
    is_long = (
        revision - snapshot_revision > settings.run_snapshot_interval
        or stored.journal_size >= settings.run_snapshot_bytes
    )
    if is_long and not stored.run.status.is_finished:
        snapshot_revision = revision
    return replace(stored, revision=revision, snapshot_revision=snapshot_revision)


def _other_rows(changes: ChangeSet) -> _OtherRows:
    after_commit = changes.after_commit
    requests = [
        _pending_request(work_item, changes, timedelta())
        for work_item in after_commit.awaiting_definition
    ]
    requests += [
        _request_awaiting_admission(work_item, changes)
        for work_item in after_commit.awaiting_admission
    ]
    requests += [
        _pending_request(work_item, changes, LOCK_RETRY_DELAY)
        for work_item in after_commit.deferred
    ]
    return _OtherRows(
        incident_events=[
            (each.after.run_id, event)
            for each in after_commit.decisions
            for event in each.events
            if isinstance(event, _INCIDENT_EVENTS)
        ],
        dead_letters=[_dead_letter_row(each) for each in after_commit.dead_letters],
        requests=requests,
        outcomes=[
            ActionOutcome(
                each.audit_id,
                AuditOutcome.ACCEPTED if each.accepted else AuditOutcome.REFUSED,
                each.message,
            )
            for each in changes.operator_answers
        ],
        postponed_run_ids=changes.postponed_run_ids,
    )


async def _write_other_rows(tx: StoreTransaction, rows: _OtherRows, settings: Settings) -> None:
    if rows.incident_events:
        await tx.record_incidents(rows.incident_events)
    if rows.dead_letters:
        await tx.record_dead_letters(
            rows.dead_letters,
            settings.max_dead_letter_body_bytes,
            settings.max_open_dead_letters_per_source,
        )
    if rows.requests:
        await tx.record_requests(rows.requests)
    if rows.outcomes:
        await tx.record_outcomes(rows.outcomes)
    for run_id in sorted(rows.postponed_run_ids):
        await tx.defer_wake(run_id, INTERNAL_ERROR_DELAY)


def _metadata(decision: AppliedDecision) -> dict[str, str]:
    """What caused a decision, as far as that is known."""
    work_item = decision.work_item
    metadata = {}
    if work_item is not None and work_item.message_id:
        metadata["causation_id"] = work_item.message_id
    if work_item is not None and work_item.correlation_id:
        metadata["correlation_id"] = work_item.correlation_id
    if work_item is not None and isinstance(work_item.trigger, Cancel | ResolveIncident):
        metadata |= _verified_sender(work_item)
    return metadata


def _verified_sender(work_item: WorkItem) -> dict[str, str]:
    """Who sent it, as RabbitMQ or PostgreSQL knows; the request itself may name another user."""
    verified = {"sender": work_item.sender, "role": work_item.role}
    return {name: value for name, value in verified.items() if value}


def _pending_request(work_item: WorkItem, changes: ChangeSet, delay: timedelta) -> NewRequest:
    kind, body = serialize_trigger(work_item.trigger)
    stored = changes.runs.get(work_item.run_id)
    return NewRequest(
        kind=kind,
        run_id=work_item.run_id,
        body=body,
        saga=work_item.saga or None,
        version=work_item.version,
        definition_id=stored.definition_id if stored else None,
        audit_id=work_item.audit_id,
        reply_to=work_item.answer_to.reply_to if work_item.answer_to else None,
        correlation_id=work_item.answer_to.correlation_id if work_item.answer_to else None,
        sender=work_item.sender,
        key=work_item.trigger.key if isinstance(work_item.trigger, Start) else None,
        role=work_item.role,
        delay=delay,
        fingerprint=work_item.fingerprint,
    )


def _request_awaiting_admission(work_item: WorkItem, changes: ChangeSet) -> NewRequest:
    """A start waits for a slot; any other request waits until the start of its run has one."""
    request = _pending_request(work_item, changes, timedelta())
    return replace(request, awaits_start=request.kind != RequestKind.START)


def _dead_letter_row(dead_letter: DeadLetterItem) -> DeadLetter:
    delivery, correlation_id = dead_letter.delivery, dead_letter.delivery.correlation_id
    return DeadLetter(
        queue=delivery.queue,
        reason=dead_letter.reason,
        detail=dead_letter.detail,
        body=delivery.body,
        body_size=delivery.body_size,
        run_id=dead_letter.run_id,
        message_id=delivery.message_id,
        # One that is not verified may be the token of a key that this worker has yet to read. It is
        # kept as it came, so that it can be sent again; a verified one is signed anew then.
        correlation_id=redact_token(correlation_id) if dead_letter.signed else correlation_id,
        type=delivery.type,
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        properties=_properties(delivery),
        headers=delivery.headers,
        is_engine_token=dead_letter.signed,
        sender=f"role:{dead_letter.role}" if dead_letter.role is not None else "",
        exempt_from_quota=dead_letter.quota_exempt,
    )


def _properties(delivery: Delivery) -> dict[str, str]:
    properties = {
        "reply_to": delivery.reply_to,
        "content_type": delivery.content_type,
        "content_encoding": delivery.content_encoding,
        "user_id": delivery.user_id,
        "app_id": delivery.app_id,
    }
    if delivery.timestamp is not None:
        properties["timestamp"] = delivery.timestamp.isoformat()
    return {name: value for name, value in properties.items() if value}
