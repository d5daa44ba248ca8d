"""`saga-engine dead-letters`: list, show, redrive, discard and purge dead letters."""

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.cli.dead_letter_filter import (
    NO_BULK_SELECTION,
    DeadLetterSelectionOptions,
    QueueOption,
    ReasonCodeOption,
    StateFilter,
    StateOption,
    all_ids,
    confirm_selection,
    select_ids,
)
from saga_engine.cli.exit_status import EXIT_PARTIAL_FAILURE
from saga_engine.cli.operator import Operator, Reason, operator_or_login_name
from saga_engine.cli.output import (
    AsJson,
    print_field,
    print_json,
    print_line,
    print_stderr,
    print_table,
)
from saga_engine.cli.paging import (
    check_limit,
    make_page,
    option_words,
    page_json,
    print_page_summary,
)
from saga_engine.cli.redrive import Redriver, discard_all, purge_all
from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import DeadLetterFilter, StoredDeadLetter
from saga_engine.vocabulary import ConnectionRole

app = App(
    name="dead-letters",
    help="List, show, redrive, discard and purge dead letters.",
    version_flags=(),
)

LIMIT_MAX = 1000
"""Dead letters in one page."""
TABLE_COLUMNS = ("id", "received", "queue", "reason", "type", "bytes", "run", "detail")

# Without json_list=False cyclopts would parse a bracket as JSON, to any depth.
DeadLetterId = Annotated[int, Parameter(help="Ids, as `list` shows them.", json_list=False)]


@app.command(name="list")
async def list_dead_letters(
    *,
    queue: QueueOption = None,
    reason_code: ReasonCodeOption = None,
    state: StateOption = StateFilter.OPEN,
    limit: Annotated[int, Parameter(help="How many, at most 1000.")] = 100,
    after: Annotated[int | None, Parameter(help="The last id of the previous page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    check_limit(limit, LIMIT_MAX)
    settings = Settings.load()
    criteria = DeadLetterFilter(state=state.stored_state, queue=queue, reason=reason_code)
    async with _open_database(settings) as database, database.transaction() as tx:
        rows = await dead_letter_queries.read_page(tx, criteria, limit=limit + 1, before_id=after)
        total = await dead_letter_queries.count(
            tx, criteria, count_limit=settings.max_listing_total
        )
    page = make_page(rows, limit, total)
    cursor = page.rows[-1].id if page.rows else None
    if as_json:
        dead_letters_json = [_dead_letter_json(each) for each in page.rows]
        print_json({"dead_letters": dead_letters_json, **page_json(page, cursor)})
        return
    print_table(TABLE_COLUMNS, [_table_row(each) for each in page.rows], empty="No dead letters.")
    options = {
        "--queue": queue,
        "--reason-code": reason_code,
        "--state": state,
        "--limit": limit,
    }
    print_page_summary(
        page, "dead letters", ["dead-letters", "list", *option_words(options)], cursor
    )


@app.command
async def show(dead_letter_id: int, /, *, as_json: AsJson = False) -> None:
    """
    Show one dead letter with its headers and its body.

    Args:
        dead_letter_id: The id of the dead letter.
    """
    async with _open_database(Settings.load()) as database, database.transaction() as tx:
        stored = await dead_letter_queries.find(tx, dead_letter_id)
    if stored is None:
        raise NotFound(
            f"There is no dead letter {dead_letter_id}. `saga-engine dead-letters list`."
        )
    detail = {
        **_dead_letter_json(stored),
        "properties": stored.message.properties,
        "headers": stored.message.headers,
        **_body_json(stored.message.body),
    }
    if as_json:
        print_json(detail)
        return
    for name, value in detail.items():
        print_field(name, value, label_width=16)


@app.command
async def redrive(
    *dead_letter_ids: DeadLetterId,
    selection: DeadLetterSelectionOptions = NO_BULK_SELECTION,
    reason: Reason = "redriven",
    operator: Operator = None,
    as_json: AsJson = False,
) -> int:
    """
    Publish dead letters again, unchanged, to the exchange and routing key they came from.

    A message of an unauthorized sender is excluded unless you select it by id or reason code: the
    new copy is published by your RabbitMQ user, which workers trust. Exit 7 if some could not be
    published; those stay open.
    """
    settings, operator_name = Settings.load(), operator_or_login_name(operator)
    broker_url = settings.require_broker_url()
    async with _open_database(settings) as database:
        ids = await select_ids(
            database,
            dead_letter_ids,
            selection,
            excluded_reason=DeadLetterReason.UNAUTHORIZED_SENDER,
        )
        if not confirm_selection(ids, "Send again", selection, as_json=as_json):
            return 0
        async with SupervisedConnection(
            broker_url, role=ConnectionRole.PUBLISH, settings=settings
        ) as connection:
            failed = await Redriver(
                database, SinglePublisher(connection), operator=operator_name, reason=reason
            ).send(ids)
    return _print_result("redriven", ids, failed, as_json=as_json)


@app.command
async def discard(
    *dead_letter_ids: DeadLetterId,
    reason: Reason,
    selection: DeadLetterSelectionOptions = NO_BULK_SELECTION,
    operator: Operator = None,
    as_json: AsJson = False,
) -> int:
    """Mark dead letters as discarded; they stay in the database."""
    settings, operator_name = Settings.load(), operator_or_login_name(operator)
    async with _open_database(settings) as database:
        ids = await select_ids(database, dead_letter_ids, selection)
        if not confirm_selection(ids, "Discard", selection, as_json=as_json):
            return 0
        failed = await discard_all(database, ids, operator=operator_name, reason=reason)
    return _print_result("discarded", ids, failed, as_json=as_json)


@app.command
async def purge(  # noqa: PLR0913 - one for each option
    *,
    reason: Reason,
    state: StateOption = StateFilter.DISCARDED,
    older_than: Annotated[int, Parameter(help="Only those received at least N days ago.")] = 30,
    queue: QueueOption = None,
    reason_code: ReasonCodeOption = None,
    dry_run: Annotated[bool, Parameter(help="Only count them.")] = False,
    yes: Annotated[bool, Parameter(help="Do not ask for confirmation.")] = False,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters with their bodies; the audit log keeps who deleted them and why."""
    if older_than < 0:
        raise ConfigurationError("--older-than is 0 days or more.")
    operator_name = operator_or_login_name(operator)
    criteria = DeadLetterFilter(
        state=state.stored_state, queue=queue, reason=reason_code, min_age_days=older_than
    )
    async with _open_database(Settings.load()) as database:
        ids = await all_ids(database, criteria)
        selection = DeadLetterSelectionOptions(all_open=True, dry_run=dry_run, yes=yes)
        if not confirm_selection(ids, "Delete", selection, as_json=as_json):
            return
        deleted = await purge_all(database, ids, operator=operator_name, reason=reason)
    if as_json:
        print_json({"purged": deleted})
    else:
        print_line(f"{deleted} purged")


def _print_result(
    outcome: str, ids: Sequence[int], problems: Mapping[int, str], *, as_json: bool
) -> int:
    succeeded = [each for each in ids if each not in problems]
    if as_json:
        problems_json = [{"id": each, "problem": problem} for each, problem in problems.items()]
        print_json({outcome: succeeded, "failed": problems_json})
    else:
        print_line(f"{len(succeeded)} {outcome}, {len(problems)} failed")
        for each, problem in problems.items():
            print_stderr(f"dead letter {each}: {problem}")
    return EXIT_PARTIAL_FAILURE if problems else 0


def _table_row(stored: StoredDeadLetter) -> tuple[object, ...]:
    message = stored.message
    return (
        stored.id,
        stored.received_at,
        message.queue,
        message.reason,
        message.type,
        message.body_size,
        message.run_id,
        message.detail,
    )


def _dead_letter_json(stored: StoredDeadLetter) -> dict[str, Any]:
    dead_letter = stored.message
    return {
        "id": stored.id,
        "received_at": stored.received_at,
        "state": stored.state,
        "queue": dead_letter.queue,
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "run_id": dead_letter.run_id,
        "message_id": dead_letter.message_id,
        "correlation_id": dead_letter.correlation_id,
        "type": dead_letter.type,
        "exchange": dead_letter.exchange,
        "routing_key": dead_letter.routing_key,
        "body_size": dead_letter.body_size,
        "truncated": stored.truncated,
        "resolved_at": stored.resolved_at,
        "resolved_by": stored.resolved_by,
        "resolved_reason": stored.resolved_reason,
    }


def _body_json(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode(), "body_encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "body_encoding": "base64"}


def _open_database(settings: Settings) -> Database:
    return Database(settings.require_database_url(), settings)
