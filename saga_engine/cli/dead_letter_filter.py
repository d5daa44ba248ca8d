"""
Which dead letters a command is for: some by their ids, or many by queue, reason or age.

Many are not changed by accident: the command prints their exact number first, and asks for
confirmation on a terminal unless --yes is given.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.output import print_json, print_line, print_stderr
from saga_engine.errors import ConfigurationError, Conflict, NotFound
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store import dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetterState

PAGE_SIZE = 10_000


class StateFilter(StrEnum):
    """The state of a dead letter, as an option."""

    OPEN = DeadLetterState.OPEN.value
    REDRIVEN = DeadLetterState.REDRIVEN.value
    DISCARDED = DeadLetterState.DISCARDED.value
    ALL = "all"

    @property
    def stored_state(self) -> DeadLetterState | None:
        """The state in the database; None: any."""
        return None if self is StateFilter.ALL else DeadLetterState(self.value)


StateOption = Annotated[StateFilter, Parameter(help="Only those in this state.")]
QueueOption = Annotated[str | None, Parameter(help="Only those from this queue.")]
ReasonCodeOption = Annotated[str | None, Parameter(help="Only those with this reason.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSelectionOptions:
    """Selects many dead letters, and says whether to ask before changing them."""

    queue: QueueOption = None
    reason_code: ReasonCodeOption = None
    all_open: Annotated[bool, Parameter(name="--all", help="All open ones.")] = False
    dry_run: Annotated[bool, Parameter(help="Only count them.")] = False
    yes: Annotated[bool, Parameter(help="Do not ask for confirmation.")] = False

    @property
    def is_bulk(self) -> bool:
        """Whether they are selected by a filter and not by id."""
        return self.all_open or self.queue is not None or self.reason_code is not None


NO_BULK_SELECTION = DeadLetterSelectionOptions()


async def select_ids(
    database: Database,
    ids: Sequence[int],
    selection: DeadLetterSelectionOptions,
    *,
    excluded_reason: DeadLetterReason | None = None,
) -> list[int]:
    """
    Find the ids of the selected open dead letters.

    Args:
        excluded_reason: dead letters with this reason are selected only by id or --reason-code.

    Raises:
        ConfigurationError: neither ids nor a filter, or both.
        NotFound, Conflict: a dead letter does not exist, or is not open.
    """
    if bool(ids) == selection.is_bulk:
        raise ConfigurationError(
            "Name dead letters by id, or select many with --queue, --reason-code or --all."
        )
    return (
        await _check_named(database, ids)
        if ids
        else await _select_matching(database, selection, excluded_reason)
    )


def confirm_selection(
    ids: Sequence[int], verb: str, selection: DeadLetterSelectionOptions, *, as_json: bool
) -> bool:
    """
    Ask for confirmation where it is needed; return whether to go on. A dry run prints the number.

    Raises:
        ConfigurationError: confirmation is needed, and stdin is not a terminal.
    """
    if selection.dry_run:
        if as_json:
            print_json({"count": len(ids)})
        else:
            print_line(f"{len(ids)} dead letters")
        return False
    if not selection.is_bulk or selection.yes or not ids:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{verb} {len(ids)} dead letters? Add --yes to do it, or --dry-run to only count them."
        )
    print_stderr(f"{verb} {len(ids)} dead letters? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _check_named(database: Database, ids: Sequence[int]) -> list[int]:
    unique_ids = sorted(set(ids))
    async with database.transaction() as tx:
        for each in unique_ids:
            stored = await dead_letter_queries.find(tx, each)
            if stored is None:
                raise NotFound(f"There is no dead letter {each}. `saga-engine dead-letters list`.")
            if stored.state is not DeadLetterState.OPEN:
                raise Conflict(f"Dead letter {each} is {stored.state} by {stored.resolved_by}.")
    return unique_ids


async def _select_matching(
    database: Database,
    selection: DeadLetterSelectionOptions,
    excluded_reason: DeadLetterReason | None,
) -> list[int]:
    criteria = DeadLetterFilter(
        state=DeadLetterState.OPEN, queue=selection.queue, reason=selection.reason_code
    )
    if selection.reason_code is not None or excluded_reason is None:
        return await all_ids(database, criteria)
    selected_ids = await all_ids(database, replace(criteria, excluded_reason=excluded_reason))
    excluded_count = len(await all_ids(database, replace(criteria, reason=excluded_reason)))
    if excluded_count:
        print_stderr(
            f"Excluded: {excluded_count} of {excluded_reason}. Select them by id or with"
            f" --reason-code {excluded_reason}."
        )
    return selected_ids


async def all_ids(database: Database, criteria: DeadLetterFilter) -> list[int]:
    """Find the ids of all dead letters that match, page by page, without their bodies."""
    all_found: list[int] = []
    while True:
        async with database.transaction() as tx:
            page = await dead_letter_queries.find_ids(
                tx, criteria, limit=PAGE_SIZE, after_id=all_found[-1] if all_found else 0
            )
        all_found += page
        if len(page) < PAGE_SIZE:
            return all_found
