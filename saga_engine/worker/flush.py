"""
Writes a change set to the store: one set-based statement for each kind of row.

Nothing is decided here. The rows of the runs are locked already, and are saved before everything
that only this transaction touches, so that two transactions do not wait for each other here.

Other modules write in the same transaction: `starts` reserves business keys and inserts runs,
`start_refusals` and `batch_transaction` release the keys of refused starts, `batch_transaction`
clears crash suspects, the duties take pending requests, and `batch_runner` deletes the outbox rows
that the broker has confirmed.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from saga_engine.decider.triggers import Cancel, ResolveIncident, Start
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.token import redact_token
from saga_engine.settings import Settings
from saga_engine.store.audit import ActionOutcome, AuditOutcome
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.journal import NewDecision, NewJournalRow
from saga_engine.store.outbox import OutboxRow
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.runs import FIRST_REVISION, StoredRun
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.worker.change_set import AppliedDecision, ChangeSet
from saga_engine.worker.work_item import DeadLetterItem, WorkItem

LOCK_RETRY_DELAY = timedelta(seconds=1)
"""The delay before a deferred work item is retried: another transaction holds its run or key."""


async def flush_changes(tx: StoreTransaction, changes: ChangeSet, settings: Settings) -> None:
    """Write the change set; then `after_commit.commands` are the outbox rows to publish."""
    after_commit = changes.after_commit
    journal_rows = _journal_rows(changes)
    await tx.save_runs(
        [changes.locked_runs[run_id] for run_id in changes.changed_run_ids],
        appended={each.run_id for each in journal_rows if each.revision > FIRST_REVISION},
    )
    await tx.append_to_journal(journal_rows)
    await tx.record_incidents(
        [(each.after.run_id, event) for each in after_commit.decisions for event in each.events]
    )
    outbox_ids = await tx.add_commands(changes.commands)
    after_commit.commands = [
        OutboxRow(outbox_id, command, changes.now)
        for outbox_id, command in zip(outbox_ids, changes.commands, strict=True)
    ]
    dead_letter_rows = [_dead_letter_row(dead_letter) for dead_letter in after_commit.dead_letters]
    await tx.record_dead_letters(
        dead_letter_rows,
        settings.max_dead_letter_body_bytes,
        settings.max_open_dead_letters_per_source,
    )
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
    await tx.record_requests(requests)
    outcome_rows = [
        ActionOutcome(
            each.audit_id,
            AuditOutcome.ACCEPTED if each.accepted else AuditOutcome.REFUSED,
            each.message,
        )
        for each in changes.operator_answers
    ]
    await tx.record_outcomes(outcome_rows)


def _journal_rows(changes: ChangeSet) -> list[NewJournalRow]:
    """One row for each run with a decision: all its decisions, in order."""
    by_run: dict[str, list[AppliedDecision]] = {}
    for decision in changes.after_commit.decisions:
        by_run.setdefault(decision.after.run_id, []).append(decision)
    return [
        NewJournalRow(
            run_id=run_id,
            revision=_next_revision(changes.locked_runs[run_id], decisions),
            recorded_at=changes.now,
            decisions=[NewDecision(each.events, _metadata(each)) for each in decisions],
        )
        for run_id, decisions in by_run.items()
    ]


def _next_revision(stored: StoredRun, decisions: Sequence[AppliedDecision]) -> int:
    """The row of a run that has started in this transaction was inserted with its revision."""
    is_started_here = decisions[0].before is None
    return stored.revision if is_started_here else stored.revision + 1


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
    stored = changes.locked_runs.get(work_item.run_id)
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
