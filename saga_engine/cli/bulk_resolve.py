"""
`saga-engine resolve` for many incidents at once: chosen by what they have in common.

The incidents are counted and shown first, and a person agrees. Then they are recorded in bounded
portions, each in one transaction and not before the portion before it is decided, so that a worker
is never flooded and an interruption leaves nothing half done. With a rate, a portion waits for its
turn.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saga_engine.cli.incidents import name_of
from saga_engine.cli.output import document, line, say, table
from saga_engine.cli.paging import command_line
from saga_engine.decider.triggers import Resolve, trigger_data
from saga_engine.errors import ConfigurationError, TimedOut
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import Sealing, reply_place
from saga_engine.payload.limits import LIMITS, Limits
from saga_engine.payload.payload import beyond
from saga_engine.postgres.statement import Transactions
from saga_engine.store import audit, checked_requests, incidents
from saga_engine.store.audit import Act, Audited
from saga_engine.store.bounded_count import Total
from saga_engine.store.incidents import Choice, StoredIncident
from saga_engine.store.pending_requests import Item
from saga_engine.vocabulary import Json, Resolution

PORTION = 100
"""Incidents recorded in one transaction."""
PAGE = 1000
"""Incidents read in one statement."""
LOOK_AGAIN = 0.1
"""Seconds between looks for the verdicts of a portion; a worker decides in about as often."""
PARTLY_FAILED = 7

NOT_RECORDED = "not recorded"
UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done to each incident, by whom and why; `result` goes with complete."""

    action: Resolution
    by: str
    reason: str
    result: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Pace:
    """
    How fast portions follow each other: `per_second` incidents, None for as fast as decided.

    `clock` and `sleep` are those of the event loop.
    """

    per_second: float | None = None
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def portion(self) -> int:
        """Incidents at once: no more than one second's."""
        return PORTION if self.per_second is None else min(PORTION, max(1, int(self.per_second)))

    async def turn(self, began: float, done: int) -> None:
        """Wait until the next portion may be recorded, *done* incidents after *began*."""
        if self.per_second is not None and done:
            await self.sleep(max(0.0, began + done / self.per_second - self.clock()))


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of one incident: accepted, refused, undecided or not recorded, and a sentence."""

    incident: StoredIncident
    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Meant:
    """The incidents that a command takes, and how many are chosen without its limit."""

    found: Sequence[StoredIncident]
    total: Total

    @property
    def some_left(self) -> bool:
        """Whether the limit leaves some."""
        return not self.total.exact or self.total.number > len(self.found)

    @property
    def text(self) -> str:
        """How many there are, and of how many where the limit leaves some."""
        of = f" of {self.total.text}" if self.some_left else ""
        return f"{len(self.found):,}{of} incidents"


def rate_of(typed: str) -> float:
    """
    Read a rate, as incidents per second: 5/s, 30/m, or a number for each second.

    Raises:
        ConfigurationError: it is something else, or not above 0.
    """
    number, _, unit = typed.partition("/")
    try:
        per_second = float(number) / {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        per_second = 0.0
    if not 0 < per_second <= 1e6:
        raise ConfigurationError("--rate is a number a second, minute or hour: 5/s, 30/m or 100/h.")
    return per_second


async def matching(opened: Transactions, choice: Choice, limit: int, most: int) -> Meant:
    """
    Read the open incidents that are meant, the oldest first, up to *limit*.

    Args:
        most: how many are counted, if that is more than *limit*.
    """
    found: list[StoredIncident] = []
    async with opened.transaction() as tx:
        total = await incidents.count(tx, choice, max(limit, most))
    while len(found) < limit:
        some = min(PAGE, limit - len(found))
        after = found[-1] if found else None
        async with opened.transaction() as tx:
            page = await incidents.listing(tx, choice, limit=some, after=after)
        found += page
        if len(page) < some:
            break
    return Meant(found, total)


def preview(found: Sequence[StoredIncident]) -> list[tuple[str, str, str, int]]:
    """Count incidents by cause, step and saga, the largest group first."""
    counted = Counter((each.cause, each.step, each.saga) for each in found)
    return [(*group, number) for group, number in counted.most_common()]


def say_next(meant: Meant, command: Sequence[str]) -> None:
    """Say on stderr that the limit left some, and the command for the next ones."""
    if meant.some_left:
        say(
            f"These are the oldest {meant.text} (--limit). For the next ones:"
            f" {command_line(*command)}"
        )


def agreed(meant: Meant, asked: Asked, *, yes: bool) -> bool:
    """
    Show what would be done, and ask whether to go on.

    Raises:
        ConfigurationError: without a terminal there is no one to ask.
    """
    for cause, step, saga, number in preview(meant.found):
        say(f"{number} of saga {saga}, step {step}: {cause}")
    if yes or not meant.found:
        return True
    question = f"{asked.action.capitalize()} {meant.text}?"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Add --yes to do it, or --dry-run to see them only.")
    say(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def resolution_of(
    incident: StoredIncident, asked: Asked, sealing: Sealing, limits: Limits
) -> Resolve:
    """
    What is asked of one incident, with the result sealed for its place.

    Raises:
        ConfigurationError: the result is beyond a limit.
    """
    place = reply_place(incident.run_id, incident.step, incident.direction)
    sealed = sealing.sealed(asked.result, place)
    problem = beyond(sealed, limits)
    if problem:
        raise ConfigurationError(f"--result cannot be kept. {problem}")
    return Resolve(incident.number, asked.action, asked.by, asked.reason, sealed)


class Bulk:
    """Resolves many incidents as *asked*; a portion is given *patience* seconds to be decided."""

    def __init__(
        self,
        opened: Transactions,
        asked: Asked,
        sealing: Sealing,
        patience: float,
        limits: Limits = LIMITS,
    ) -> None:
        self._opened = opened
        self._asked = asked
        self._sealing = sealing
        self._limits = limits
        self._patience = patience

    async def resolve(
        self,
        found: Sequence[StoredIncident],
        pace: Pace,
        progress: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> list[Decided]:
        """Resolve them; once a portion is not decided in time, what is left is not recorded."""
        decided: list[Decided] = []
        began, size = pace.clock(), pace.portion
        for start in range(0, len(found), size):
            await pace.turn(began, start)
            decided += await self._portion(found[start : start + size])
            progress(len(decided), len(found))
            if decided[-1].outcome == UNDECIDED:
                break
        left = found[len(decided) :]
        return [*decided, *(Decided(each, NOT_RECORDED) for each in left)]

    async def _portion(self, some: Sequence[StoredIncident]) -> list[Decided]:
        acts = {str(uuid7()): each for each in some}
        async with self._opened.transaction() as tx:
            await audit.record(tx, [self._act(key, each) for key, each in acts.items()])
            await checked_requests.record(tx, [self._item(key, each) for key, each in acts.items()])
        verdicts = await self._verdicts(list(acts))
        decided = [_decided(each, verdicts.get(key)) for key, each in acts.items()]
        return sorted(decided, key=lambda each: each.outcome == UNDECIDED)

    def _act(self, key: str, incident: StoredIncident) -> Act:
        asked = self._asked
        return Act(
            *(key, asked.by, asked.action.value, asked.reason, incident.run_id, name_of(incident))
        )

    def _item(self, key: str, incident: StoredIncident) -> Item:
        trigger = resolution_of(incident, self._asked, self._sealing, self._limits)
        kind, body = trigger_data(trigger)
        return Item(kind, incident.run_id, body, audit_id=key)

    async def _verdicts(self, keys: Sequence[str]) -> Mapping[str, Audited]:
        """Wait until all are decided, or for `patience` seconds."""
        found: dict[str, Audited] = {}
        try:
            async with asyncio.timeout(self._patience):
                while len(found) < len(keys):
                    left = [key for key in keys if key not in found]
                    async with self._opened.transaction() as tx:
                        found |= {each.id: each for each in await audit.decided(tx, left)}
                    if len(found) < len(keys):
                        await asyncio.sleep(LOOK_AGAIN)
        except TimeoutError:
            pass  # those are recorded and not decided
        return found


def _decided(incident: StoredIncident, verdict: Audited | None) -> Decided:
    if verdict is None:
        return Decided(incident, UNDECIDED, "It is recorded, and a worker decides it later.")
    return Decided(incident, verdict.outcome or UNDECIDED, verdict.message or "")


def progress_line(done: int, of: int) -> None:
    """Say how far it is, where there is more than one portion."""
    if of > PORTION or done < of:
        say(f"{done} of {of} decided")


def print_preview(meant: Meant, asked: Asked, *, as_json: bool) -> None:
    """Print what would be done."""
    groups = preview(meant.found)
    if as_json:
        counted = [
            {"cause": cause, "step": step, "saga": saga, "count": number}
            for cause, step, saga, number in groups
        ]
        number = {"incidents": len(meant.found), **_total_json(meant)}
        document({"action": asked.action, **number, "groups": counted})
        return
    table(("cause", "step", "saga", "incidents"), groups, empty="No open incident is meant.")
    if meant.found:
        say(f"{meant.text}. Nothing is done.")


def _total_json(meant: Meant) -> dict[str, Any]:
    """Write how many are chosen without the limit."""
    return {"total": meant.total.number, "total_exact": meant.total.exact}


def print_outcomes(decided: Sequence[Decided], asked: Asked, meant: Meant, *, as_json: bool) -> int:
    """
    Print what became of each; the exit code.

    Raises:
        TimedOut: none was refused, but a worker has not decided all of them.
    """
    number = Counter(each.outcome for each in decided)
    if as_json:
        document({**_outcomes_json(decided, asked, number), **_total_json(meant)})
    else:
        table(
            ("incident", "outcome", "why"),
            [(name_of(each.incident), each.outcome, each.message) for each in decided],
            empty="No open incident is meant.",
        )
        parts = [f"{count} {outcome}" for outcome, count in number.items()]
        if parts:
            line(", ".join(parts))
    if number["refused"]:
        return PARTLY_FAILED
    if number[UNDECIDED] or number[NOT_RECORDED]:
        raise TimedOut(
            f"No worker has decided {number[UNDECIDED]} incidents in time; those are recorded."
            f" {number[NOT_RECORDED]} are not recorded: give the same command again."
        )
    return 0


def _outcomes_json(
    decided: Sequence[Decided], asked: Asked, number: Counter[str]
) -> dict[str, Any]:
    return {
        "action": asked.action,
        "accepted": number["accepted"],
        "refused": number["refused"],
        "undecided": number[UNDECIDED],
        "not_recorded": number[NOT_RECORDED],
        "outcomes": [
            {
                "id": name_of(each.incident),
                "run_id": each.incident.run_id,
                "outcome": each.outcome.replace(" ", "_"),
                "message": each.message,
            }
            for each in decided
        ],
    }
