"""Each transition of the tables happens in some run: the tables allow no more than they must."""

from collections.abc import Iterator
from random import Random

from saga_engine.decider.events import Event
from saga_engine.decider.evolve import evolve, replay
from saga_engine.decider.run import Run, StepStatus
from saga_engine.decider.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS
from saga_engine.decider.triggers import ReplyReceived
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.decider_scenario import DeciderScenario
from tests.kit.random_sagas import RAISING_STEPS, random_saga

MAX_RUNS = 2000
"""Far more than are needed until each transition has happened."""

NEEDS_A_FIXED_DEFINITION = {
    (direction, StepStatus.PENDING, StepStatus.SUCCEEDED) for direction in Direction
}
"""A kept reply that fits after a change: test_payloads.py."""

RESOLUTIONS = ("retry", "retry", "skip", "complete", "reject", "abandon")


def transitions(journal: list[Event]) -> Iterator[tuple]:
    """Each change of a status, of the run and of each direction of a step."""
    before: Run | None = None
    for event in journal:
        after = evolve(before, event)
        if before is not None:
            yield before.status, after.status
            for name, step in before.steps.items():
                for direction in Direction:
                    new = after.steps[name].progress_of(direction).status
                    yield direction, step.progress_of(direction).status, new
        before = after


def random_run(rng: Random) -> list[Event]:
    """The journal of a run of a random saga that gets forty random triggers."""
    RAISING_STEPS.clear()
    scenario = DeciderScenario(random_saga(rng))
    names = list(scenario.saga.steps)
    for _ in range(40):
        if rng.random() < 0.1:
            RAISING_STEPS.symmetric_difference_update({rng.choice(names)})
        name, direction = rng.choice(names), rng.choice(list(Direction))
        attempts = scenario.progress_of(name, direction).attempts
        what = rng.choice("rrrrrrmuciit")
        if what == "r" and attempts:
            scenario.apply(
                ReplyReceived(
                    step=name,
                    direction=direction,
                    attempt=rng.randint(1, attempts) if rng.random() < 0.2 else attempts,
                    outcome=rng.choice(list(Outcome)),
                    body=rng.choice([1, 1, "x"]),
                )
            )
        elif what == "m" and attempts:
            scenario.malformed_reply(name, direction)
        elif what == "u" and attempts:
            scenario.unroutable(name, direction, never_delivered=rng.random() < 0.5)
        elif what == "c" and rng.random() < 0.2:
            scenario.cancels()
        elif what == "i" and scenario.run.incidents:
            scenario.resolves(rng.choice(RESOLUTIONS), rng.choice([1, "x"]))
        else:
            scenario.timer_fires()
    RAISING_STEPS.clear()
    return scenario.journal


def test_each_transition_of_the_tables_happens():
    missing: set[tuple] = {(a, b) for a, after in RUN_TRANSITIONS.items() for b in after}
    for direction, table in STEP_TRANSITIONS.items():
        missing |= {(direction, a, b) for a, after in table.items() for b in after}
    missing -= NEEDS_A_FIXED_DEFINITION
    for seed in range(MAX_RUNS):
        missing.difference_update(transitions(random_run(Random(seed))))
        if not missing:
            return
    raise AssertionError(missing)


def test_a_failed_compensation_is_blocked_at_once():
    failed = {StepStatus.REJECTED, StepStatus.FAILED, StepStatus.UNKNOWN}
    for seed in range(50):
        run = replay(random_run(Random(seed)))
        assert run is not None
        assert {step.compensation.status for step in run.steps.values()}.isdisjoint(failed)
