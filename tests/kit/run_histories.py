"""Random journals of runs, as rows to append, for tests of the engine's read models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from saga_engine.decider import events
from saga_engine.decider.run import CompensationCause
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import journal
from saga_engine.store.journal import NewDecision, NewJournalRow
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IncidentCause,
    Outcome,
    Status,
)
from tests.kit.stored_runs import run_id

BEGIN = datetime(2026, 11, 15, tzinfo=UTC)
STEPS = ("reserve", "charge", "ship")


@dataclass(frozen=True, slots=True)
class RunHistory:
    """One run: its events in order, and the status that they lead to."""

    run_id: str
    events: Sequence[events.Event]
    status: Status


def random_history(rng: Random, saga: str) -> RunHistory:
    """A run that completes, compensates once or twice, is abandoned, or is not finished."""
    run = run_id()
    found: list[events.Event] = [
        events.RunStarted(
            run_id=run,
            saga=saga,
            version=1,
            fingerprint="f",
            key=None,
            input={"a": [1, None, "é"]},
            steps=STEPS,
            started_at=BEGIN,
        )
    ]
    status = Status.RUNNING
    for step in STEPS:
        found += _attempts(rng, step, Direction.ACTION)
        match rng.randrange(12):
            case 0:
                return RunHistory(run, found, status)
            case 1:
                found += [_incident(step), events.RunAbandoned(BEGIN, "ann", "enough")]
                return RunHistory(run, found, Status.ABANDONED)
            case 2 | 3:
                found.append(events.StepRejected(step, Direction.ACTION, 1, _failure(rng)))
                return _compensated(rng, run, found, step)
            case _:
                found.append(_succeeded(step, Direction.ACTION))
    found.append(events.RunCompleted(finished_at=BEGIN))
    return RunHistory(run, found, Status.COMPLETED)


def _compensated(rng: Random, run: str, found: list[events.Event], rejected: str) -> RunHistory:
    codes = [CompensationCode.REJECTED, CompensationCode.LATE_SUCCESS][: rng.choice([1, 1, 2])]
    for code in codes:
        step = None if rng.randrange(4) == 0 else rejected
        found.append(events.RunCompensating(CompensationCause(code=code, step=step)))
        if rng.randrange(6) == 0:
            found.append(events.RunAbandoned(BEGIN, "ann", "enough"))
            return RunHistory(run, found, Status.ABANDONED)
        if rng.randrange(6) == 0:
            return RunHistory(run, found, Status.COMPENSATING)
        if code is CompensationCode.REJECTED:
            found += _attempts(rng, "reserve", Direction.COMPENSATION)
            found.append(_succeeded("reserve", Direction.COMPENSATION))
            late = events.StepSucceeded(
                step=rejected, direction=Direction.ACTION, attempt=1, late=True
            )
            found.append(late)
        found.append(events.RunCompensated(BEGIN))
    return RunHistory(run, found, Status.COMPENSATED)


def _attempts(rng: Random, step: str, direction: Direction) -> Iterator[events.Event]:
    for attempt in range(1, rng.randint(1, 3) + 1):
        if attempt > 1:
            yield events.AttemptFailed(
                step=step,
                direction=direction,
                attempt=attempt - 1,
                outcome=Outcome.UNKNOWN,
                failure=_failure(rng),
            )
        yield events.AttemptStarted(
            step=step, direction=direction, attempt=attempt, round=1, command="c", due_at=BEGIN
        )


def _succeeded(step: str, direction: Direction) -> events.Event:
    return events.StepSucceeded(step=step, direction=direction, attempt=1, reply={"id": 1})


def _incident(step: str) -> events.Event:
    return events.IncidentOpened(
        number=1,
        step=step,
        direction=Direction.ACTION,
        cause=IncidentCause.STEP_FAILED,
        message="m",
        opened_at=BEGIN,
    )


def _failure(rng: Random) -> Failure:
    if rng.randrange(3) == 0:
        return Failure.by_engine(EngineFailureCode.TIMEOUT)
    return Failure(f"code-{min(rng.randrange(200), rng.randrange(200))}", "é")


async def append_histories(
    tx: Transaction, rng: Random, histories: Sequence[RunHistory], definition_id: int
) -> None:
    """Append the journals of runs, interleaved and cut into rows at random, with their runs."""
    await tx.execute(
        _INSERT_RUNS,
        {
            "run_id": [each.run_id for each in histories],
            "status": [each.status.value for each in histories],
            "definition_id": definition_id,
        },
    )
    rest = [(each.run_id, list(each.events), 1) for each in histories]
    now, rows = BEGIN, []
    while rest:
        run, left, revision = rest.pop(rng.randrange(len(rest)))
        count = rng.randint(1, 4)
        now += timedelta(microseconds=int(10 ** rng.uniform(1, 9)))
        decisions = [NewDecision(left[:count], {"causation_id": "m"})]
        rows.append(
            NewJournalRow(run_id=run, revision=revision, recorded_at=now, decisions=decisions)
        )
        if left[count:]:
            rest.append((run, left[count:], revision + 1))
    columns = journal.journal_columns(rows)
    await tx.execute(_INSERT_JOURNAL, columns)


_INSERT_JOURNAL = text(
    """
    INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
    SELECT j.run_id, j.revision, j.recorded_at, drawn.first + j.place, j.events::jsonb
    FROM saga_engine.draw_positions(CAST(:position_count AS integer)) AS drawn(first),
        unnest(CAST(:run_id AS uuid[]), CAST(:revision AS integer[]),
            CAST(:recorded_at AS timestamptz[]), CAST(:place AS integer[]),
            CAST(:events AS text[])) AS j(run_id, revision, recorded_at, place, events)"""
)

_INSERT_RUNS = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, definition_id, status)
    SELECT r.run_id, now(), CAST(:definition_id AS integer), r.status
    FROM unnest(CAST(:run_id AS uuid[]), CAST(:status AS text[])) AS r(run_id, status)"""
)
