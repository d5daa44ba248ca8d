"""`saga-engine list` and `show`: what is on record about runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.database import database, no_run, run_id_of, transaction
from saga_engine.cli.incident_guidance import PAD, print_incident, shown_incident
from saga_engine.cli.output import AsJson, cell, document, field, line, table
from saga_engine.cli.paging import check_limit, options, page_json, page_of, tell_page
from saga_engine.decider.run import Cause, Progress, Run, StepRun, StepStatus
from saga_engine.encryption.configuration import sealing_of
from saga_engine.encryption.keyring import mark_of
from saga_engine.errors import NotFound
from saga_engine.payload.encryption import PLAIN, Sealing, input_place, reply_place
from saga_engine.payload.serialization import to_data
from saga_engine.protocol.failure import failure_json
from saga_engine.settings import Settings
from saga_engine.store import run_queries
from saga_engine.store.audit import Audited
from saga_engine.store.journal import Recorded
from saga_engine.store.run_queries import RunDetail, RunSummary
from saga_engine.vocabulary import Direction, Status

LIMIT_MAX = 1000
"""Runs in one page; more only fill the memory of whoever reads them."""


async def list_runs(  # noqa: PLR0913 - one for each way to choose
    *,
    status: Annotated[Status | None, Parameter(help="Only runs that stand there.")] = None,
    saga: Annotated[str | None, Parameter(help="Only runs of this saga.")] = None,
    key: Annotated[str | None, Parameter(help="Only the run with this business key.")] = None,
    sealed_with: Annotated[
        str | None, Parameter(help="Only runs that hold what this key of aes-gcm sealed.")
    ] = None,
    limit: Annotated[int, Parameter(help="How many, at most 1000.")] = 20,
    after: Annotated[
        str | None, Parameter(name=("--after", "--before"), help="The last run of the page before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first: by the time in a run's id, when its start was asked for."""
    check_limit(limit, LIMIT_MAX)
    last = run_id_of(after) if after else None
    mark = mark_of(sealed_with) if sealed_with else None
    settings = Settings.load()
    async with database(settings) as opened, opened.transaction() as tx:
        found = await run_queries.runs(
            tx, limit=limit + 1, status=status, saga=saga, key=key, mark=mark, before=last
        )
        total = None  # sealed values are in no index, so that counting would read every run
        if mark is None:
            most = settings.listing_count
            total = await run_queries.count_runs(tx, most, status=status, saga=saga, key=key)
    page = page_of(found, limit, total)
    cursor = page.rows[-1].run_id if page.rows else None
    if as_json:
        document({"runs": [_summary_json(each) for each in page.rows], **page_json(page, cursor)})
        return
    table(
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
    given = {"--status": status, "--saga": saga, "--key": key, "--sealed-with": sealed_with}
    tell_page(page, "runs", ["list", *options(given | {"--limit": limit})], cursor)


async def show(
    run: str,
    /,
    *,
    unseal: Annotated[
        bool, Parameter(negative=(), help="Open what the keys here open; the journal stays sealed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Show everything on record about a run, or one of its incidents and what can be done about it.

    Args:
        run: Its id, or RUN/NUMBER for one incident.
    """
    typed, slash, number = run.partition("/")
    run_id = run_id_of(typed)
    async with transaction() as tx:
        detail = await run_queries.show(tx, run_id)
    if detail is None:
        raise no_run(run_id)
    shown = _detail_json(detail, sealing_of(Settings.load()) if unseal else PLAIN)
    if slash:
        _show_incident(shown, f"{run_id}/{number}", as_json=as_json)
    elif as_json:
        document(shown)
    else:
        _print(shown)


def _show_incident(shown: Mapping[str, Any], name: str, *, as_json: bool) -> None:
    for incident in shown["incidents"]:
        if incident["id"] == name and as_json:
            document({"incident": incident, "steps": shown["steps"]})
            return
        if incident["id"] == name:
            for each in ("saga", "version", "key", "status"):
                field(each, shown[each], pad=PAD)
            print_incident(incident, shown["steps"])
            return
    raise NotFound(f"There is no incident {name!r}. `saga-engine incidents` lists the open ones.")


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


def _detail_json(detail: RunDetail, sealing: Sealing) -> dict[str, Any]:
    run = _readable(detail.stored.run, sealing)
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
        "wake_at": detail.stored.wake_at,
        "input": run.input,
        "result": run.result,
        "cause": to_data(run.cause) if run.cause else None,
        "stopping": to_data(run.stop) if run.stop else None,
        "steps": [_step_json(step, run) for step in detail.document["steps"]],
        "incidents": [shown_incident(each, run, sealing) for each in detail.incidents],
        "journal": [_entry_json(each) for each in detail.journal],
        "audit": [_act_json(each) for each in detail.audit],
    }


def _readable(run: Run, sealing: Sealing) -> Run:
    """The run, with what can be opened here."""
    run_id = run.run_id

    def progress(name: str, step: StepRun, direction: Direction) -> Progress:
        was = step.toward(direction)
        return replace(
            was,
            reply=sealing.readable(was.reply, reply_place(run_id, name, direction)),
            failure=was.failure and sealing.readable_failure(was.failure, run_id),
        )

    def why(cause: Cause | None) -> Cause | None:
        if cause is None or cause.failure is None:
            return cause
        return replace(cause, failure=sealing.readable_failure(cause.failure, run_id))

    return replace(
        run,
        input=sealing.readable(run.input, input_place(run.saga, run_id)),
        result=sealing.readable_result(run.result, run_id),
        steps={
            name: StepRun(*(progress(name, step, direction) for direction in Direction))
            for name, step in run.steps.items()
        },
        cause=why(run.cause),
        stop=why(run.stop),
    )


def _step_json(declared: Mapping[str, Any], run: Run) -> dict[str, Any]:
    step = run.steps.get(declared["name"], StepRun())
    undo = declared["compensation"]
    return {
        "name": declared["name"],
        "kind": declared["kind"],
        **_progress_json(declared["command"], step.action),
        "compensation": undo and _progress_json(undo, step.compensation),
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


def _entry_json(entry: Recorded) -> dict[str, Any]:
    return {
        "version": entry.version,
        "type": entry.type,
        "at": entry.at,
        "data": entry.data,
        "metadata": entry.metadata,
    }


def _act_json(act: Audited) -> dict[str, Any]:
    return {
        "id": act.id,
        "at": act.at,
        "by": act.by,
        "role": act.role,
        "action": act.action,
        "target": act.target,
        "reason": act.reason,
        "outcome": act.outcome,
        "message": act.message,
    }


def _print(shown: Mapping[str, Any]) -> None:
    for name in ("run_id", "saga", "version", "key", "status", "started_at", "finished_at"):
        field(name, shown[name])
    if shown["cause"]:
        field("cause", _cause(shown["cause"]))
    if not shown["status"].finished:  # one that was abandoned leaves its steps as they were
        for awaited in _awaited(shown["steps"]):
            field("waits for", awaited)
    line("")
    table(
        ("step", "kind", "status", "attempts", "compensation", "its attempts", "why"),
        [
            (
                *(step["name"], step["kind"], step["status"], step["attempts"]),
                *_undone(step["compensation"], shown["status"]),
                _why(step["error"] or (step["compensation"] or {}).get("error")),
            )
            for step in shown["steps"]
        ],
        empty="No steps.",
    )
    for incident in shown["incidents"]:
        print_incident(incident, shown["steps"])
    line("")
    table(
        ("version", "at", "event", "step"),
        [
            (each["version"], each["at"], each["type"], _place(each["data"]))
            for each in shown["journal"]
        ],
        empty="No journal.",
    )


def _undone(compensation: Mapping[str, Any] | None, run: Status) -> tuple[object, object]:
    """How far it is undone; nothing, unless that was ever begun or may be by now."""
    if compensation is None:
        return None, None
    wanted = run is Status.COMPENSATING or compensation["status"] is not StepStatus.PENDING
    return (compensation["status"], compensation["attempts"]) if wanted else (None, None)


def _awaited(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the run cannot go on without, and until when; incidents are told of by themselves."""
    for step in steps:
        for each in filter(None, (step, step["compensation"])):
            name, command, due_at = step["name"], each["command"], cell(each["due_at"])
            if each["status"] is StepStatus.IN_FLIGHT:
                yield f"{name}: the reply to {command}, until {due_at}"
            elif each["status"] is StepStatus.WAITING:
                yield f"{name}: to send {command} again, at {due_at}"


def _place(data: Mapping[str, Any]) -> str | None:
    """Which step an event is of, and whether of its compensation."""
    undoing = data.get("direction") == Direction.COMPENSATION
    return f"{data['step']}, compensation" if undoing else data.get("step")


def _why(error: Mapping[str, Any] | None) -> str | None:
    return f"{error['code']}: {error['message']}" if error else None


def _cause(cause: Mapping[str, Any]) -> str:
    parts = [cause["code"], cause.get("step"), cause.get("by"), cause.get("reason")]
    return ", ".join(each for each in parts if each)
