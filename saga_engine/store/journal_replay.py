"""
Replays the journal of one run as far as it can be read, and says what of it is damaged.

The worker reads runs with `runs.read`, which refuses a damaged one. An operator who asks why a run
does not go on needs what is there.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import orjson

from saga_engine.decider.evolve import evolve
from saga_engine.decider.run import Run
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.journal import StoredEvent, StoredJournalRow, stored_events
from saga_engine.store.runs import FIRST_REVISION, StoredRun
from saga_engine.store.snapshot import restore_run
from saga_engine.vocabulary import Status

UNREADABLE_ROW = "unreadable"
"""The type of the one event that is shown for a row whose events cannot be listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRunRow:
    """The row of a run; `identity` has the fields of the run that never change."""

    identity: Run
    definition_id: int
    wake_at: datetime | None
    status: Status
    finished_at: datetime | None
    result: str
    snapshot: str
    snapshot_revision: int


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the row of one revision of a journal, or with the snapshot of it."""

    revision: int
    problem: str


@dataclass(slots=True, kw_only=True)
class _Replay:
    """The journal so far; `run` stays as it was before the first damage that concerns it."""

    run: Run | None = None
    revision: int = 0
    is_whole: bool = True
    events: list[StoredEvent] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    def add_damage(self, revision: int, problem: str) -> None:
        self.damage.append(Damage(revision, problem))


def replay_readable(
    row: StoredRunRow, journal: Sequence[StoredJournalRow]
) -> tuple[StoredRun, list[StoredEvent], list[Damage]]:
    """
    Make a run of its row and its journal.

    Returns:
        The run, the events that can be listed, and what is damaged. A damaged run has its steps as
        of the last revision before the damage, and how it ended from its row.
    """
    replay = _Replay()
    snapshot_revision = _restore_snapshot(replay, row)
    expected = FIRST_REVISION
    for each in journal:
        _report_missing(replay, range(expected, each.revision), snapshot_revision)
        _apply_row(replay, each, is_in_snapshot=each.revision <= snapshot_revision)
        expected = each.revision + 1
    last = max(row.snapshot_revision, FIRST_REVISION)
    _report_missing(replay, range(expected, last + 1), snapshot_revision - 1)
    run = replay.run or row.identity
    if replay.damage:
        result = orjson.loads(row.result)
        run = replace(run, status=row.status, finished_at=row.finished_at, result=result)
    stored = StoredRun(
        run=run,
        definition_id=row.definition_id,
        wake_at=row.wake_at,
        revision=max(expected - 1, row.snapshot_revision),
        snapshot_revision=row.snapshot_revision,
    )
    return stored, replay.events, replay.damage


def _restore_snapshot(replay: _Replay, row: StoredRunRow) -> int:
    """Begin with the snapshot; return its revision, 0 if there is none that can be read."""
    if not row.snapshot_revision:
        return 0
    try:
        replay.run = restore_run(row.identity, orjson.loads(row.snapshot))
    except Exception as error:  # noqa: BLE001 - of any kind of damage
        replay.add_damage(row.snapshot_revision, f"its snapshot cannot be read ({_name(error)})")
        return 0
    return row.snapshot_revision


def _report_missing(replay: _Replay, revisions: range, snapshot_revision: int) -> None:
    for revision in revisions:
        replay.add_damage(revision, "its row is missing")
        replay.is_whole &= revision <= snapshot_revision


def _apply_row(replay: _Replay, row: StoredJournalRow, *, is_in_snapshot: bool) -> None:
    """List the events of a row, and apply those that the run does not have yet."""
    events, problem = _listed(row)
    replay.events += events
    if problem is None:
        problem = _apply(replay, events, is_in_snapshot=is_in_snapshot)
    if problem is not None:
        replay.add_damage(row.revision, problem)
        replay.is_whole &= is_in_snapshot


def _listed(row: StoredJournalRow) -> tuple[list[StoredEvent], str | None]:
    """The events of a row; if they cannot be listed, one that has the row as it is stored."""
    with suppress(Exception):  # any kind of damage
        events = list(stored_events(*row))
        if row.events.startswith("[") and all(isinstance(each.data, dict) for each in events):
            return events, None
    as_stored = StoredEvent(
        revision=row.revision,
        position=row.position,
        type=UNREADABLE_ROW,
        recorded_at=row.recorded_at,
        data={"stored": row.events},
        metadata={},
    )
    return [as_stored], "its events cannot be read"


def _apply(replay: _Replay, events: Sequence[StoredEvent], *, is_in_snapshot: bool) -> str | None:
    """Apply events while the journal is whole; return what is wrong with one of them."""
    run = replay.run
    for event in events:
        try:
            decoded = deserialize_event(event.type, event.data)
            if replay.is_whole and not is_in_snapshot:
                run = evolve(run, decoded)
        except Exception as error:  # noqa: BLE001 - of any kind of damage
            return f"its event {event.type!r} cannot be read or applied ({_name(error)})"
    replay.run = run
    return None


def _name(error: Exception) -> str:
    return type(error).__name__
