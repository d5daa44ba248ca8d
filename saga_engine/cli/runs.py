"""`saga-engine list` and `show`: what is on record about runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.database import open_database, open_transaction, parse_run_id, run_not_found
from saga_engine.cli.incident_guidance import LABEL_WIDTH, incident_detail_json, print_incident
from saga_engine.cli.output import (
    AsJson,
    format_cell,
    print_field,
    print_json,
    print_line,
    print_table,
)
from saga_engine.cli.paging import (
    check_limit,
    make_page,
    option_words,
    page_json,
    print_page_summary,
)
from saga_engine.decider.run import CompensationCause, Progress, Run, StepRun, StepStatus
from saga_engine.encryption.configuration import encryption_from
from saga_engine.encryption.keyring import ciphertext_prefix
from saga_engine.errors import NotFound
from saga_engine.payload.encryption import (
    NO_ENCRYPTION,
    PayloadEncryption,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.payload.serialization import to_data
from saga_engine.protocol.failure import failure_json
from saga_engine.settings import Settings
from saga_engine.store import run_queries
from saga_engine.store.audit import AuditRecord
from saga_engine.store.journal import StoredEvent
from saga_engine.store.run_queries import RunDetail, RunSummary
from saga_engine.vocabulary import Direction, Status

PAGE_LIMIT_MAX = 1000
"""Runs in one page; more only fill the memory of whoever reads them."""


async def list_runs(  # noqa: PLR0913 - one for each way to choose
    *,
    status: Annotated[Status | None, Parameter(help="Only runs that stand there.")] = None,
    saga: Annotated[str | None, Parameter(help="Only runs of this saga.")] = None,
    key: Annotated[str | None, Parameter(help="Only the run with this business key.")] = None,
    encrypted_with: Annotated[
        str | None, Parameter(help="Only runs that hold what this key of aes-gcm sealed.")
    ] = None,
    limit: Annotated[int, Parameter(help="How many, at most 1000.")] = 20,
    after: Annotated[str | None, Parameter(help="The last run of the previous page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first: by the time in a run's id, when its start was asked for."""
    check_limit(limit, PAGE_LIMIT_MAX)
    last_run_id = parse_run_id(after) if after else None
    key_prefix = ciphertext_prefix(encrypted_with) if encrypted_with else None
    settings = Settings.load()
    async with open_database(settings) as database, database.transaction() as tx:
        rows = await run_queries.list_runs(
            tx,
            limit=limit + 1,
            status=status,
            saga=saga,
            key=key,
            value_prefix=key_prefix,
            before_run_id=last_run_id,
        )
        total = None  # sealed values are in no index, so that counting would read every run
        if key_prefix is None:
            count_limit = settings.max_listing_total
            total = await run_queries.count_runs(tx, count_limit, status=status, saga=saga, key=key)
    page = make_page(rows, limit, total)
    cursor = page.rows[-1].run_id if page.rows else None
    if as_json:
        print_json({"runs": [_summary_json(each) for each in page.rows], **page_json(page, cursor)})
        return
    print_table(
        ("run", "saga", "version", "key", "status", "incidents", "started"),
        [
            (
                *(each.run_id, each.saga, each.version, each.key, each.status),
                *(each.open_incidents, each.started_at),
            )
            for each in page.rows
        ],
        empty="No runs.",
    )
    option_values = {
        "--status": status,
        "--saga": saga,
        "--key": key,
        "--encrypted-with": encrypted_with,
    }
    print_page_summary(
        page, "runs", ["list", *option_words(option_values | {"--limit": limit})], cursor
    )


async def show(
    run: str,
    /,
    *,
    decrypt: Annotated[
        bool, Parameter(negative=(), help="Open what the keys here open; the journal stays sealed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Show everything on record about a run, or one of its incidents and what can be done about it.

    Args:
        run: Its id, or RUN/NUMBER for one incident.
    """
    run_text, separator, number = run.partition("/")
    run_id = parse_run_id(run_text)
    async with open_transaction() as tx:
        detail = await run_queries.read_detail(tx, run_id)
    if detail is None:
        raise run_not_found(run_id)
    detail_json = _detail_json(
        detail, encryption_from(Settings.load()) if decrypt else NO_ENCRYPTION
    )
    if separator:
        _show_incident(detail_json, f"{run_id}/{number}", as_json=as_json)
    elif as_json:
        print_json(detail_json)
    else:
        _print_detail(detail_json)


def _show_incident(detail_json: Mapping[str, Any], incident_id: str, *, as_json: bool) -> None:
    for incident in detail_json["incidents"]:
        if incident["id"] == incident_id and as_json:
            print_json({"incident": incident, "steps": detail_json["steps"]})
            return
        if incident["id"] == incident_id:
            for each in ("saga", "version", "key", "status"):
                print_field(each, detail_json[each], label_width=LABEL_WIDTH)
            print_incident(incident, detail_json["steps"])
            return
    raise NotFound(
        f"There is no incident {incident_id!r}. `saga-engine incidents` lists the open ones."
    )


def _summary_json(summary: RunSummary) -> dict[str, Any]:
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


def _detail_json(detail: RunDetail, encryption: PayloadEncryption) -> dict[str, Any]:
    run = _decrypted(detail.stored_run.run, encryption)
    return {
        "run_id": run.run_id,
        "saga": run.saga,
        "version": run.version,
        "fingerprint": run.fingerprint,
        "key": run.key,
        "status": run.status,
        "revision": run.revision,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "deadline": run.deadline,
        "wake_at": detail.stored_run.wake_at,
        "input": run.input,
        "result": run.result,
        "cause": to_data(run.compensation_cause) if run.compensation_cause else None,
        "pending_stop": to_data(run.stopping_cause) if run.stopping_cause else None,
        "steps": [_step_json(step, run) for step in detail.document["steps"]],
        "incidents": [incident_detail_json(each, run, encryption) for each in detail.incidents],
        "journal": [_journal_entry_json(each) for each in detail.journal],
        "audit": [_audit_json(each) for each in detail.audit],
    }


def _decrypted(run: Run, encryption: PayloadEncryption) -> Run:
    """The run, with what can be opened here."""
    run_id = run.run_id

    def decrypted_progress(name: str, step: StepRun, direction: Direction) -> Progress:
        encrypted = step.progress_of(direction)
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
            name: StepRun(*(decrypted_progress(name, step, direction) for direction in Direction))
            for name, step in run.steps.items()
        },
        compensation_cause=decrypted_cause(run.compensation_cause),
        stopping_cause=decrypted_cause(run.stopping_cause),
    )


def _step_json(declared: Mapping[str, Any], run: Run) -> dict[str, Any]:
    step = run.steps.get(declared["name"], StepRun())
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
        "version": entry.revision,
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


def _print_detail(detail_json: Mapping[str, Any]) -> None:
    for name in ("run_id", "saga", "version", "key", "status", "started_at", "finished_at"):
        print_field(name, detail_json[name])
    if detail_json["cause"]:
        print_field("cause", _cause_text(detail_json["cause"]))
    if not detail_json["status"].finished:  # one that was abandoned leaves its steps as they were
        for awaited in _pending_work(detail_json["steps"]):
            print_field("waiting for", awaited)
    print_line("")
    print_table(
        ("step", "kind", "status", "attempts", "compensation", "compensation attempts", "error"),
        [
            (
                *(step["name"], step["kind"], step["status"], step["attempts"]),
                *_compensation_cells(step["compensation"], detail_json["status"]),
                _error_text(step["error"] or (step["compensation"] or {}).get("error")),
            )
            for step in detail_json["steps"]
        ],
        empty="No steps.",
    )
    for incident in detail_json["incidents"]:
        print_incident(incident, detail_json["steps"])
    print_line("")
    print_table(
        ("version", "at", "event", "step"),
        [
            (each["version"], each["at"], each["type"], _event_step(each["data"]))
            for each in detail_json["journal"]
        ],
        empty="No journal.",
    )


def _compensation_cells(
    compensation: Mapping[str, Any] | None, run: Status
) -> tuple[object, object]:
    """How far it is undone; nothing, unless that was ever begun or may be by now."""
    if compensation is None:
        return None, None
    is_relevant = run is Status.COMPENSATING or compensation["status"] is not StepStatus.PENDING
    return (compensation["status"], compensation["attempts"]) if is_relevant else (None, None)


def _pending_work(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the run cannot go on without, and until when; incidents are told of by themselves."""
    for step in steps:
        for each in filter(None, (step, step["compensation"])):
            name, command, due_at = step["name"], each["command"], format_cell(each["due_at"])
            if each["status"] is StepStatus.IN_FLIGHT:
                yield f"{name}: the reply to {command}, until {due_at}"
            elif each["status"] is StepStatus.AWAITING_RETRY:
                yield f"{name}: to send {command} again, at {due_at}"


def _event_step(data: Mapping[str, Any]) -> str | None:
    """Which step an event is of, and whether of its compensation."""
    is_compensation = data.get("direction") == Direction.COMPENSATION
    return f"{data['step']}, compensation" if is_compensation else data.get("step")


def _error_text(error: Mapping[str, Any] | None) -> str | None:
    return f"{error['code']}: {error['message']}" if error else None


def _cause_text(cause: Mapping[str, Any]) -> str:
    parts = [cause["code"], cause.get("step"), cause.get("operator"), cause.get("reason")]
    return ", ".join(each for each in parts if each)
