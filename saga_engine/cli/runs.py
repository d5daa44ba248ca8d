"""`saga-engine list` and `show`: runs, as tables and as documents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.database import open_database, open_transaction, parse_run_id, run_not_found
from saga_engine.cli.incident_guidance import LABEL_WIDTH, print_incident
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
from saga_engine.cli.run_document import detail_json, summary_json
from saga_engine.decider.run import StepStatus
from saga_engine.encryption.configuration import encryption_from
from saga_engine.encryption.keyring import ciphertext_prefix
from saga_engine.errors import NotFound
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.settings import Settings
from saga_engine.store import run_queries
from saga_engine.store.run_queries import RunSummary
from saga_engine.vocabulary import Direction, Status

PAGE_LIMIT_MAX = 1000
"""Runs in one page; more would only fill the reader's memory."""
DAMAGED_TEXT = (
    "The steps are shown as far as the journal can be read. Workers decide nothing about a run"
    " whose journal they cannot read. The database has other rows than saga-engine has written:"
    " they were changed by hand, or lost. Restore these rows of saga_engine.journal from a backup."
    " An event of an unknown type was written by a newer saga-engine: use that version."
)
"""Whose fault a damaged journal is, and what to do next."""
TABLE_COLUMNS = ("run", "saga", "version", "key", "status", "incidents", "started")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilterOptions:
    """Selects runs by status, saga, business key and encryption key."""

    status: Annotated[Status | None, Parameter(help="Only runs with this status.")] = None
    saga: Annotated[str | None, Parameter(help="Only runs of this saga.")] = None
    key: Annotated[str | None, Parameter(help="Only the run with this business key.")] = None
    encrypted_with: Annotated[
        str | None, Parameter(help="Only runs with a payload encrypted with this key id.")
    ] = None

    @property
    def option_values(self) -> dict[str, object]:
        """The options for a command line."""
        return {
            "--status": self.status,
            "--saga": self.saga,
            "--key": self.key,
            "--encrypted-with": self.encrypted_with,
        }


NO_RUN_FILTER = RunFilterOptions()


async def list_runs(
    *,
    run_filter: RunFilterOptions = NO_RUN_FILTER,
    limit: Annotated[int, Parameter(help="How many, at most 1000.")] = 20,
    after: Annotated[str | None, Parameter(help="The last run of the previous page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first, by the time in the run id: when the start was requested."""
    check_limit(limit, PAGE_LIMIT_MAX)
    last_run_id = parse_run_id(after) if after else None
    key_id = run_filter.encrypted_with
    key_prefix = ciphertext_prefix(key_id) if key_id else None
    criteria: dict[str, Any] = {
        "status": run_filter.status,
        "saga": run_filter.saga,
        "key": run_filter.key,
    }
    settings = Settings.load()
    async with open_database(settings) as database, database.transaction() as tx:
        rows = await run_queries.list_runs(
            tx, limit=limit + 1, value_prefix=key_prefix, before_run_id=last_run_id, **criteria
        )
        # Encrypted values are in no index: counting them would read every run.
        total = (
            await run_queries.count_runs(tx, settings.max_listing_total, **criteria)
            if key_prefix is None
            else None
        )
    page = make_page(rows, limit, total)
    cursor = page.rows[-1].run_id if page.rows else None
    if as_json:
        print_json({"runs": [summary_json(each) for each in page.rows], **page_json(page, cursor)})
        return
    print_table(TABLE_COLUMNS, [_table_row(each) for each in page.rows], empty="No runs.")
    options = option_words({**run_filter.option_values, "--limit": limit})
    print_page_summary(page, "runs", ["list", *options], cursor)


def _table_row(summary: RunSummary) -> tuple[object, ...]:
    return (
        summary.run_id,
        summary.saga,
        summary.version,
        summary.key,
        summary.status,
        summary.open_incidents,
        summary.started_at,
    )


async def show(
    run: str,
    /,
    *,
    decrypt: Annotated[
        bool, Parameter(help="Decrypt payloads with the keys in the settings; not the journal.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Show a run, or one of its incidents with the commands that resolve it.

    Args:
        run: The run id, or RUN/NUMBER for one incident.
    """
    run_text, separator, number = run.partition("/")
    run_id = parse_run_id(run_text)
    async with open_transaction() as tx:
        detail = await run_queries.read_detail(tx, run_id)
    if detail is None:
        raise run_not_found(run_id)
    document = detail_json(detail, encryption_from(Settings.load()) if decrypt else NO_ENCRYPTION)
    if separator:
        _show_incident(document, f"{run_id}/{number}", as_json=as_json)
    elif as_json:
        print_json(document)
    else:
        _print_detail(document)


def _show_incident(document: Mapping[str, Any], incident_id: str, *, as_json: bool) -> None:
    for incident in document["incidents"]:
        if incident["id"] == incident_id and as_json:
            print_json({"incident": incident, "steps": document["steps"]})
            return
        if incident["id"] == incident_id:
            for each in ("saga", "version", "key", "status"):
                print_field(each, document[each], label_width=LABEL_WIDTH)
            print_incident(incident, document["steps"])
            return
    raise NotFound(
        f"There is no incident {incident_id!r}. `saga-engine incidents` lists the open ones."
    )


def _print_detail(document: Mapping[str, Any]) -> None:
    for name in ("run_id", "saga", "version", "key", "status", "started_at", "finished_at"):
        print_field(name, document[name])
    for each in document["damage"]:
        print_field("damaged", f"revision {each['revision']}: {each['problem']}")
    if document["damage"]:
        print_field("to repair", DAMAGED_TEXT)
    if document["cause"]:
        print_field("cause", _cause_text(document["cause"]))
    status: Status = document["status"]
    if not status.is_finished:  # the steps of an abandoned run keep their status
        for awaited in _pending_work(document["steps"]):
            print_field("waiting for", awaited)
    print_line("")
    print_table(
        ("step", "kind", "status", "attempts", "compensation", "compensation attempts", "error"),
        [
            (
                *(step["name"], step["kind"], step["status"], step["attempts"]),
                *_compensation_cells(step["compensation"], status),
                _error_text(step["error"] or (step["compensation"] or {}).get("error")),
            )
            for step in document["steps"]
        ],
        empty="No steps.",
    )
    for incident in document["incidents"]:
        print_incident(incident, document["steps"])
    print_line("")
    print_table(
        ("revision", "position", "at", "event", "step"),
        [
            (
                *(each["revision"], each["position"], each["at"], each["type"]),
                _event_step(each["data"]),
            )
            for each in document["journal"]
        ],
        empty="No journal.",
    )


def _compensation_cells(
    compensation: Mapping[str, Any] | None, run_status: Status
) -> tuple[object, object]:
    """The status and attempts of a compensation; empty unless it started or may start."""
    if compensation is None:
        return None, None
    is_relevant = (
        run_status is Status.COMPENSATING or compensation["status"] is not StepStatus.PENDING
    )
    return (compensation["status"], compensation["attempts"]) if is_relevant else (None, None)


def _pending_work(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The replies and retries that the run waits for, each with its time; without incidents."""
    for step in steps:
        for each in filter(None, (step, step["compensation"])):
            name, command, due_at = step["name"], each["command"], format_cell(each["due_at"])
            if each["status"] is StepStatus.IN_FLIGHT:
                yield f"{name}: the reply to {command}, until {due_at}"
            elif each["status"] is StepStatus.AWAITING_RETRY:
                yield f"{name}: to send {command} again, at {due_at}"


def _event_step(data: Mapping[str, Any]) -> str | None:
    """The step of an event, and whether the event is about its compensation."""
    is_compensation = data.get("direction") == Direction.COMPENSATION
    return f"{data['step']}, compensation" if is_compensation else data.get("step")


def _error_text(error: Mapping[str, Any] | None) -> str | None:
    return f"{error['code']}: {error['message']}" if error else None


def _cause_text(cause: Mapping[str, Any]) -> str:
    parts = [cause["code"], cause.get("step"), cause.get("operator"), cause.get("reason")]
    return ", ".join(each for each in parts if each)
