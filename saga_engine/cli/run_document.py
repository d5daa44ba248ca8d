"""The JSON documents of `list` and `show`: runs with their steps, journal and audit log."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saga_engine.cli.incident_guidance import incident_detail_json
from saga_engine.decider.run import CompensationCause, Progress, Run, StepState
from saga_engine.payload.encryption import (
    PayloadEncryption,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.payload.serialization import to_data
from saga_engine.protocol.failure import failure_json
from saga_engine.store.audit import AuditRecord
from saga_engine.store.journal import StoredEvent
from saga_engine.store.run_queries import RunDetail, RunSummary
from saga_engine.vocabulary import Direction


def summary_json(summary: RunSummary) -> dict[str, Any]:
    """Return a run as `list` shows it."""
    return {
        "run_id": summary.run_id,
        "saga": summary.saga,
        "version": summary.version,
        "key": summary.key,
        "status": summary.status,
        "revision": summary.revision,
        "started_at": summary.started_at,
        "updated_at": summary.updated_at,
        "finished_at": summary.finished_at,
        "deadline": summary.deadline,
        "open_incidents": summary.open_incidents,
        "result": summary.result,
        "error": failure_json(summary.failure) if summary.failure else None,
    }


def detail_json(detail: RunDetail, encryption: PayloadEncryption) -> dict[str, Any]:
    """Return a run as `show` shows it, decrypted where *encryption* has the key."""
    run = _decrypted(detail.stored_run.run, encryption)
    return {
        "run_id": run.run_id,
        "saga": run.saga,
        "version": run.version,
        "fingerprint": run.fingerprint,
        "key": run.key,
        "status": run.status,
        "revision": detail.stored_run.revision,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "deadline": run.deadline,
        "wake_at": detail.stored_run.wake_at,
        "input": run.input,
        "result": run.result,
        "cause": to_data(run.compensation_cause) if run.compensation_cause else None,
        "pending_stop": to_data(run.stop_cause) if run.stop_cause else None,
        "steps": [_step_json(step, run) for step in detail.document["steps"]],
        "incidents": [incident_detail_json(each, run, encryption) for each in detail.incidents],
        "journal": [_journal_entry_json(each) for each in detail.journal],
        "audit": [_audit_json(each) for each in detail.audit],
        "damage": [{"revision": each.revision, "problem": each.problem} for each in detail.damage],
    }


def _decrypted(run: Run, encryption: PayloadEncryption) -> Run:
    """Decrypt the payloads for which there is a key; leave the others encrypted."""
    run_id = run.run_id

    def decrypted_progress(name: str, state: StepState, direction: Direction) -> Progress:
        encrypted = state.progress_of(direction)
        return replace(
            encrypted,
            reply=encryption.decrypt_if_possible(
                encrypted.reply, reply_associated_data(run_id, name, direction)
            ),
            failure=encrypted.failure
            and encryption.decrypt_failure_if_possible(encrypted.failure, run_id),
        )

    def decrypted_cause(cause: CompensationCause | None) -> CompensationCause | None:
        if cause is None or cause.failure is None:
            return cause
        return replace(cause, failure=encryption.decrypt_failure_if_possible(cause.failure, run_id))

    return replace(
        run,
        input=encryption.decrypt_if_possible(run.input, input_associated_data(run.saga, run_id)),
        result=encryption.decrypt_result_if_possible(run.result, run_id),
        steps={
            name: StepState(
                *(decrypted_progress(name, state, direction) for direction in Direction)
            )
            for name, state in run.steps.items()
        },
        compensation_cause=decrypted_cause(run.compensation_cause),
        stop_cause=decrypted_cause(run.stop_cause),
    )


def _step_json(declared: Mapping[str, Any], run: Run) -> dict[str, Any]:
    step = run.steps.get(declared["name"], StepState())
    compensation = declared["compensation"]
    return {
        "name": declared["name"],
        "kind": declared["kind"],
        **_progress_json(declared["command"], step.action),
        "compensation": compensation and _progress_json(compensation, step.compensation),
    }


def _progress_json(command: str, progress: Progress) -> dict[str, Any]:
    return {
        "command": command,
        "status": progress.status,
        "attempts": progress.attempts,
        "due_at": progress.due_at,
        "reply": progress.reply,
        "error": failure_json(progress.failure) if progress.failure else None,
    }


def _journal_entry_json(entry: StoredEvent) -> dict[str, Any]:
    return {
        "revision": entry.revision,
        "position": entry.position,
        "type": entry.type,
        "at": entry.recorded_at,
        "data": entry.data,
        "metadata": entry.metadata,
    }


def _audit_json(audited: AuditRecord) -> dict[str, Any]:
    return {
        "id": audited.id,
        "at": audited.recorded_at,
        "operator": audited.operator,
        "role": audited.role,
        "action": audited.action,
        "target": audited.target,
        "reason": audited.reason,
        "outcome": audited.outcome,
        "message": audited.message,
    }
