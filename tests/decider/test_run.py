"""A run as a value."""

import ast
from dataclasses import fields, replace
from pathlib import Path

import saga_engine
from saga_engine.decider.run import CompensationCause, Progress, Run, StepState, StepStatus
from saga_engine.store.snapshot import SNAPSHOT_FIELDS, restore_run, to_snapshot
from saga_engine.vocabulary import CompensationCode, Direction, EngineFailureCode, Failure
from tests.kit.decider_scenario import DeciderScenario, branching_saga, sequential_saga

UNCHANGING = {
    "run_id",
    "saga",
    "version",
    "fingerprint",
    "key",
    "started_at",
    "deadline",
}


def test_every_field_never_changes_or_is_part_of_the_snapshot():
    assert {item.name for item in fields(Run)} == UNCHANGING | set(SNAPSHOT_FIELDS)
    assert UNCHANGING.isdisjoint(SNAPSHOT_FIELDS)


def test_no_module_but_events_and_transitions_assigns_to_a_run():
    names = {item.name for record in (Run, Progress) for item in fields(record)}
    assigning = set()
    for path in Path(saga_engine.__file__).parent.rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if "decider" in source else ():
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own = isinstance(node.value, ast.Name) and node.value.id == "self"
                if node.attr in names and not own:
                    assigning.add(path.name)
    assert assigning == {"events.py", "transitions.py"}


def test_a_snapshot_restores_the_run():
    scenario = DeciderScenario(branching_saga())
    scenario.succeeds("root", {"x": 1})
    scenario.malformed_reply("left")
    blank = replace(scenario.run, steps={}, incidents={}, incident_count=0)
    assert restore_run(blank, to_snapshot(scenario.run)) == scenario.run


def test_a_step_that_has_not_started_takes_no_space():
    assert to_snapshot(DeciderScenario(sequential_saga("a", "b")).run)["steps"]["b"] == {}


def test_both_directions_are_found_by_name():
    state = StepState(Progress(attempts=1), Progress(attempts=2))
    assert state.progress_of(Direction.ACTION).attempts == 1
    assert state.progress_of(Direction.COMPENSATION).attempts == 2


def test_a_step_may_have_an_effect_unless_undelivered_or_rejected():
    assert not StepState().may_have_effect
    assert StepState(Progress(attempts=1)).may_have_effect
    assert not StepState(Progress(attempts=1, undelivered_attempts=1)).may_have_effect
    assert not StepState(Progress(attempts=1, rejected=True)).may_have_effect
    assert StepState(Progress(status=StepStatus.SUCCEEDED)).may_have_effect


def test_a_compensation_is_done_when_confirmed_or_skipped():
    undone = {s for s in StepStatus if StepState(compensation=Progress(status=s)).compensation_done}
    assert undone == {StepStatus.SUCCEEDED, StepStatus.SKIPPED}


def test_a_client_gets_the_failure_or_else_the_reason():
    assert CompensationCause(
        code=CompensationCode.REJECTED, step="a", failure=Failure("no", "Sold out.")
    ).as_failure == Failure("no", "Sold out.")
    assert CompensationCause(
        code=CompensationCode.CANCELLED, operator="ann", reason="why"
    ).as_failure == Failure.by_engine(EngineFailureCode.CANCELLED, "why")
    assert CompensationCause(code=CompensationCode.DEADLINE).as_failure == Failure.by_engine(
        EngineFailureCode.DEADLINE
    )
