"""
Which dead letters are meant: some by their ids, or many by what they have in common.

Many are never touched by accident: their exact number is said first, and without --yes somebody
at a terminal has to agree.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.output import document, line, say
from saga_engine.errors import ConfigurationError, Conflict, NotFound
from saga_engine.store import dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import Alike

PAGE = 10_000

Queue = Annotated[str | None, Parameter(help="Only those that came from this queue.")]
ReasonCode = Annotated[str | None, Parameter(help="Only those set aside for this reason.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """How many are chosen at once, and whether to go on without asking."""

    queue: Queue = None
    reason_code: ReasonCode = None
    everything: Annotated[bool, Parameter(name="--all", help="All that are open.")] = False
    dry_run: Annotated[bool, Parameter(help="Count them and do nothing.")] = False
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False

    @property
    def many(self) -> bool:
        """Whether they are chosen by what they have in common."""
        return self.everything or self.queue is not None or self.reason_code is not None


EVERY_ONE_NAMED = Which()


async def chosen(
    opened: Database, ids: Sequence[int], which: Which, *, unless: str | None = None
) -> list[int]:
    """
    Find the ids of the open dead letters that are meant.

    Args:
        unless: a reason for which some were set aside that are meant only if they are named.

    Raises:
        ConfigurationError: neither ids nor a choice, or both.
        NotFound, Conflict: one that is named does not exist, or is not open.
    """
    if bool(ids) == which.many:
        raise ConfigurationError(
            "Name dead letters by their ids, or choose many with --queue, --reason-code or --all."
        )
    return await _named(opened, ids) if ids else await _alike(opened, which, unless)


def confirmed(ids: Sequence[int], doing: str, which: Which, *, as_json: bool) -> bool:
    """
    Say how many it is, and whether to go on. A dry run prints the number, which is all it does.

    Raises:
        ConfigurationError: somebody would have to agree, and nobody is there.
    """
    if which.dry_run:
        if as_json:
            document({"dead_letters": len(ids)})
        else:
            line(f"{len(ids)} dead letters")
        return False
    if not which.many or which.yes or not ids:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{doing} {len(ids)} dead letters? Add --yes to do it, or --dry-run to count only."
        )
    say(f"{doing} {len(ids)} dead letters? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _named(opened: Database, ids: Sequence[int]) -> list[int]:
    wanted = sorted(set(ids))
    async with opened.transaction() as tx:
        for each in wanted:
            found = await dead_letters.find(tx, each)
            if found is None:
                raise NotFound(f"There is no dead letter {each}. `saga-engine dead-letters list`.")
            if found.state != "open":
                raise Conflict(f"Dead letter {each} is {found.state} by {found.resolved_by}.")
    return wanted


async def _alike(opened: Database, which: Which, unless: str | None) -> list[int]:
    common = Alike("open", which.queue, which.reason_code)
    if which.reason_code is not None or unless is None:
        return await all_ids(opened, common)
    found = await all_ids(opened, replace(common, unless=unless))
    left_out = len(await all_ids(opened, replace(common, reason=unless)))
    if left_out:
        say(f"Left out: {left_out} of {unless}. Name them, or --reason-code {unless}.")
    return found


async def all_ids(opened: Database, alike: Alike) -> list[int]:
    """Find the ids of all dead letters that are alike, page by page, without their bodies."""
    found: list[int] = []
    while True:
        async with opened.transaction() as tx:
            page = await dead_letters.ids(tx, alike, limit=PAGE, after=found[-1] if found else 0)
        found += page
        if len(page) < PAGE:
            return found
