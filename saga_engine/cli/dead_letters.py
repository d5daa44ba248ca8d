"""`saga-engine dead-letters`: look at what could not be handled, send it again, or discard it."""

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from saga_engine.amqp.connection import Link
from saga_engine.amqp.publisher import Publisher
from saga_engine.cli.dead_letter_filter import (
    EVERY_ONE_NAMED,
    Queue,
    ReasonCode,
    Which,
    all_ids,
    chosen,
    confirmed,
)
from saga_engine.cli.operator import By, Reason, whoever
from saga_engine.cli.output import AsJson, document, field, line, say, table
from saga_engine.cli.paging import options, page_json, page_of, tell_page
from saga_engine.cli.redrive import Redrive, discard_all, purge_all
from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.settings import Settings
from saga_engine.store import dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import Alike, StoredLetter
from saga_engine.worker.change_set import WRONG_SENDER

app = App(name="dead-letters", help="Look at, send again, discard or delete dead letters.")

PARTLY_FAILED = 7
LIMIT_MAX = 1000

# Without json_list a bracket would be read as JSON, however deep it nests.
Id = Annotated[int, Parameter(help="Its id, as `list` shows it.", json_list=False)]


@app.command(name="list")
async def list_letters(
    *,
    queue: Queue = None,
    reason_code: ReasonCode = None,
    state: Annotated[str, Parameter(help="open, redriven, discarded or all.")] = "open",
    limit: Annotated[int, Parameter(help="How many, at most 1000.")] = 100,
    after: Annotated[
        int | None, Parameter(name=("--after", "--before"), help="The last id of the page before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    if state not in ("open", "redriven", "discarded", "all") or not 1 <= limit <= LIMIT_MAX:
        raise ConfigurationError(
            f"--state is open, redriven, discarded or all, and --limit is 1 to {LIMIT_MAX}."
        )
    settings = Settings.load()
    wanted = {
        "state": None if state == "all" else state,
        "queue": queue,
        "reason": reason_code,
    }
    async with _database(settings) as opened, opened.transaction() as tx:
        found = await dead_letters.listing(tx, limit=limit + 1, before=after, **wanted)
        total = await dead_letters.count(tx, settings.listing_count, **wanted)
    page = page_of(found, limit, total)
    cursor = page.rows[-1].id if page.rows else None
    if as_json:
        letters = [_letter_json(each) for each in page.rows]
        document({"dead_letters": letters, **page_json(page, cursor)})
        return
    table(
        ("id", "received", "queue", "reason", "type", "bytes", "run", "what is wrong"),
        [
            (
                *(each.id, each.received_at, each.letter.queue, each.letter.reason),
                *(each.letter.type, each.letter.body_size, each.letter.run_id, each.letter.detail),
            )
            for each in page.rows
        ],
        empty="No dead letters.",
    )
    given = {"--queue": queue, "--reason-code": reason_code, "--state": state, "--limit": limit}
    tell_page(page, "dead letters", ["dead-letters", "list", *options(given)], cursor)


@app.command
async def show(letter: int, /, *, as_json: AsJson = False) -> None:
    """
    Show one dead letter with its headers and its body.

    Args:
        letter: Its id.
    """
    async with _database(Settings.load()) as opened, opened.transaction() as tx:
        found = await dead_letters.find(tx, letter)
    if found is None:
        raise NotFound(f"There is no dead letter {letter}. `saga-engine dead-letters list`.")
    shown = {
        **_letter_json(found),
        "properties": found.letter.properties,
        "headers": found.letter.headers,
        **_body_json(found.letter.body),
    }
    if as_json:
        document(shown)
        return
    for name, value in shown.items():
        field(name, value, pad=16)


@app.command
async def redrive(
    *letters: Id,
    which: Which = EVERY_ONE_NAMED,
    reason: Reason = "redriven",
    by: By = None,
    as_json: AsJson = False,
) -> int:
    """
    Send dead letters again as they were, to where they came from.

    What its sender may not send is left out unless it is named: sent again, it is believed as what
    your user sends. Exit 7 when some could not be sent; those stay open.
    """
    settings, who = Settings.load(), whoever(by)
    url = settings.require_broker()
    async with _database(settings) as opened:
        ids = await chosen(opened, letters, which, unless=WRONG_SENDER)
        if not confirmed(ids, "Send again", which, as_json=as_json):
            return 0
        async with Link(url, name="publish", settings=settings) as link:
            failed = await Redrive(opened, Publisher(link), by=who, reason=reason).send(ids)
    return _report("redriven", ids, failed, as_json=as_json)


@app.command
async def discard(
    *letters: Id,
    reason: Reason,
    which: Which = EVERY_ONE_NAMED,
    by: By = None,
    as_json: AsJson = False,
) -> int:
    """Mark dead letters as not worth another try; they stay on record."""
    settings, who = Settings.load(), whoever(by)
    async with _database(settings) as opened:
        ids = await chosen(opened, letters, which)
        if not confirmed(ids, "Discard", which, as_json=as_json):
            return 0
        failed = await discard_all(opened, ids, by=who, reason=reason)
    return _report("discarded", ids, failed, as_json=as_json)


@app.command
async def purge(  # noqa: PLR0913 - one for each way to choose
    *,
    reason: Reason,
    state: Annotated[str, Parameter(help="discarded, redriven, open or all.")] = "discarded",
    older_than: Annotated[int, Parameter(help="Only those that came so many days ago.")] = 30,
    queue: Queue = None,
    reason_code: ReasonCode = None,
    dry_run: Annotated[bool, Parameter(help="Count them and do nothing.")] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good, with their bodies; the record of it stays."""
    if state not in ("open", "redriven", "discarded", "all") or older_than < 0:
        raise ConfigurationError(
            "--state is open, redriven, discarded or all, and --older-than is 0 days or more."
        )
    who = whoever(by)
    alike = Alike(None if state == "all" else state, queue, reason_code, days=older_than)
    async with _database(Settings.load()) as opened:
        ids = await all_ids(opened, alike)
        which = Which(everything=True, dry_run=dry_run, yes=yes)
        if not confirmed(ids, "Delete", which, as_json=as_json):
            return
        deleted = await purge_all(opened, ids, by=who, reason=reason)
    if as_json:
        document({"purged": deleted})
    else:
        line(f"{deleted} purged")


def _report(done: str, ids: Sequence[int], failed: Mapping[int, str], *, as_json: bool) -> int:
    succeeded = [each for each in ids if each not in failed]
    if as_json:
        problems = [{"id": each, "problem": problem} for each, problem in failed.items()]
        document({done: succeeded, "failed": problems})
    else:
        line(f"{len(succeeded)} {done}, {len(failed)} failed")
        for each, problem in failed.items():
            say(f"dead letter {each}: {problem}")
    return PARTLY_FAILED if failed else 0


def _letter_json(stored: StoredLetter) -> dict[str, Any]:
    letter = stored.letter
    return {
        "id": stored.id,
        "received_at": stored.received_at,
        "state": stored.state,
        "queue": letter.queue,
        "reason": letter.reason,
        "detail": letter.detail,
        "run_id": letter.run_id,
        "message_id": letter.message_id,
        "correlation_id": letter.correlation_id,
        "type": letter.type,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "body_size": letter.body_size,
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


def _database(settings: Settings) -> Database:
    return Database(settings.require_database(), settings)
