"""
Checks P1 to P5 of every run, from the journal and the effects that the services recorded.

The checks do not use the decider's view of a step, so that they find its mistakes. Only P5 uses
`replay`, whose result is compared with the stored run.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Run
from saga_engine.payload.serialization import to_data
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.runs import StoredRun
from saga_engine.vocabulary import Direction, Status
from simulation.memory_database import MemoryDatabase
from simulation.rows import Row, stored_events_of
from simulation.workload import Workload

ACTION, COMPENSATION = Direction.ACTION.value, Direction.COMPENSATION.value
DONE_EVENTS = ("step_succeeded", "step_completed", "step_skipped")


class RunRecord:
    """The records of one run: its row, its journal, and the effects of its participants."""

    def __init__(
        self, row: Row, journal: Sequence[Row], effects: Sequence[Row], workload: Workload
    ) -> None:
        self.row = row
        self.workload = workload
        self.revisions = [each["revision"] for each in journal]
        self.stored_events = [event for row in journal for event in stored_events_of(row)]
        self.events = [(each.type, each.data) for each in self.stored_events]
        self.effects: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, effect in enumerate(effects):
            self.effects[effect["step"], effect["direction"]].append(number)

    def effect_positions(self, step: str, direction: str) -> list[int]:
        """The positions of the effects of a step among those of the run."""
        return self.effects.get((step, direction), [])

    def has_event(self, step: str, direction: str, kinds: Sequence[str] = DONE_EVENTS) -> bool:
        """Whether the journal has an event of these kinds for the step."""
        return any(
            kind in kinds and data.get("step") == step and data.get("direction") == direction
            for kind, data in self.events
        )

    def may_have_taken_effect(self, step: str) -> bool:
        """Whether the step may have taken effect, as the engine can know."""
        step_events = [
            (kind, data)
            for kind, data in self.events
            if data.get("step") == step and data.get("direction") == ACTION
        ]
        kinds = [kind for kind, _ in step_events]
        if "step_succeeded" in kinds or "step_completed" in kinds:
            return True
        undelivered = sum(bool(data.get("never_delivered")) for _, data in step_events)
        return kinds.count("attempt_started") > undelivered and kinds[-1] != "step_rejected"


def run_records(
    engine_db: MemoryDatabase, effect_rows: Sequence[Row], workloads: Sequence[Workload]
) -> list[RunRecord]:
    """The records of every run."""
    by_saga = {(workload.saga.name, workload.saga.version): workload for workload in workloads}
    sagas = {
        row["id"]: (row["name"], row["version"]) for row in engine_db.rows["definition"].values()
    }
    journals: dict[str, list[Row]] = defaultdict(list)
    for (run_id, _), journal_row in sorted(engine_db.rows["journal"].items()):
        journals[run_id].append(journal_row)
    effects_by_run: dict[str, list[Row]] = defaultdict(list)
    for effect in effect_rows:
        effects_by_run[effect["run_id"]].append(effect)
    return [
        RunRecord(
            row, journals[run_id], effects_by_run[run_id], by_saga[sagas[row["definition_id"]]]
        )
        for run_id, row in engine_db.rows["run"].items()
    ]


def promise_violations(
    record: RunRecord, stored: StoredRun, open_incident_runs: set[str]
) -> Iterator[str]:
    """
    The promises that a run breaks, as sentences that begin with the promise.

    Args:
        stored: the run as the store reads it.
        open_incident_runs: the runs with an open incident.
    """
    run = stored.run
    run_label = f"run {run.run_id} of {run.saga}"
    for violation in (
        *_check_finished(record, run, open_incident_runs),
        *_check_replay(record, stored),
        *_check_columns(record, run),
        *_check_effects_once(record),
    ):
        yield f"{violation} ({run_label})"
    if run.status is Status.COMPLETED:
        yield from (f"{violation} ({run_label})" for violation in _check_completed(record))
    if run.status is Status.COMPENSATED:
        yield from (f"{violation} ({run_label})" for violation in _check_compensated(record))


def _check_finished(record: RunRecord, run: Run, open_incident_runs: set[str]) -> Iterator[str]:
    has_incident_row = record.row["run_id"] in open_incident_runs
    if record.row["finished_at"] is None and not has_incident_row:
        yield f"P1: it stays {record.row['status']}"
    if has_incident_row != bool(run.incidents):
        yield "P1: the incidents of its journal differ from those in the table"


def _check_completed(record: RunRecord) -> Iterator[str]:
    for step in record.workload.saga.steps:
        if not record.has_event(step, ACTION):
            yield f"P2: step {step} did not succeed"
        if len(record.effect_positions(step, ACTION)) != 1:
            yield f"P2: step {step} took effect {len(record.effect_positions(step, ACTION))} times"
        if record.effect_positions(step, COMPENSATION):
            yield f"P2: step {step} was compensated"


def _check_compensated(record: RunRecord) -> Iterator[str]:
    saga = record.workload.saga
    for step, declared in saga.steps.items():
        if declared.read_only:
            continue
        if record.may_have_taken_effect(step) and not record.has_event(step, COMPENSATION):
            yield f"P3: step {step} may have taken effect and has no confirmed compensation"
        if len(record.effect_positions(step, ACTION)) != len(
            record.effect_positions(step, COMPENSATION)
        ):
            yield f"P3: the effect of step {step} is not compensated"
    for step, predecessors in saga.predecessors.items():
        for earlier in predecessors:
            if compensated_out_of_order(record, earlier, step):
                yield f"P3: step {earlier} was compensated before step {step}"


def compensated_out_of_order(record: RunRecord, earlier: str, later: str) -> bool:
    if record.has_event(later, ACTION, ("step_rejected",)):
        return False  # A service that forgets the rejection may perform a late attempt.
    earlier_positions, later_positions = (
        record.effect_positions(earlier, COMPENSATION),
        record.effect_positions(later, COMPENSATION),
    )
    return bool(earlier_positions and later_positions) and earlier_positions[0] < later_positions[0]


def _check_effects_once(record: RunRecord) -> Iterator[str]:
    for (step, direction), positions in record.effects.items():
        if len(positions) != 1:
            yield f"P4: the {direction} of step {step} happened {len(positions)} times"
        action_positions = record.effect_positions(step, ACTION)
        if direction == COMPENSATION and (
            not action_positions or action_positions[0] > positions[0]
        ):
            yield f"P4: step {step} was compensated without its effect"
    for step in record.workload.saga.steps:
        if record.has_event(step, ACTION, ("step_succeeded",)) and not record.effect_positions(
            step, ACTION
        ):
            yield f"P4: step {step} succeeded without its effect"


def _check_replay(record: RunRecord, stored: StoredRun) -> Iterator[str]:
    if record.revisions != list(range(1, stored.revision + 1)):
        yield f"P5: its journal has the revisions {record.revisions}"
        return
    positions = [each.position for each in record.stored_events]
    if positions != sorted(set(positions)):
        yield f"P5: its journal has the positions {positions}"
    events: list[Any] = [deserialize_event(kind, data) for kind, data in record.events]
    try:
        replayed = replay(events)
    except (AssertionError, LookupError) as error:  # an event before it is missing
        yield f"P5: its journal cannot be replayed: {error!r}"
        return
    if replayed != stored.run:
        yield "P5: its journal does not replay to its snapshot and the rows after it"


def _check_columns(record: RunRecord, run: Run) -> Iterator[str]:
    row, cause = record.row, run.compensation_cause
    columns = [
        *(row["status"], row["finished_at"], row["key"]),
        *(None if row[name] is None else orjson.loads(row[name]) for name in ("result", "cause")),
    ]
    expected = [run.status, run.finished_at, run.key, run.result, cause and to_data(cause)]
    if columns != expected:
        yield f"P5: the columns of its row are {columns}, and its journal says {expected}"
