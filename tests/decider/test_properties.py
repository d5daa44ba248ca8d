"""Any saga, any triggers in any order: the promises hold."""

import pickle
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saga_engine.decider.commands import wake_at
from saga_engine.decider.decide import decide
from saga_engine.decider.events import IncidentResolved
from saga_engine.decider.run import Run, StepStatus
from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    MalformedReply,
    ReplyReceived,
    ResolveIncident,
    Start,
)
from saga_engine.vocabulary import Direction, Failure, Outcome, Resolution
from tests.decider.journal_checker import JournalChecker, assert_one_command, assert_promises
from tests.kit.decider_scenario import DeciderScenario
from tests.kit.random_sagas import RAISING_STEPS, sagas

directions = st.sampled_from(Direction)
outcomes = st.sampled_from(Outcome)
bodies = st.sampled_from([1, 1, 1, None, "x", {"k": [2.5]}])
failures = st.sampled_from([None, Failure("no"), Failure("timeout", "It said so.", {"x": 1})])
steps = st.sampled_from(["a0", "a1", "a2", "a3", "pivot", "z0", "z1", "unknown"])


any_triggers = st.one_of(
    st.builds(
        ReplyReceived,
        step=steps,
        direction=directions,
        attempt=st.integers(0, 4),
        outcome=outcomes,
        body=bodies,
    ),
    st.builds(
        MalformedReply,
        step=steps,
        direction=directions,
        attempt=st.integers(0, 3),
        problem=st.just("?"),
    ),
    st.builds(CommandUnroutable, steps, directions, st.integers(0, 3)),
    st.builds(
        ResolveIncident,
        incident_number=st.integers(0, 6),
        resolution=st.sampled_from(Resolution),
        operator=st.just("ann"),
        reason=st.just(""),
    ),
    st.just(Start("r-1", "k-1", {})),
    st.just(Cancel("ann", "why")),
)


def assert_no_shared_part(*runs: Run | None) -> None:
    """Assert that the runs share nothing that events change in place."""
    for part in (lambda run: run, lambda run: run.steps):
        assert len({id(part(run)) for run in runs}) == len(runs)


class AnyRun(RuleBasedStateMachine):
    """One run of one saga, which gets any trigger at any time."""

    def __init__(self) -> None:
        super().__init__()
        RAISING_STEPS.clear()
        self.scenario: DeciderScenario

    @initialize(saga=sagas(), broken=st.sampled_from([(), (), ("a1",), ("pivot",)]))
    def start(self, saga, broken):
        RAISING_STEPS.update(broken)
        self.scenario = DeciderScenario(saga)
        self.reading = JournalChecker(saga)
        self.read = 0
        self.earlier_runs: list[tuple[Run, bytes]] = []

    def teardown(self):
        RAISING_STEPS.clear()
        for run, before in getattr(self, "earlier_runs", []):
            assert pickle.dumps(run) == before, "a later decision has changed an earlier run"

    def apply_twice(self, trigger):
        """Apply a trigger twice: the second time must change nothing."""
        before = self.scenario.run
        self.earlier_runs.append((before, pickle.dumps(before)))
        other = decide(self.scenario.saga, before, trigger, self.scenario.now)
        decision = self.scenario.apply(trigger)
        assert (decision.events, decision.run) == (other.events, other.run)
        if decision.events:
            assert_no_shared_part(before, decision.run, other.run)
        else:
            assert decision.run is before, "a decision that records nothing copies nothing"
        again = self.scenario.apply(trigger)
        assert again.events == (), "the same message twice is the same message"
        assert again.ignored_reason or again.refusal

    def in_flight(self, data) -> dict[str, Any] | None:
        """The step, direction and attempt of a command that awaits its reply, or None."""
        awaited = [
            (name, direction)
            for name in self.scenario.saga.steps
            for direction in Direction
            if self.scenario.progress_of(name, direction).status is StepStatus.IN_FLIGHT
        ]
        if not awaited:
            return None
        name, direction = data.draw(st.sampled_from(awaited))
        attempt = self.scenario.progress_of(name, direction).attempts
        return {"step": name, "direction": direction, "attempt": attempt}

    @rule(data=st.data())
    def a_command_succeeds(self, data):
        if command := self.in_flight(data):
            self.apply_twice(ReplyReceived(**command, outcome=Outcome.SUCCEEDED, body=1))

    @rule(data=st.data())
    def another_command_succeeds(self, data):
        self.a_command_succeeds(data)

    @rule(data=st.data())
    def what_was_given_up_succeeds_late(self, data):
        given_up = (StepStatus.REJECTED, StepStatus.FAILED, StepStatus.UNKNOWN)
        names = [
            n for n in self.scenario.saga.steps if self.scenario.progress_of(n).status in given_up
        ]
        if names:
            name = data.draw(st.sampled_from(names))
            attempt = data.draw(st.integers(1, 3))
            self.apply_twice(
                ReplyReceived(
                    step=name,
                    direction=Direction.ACTION,
                    attempt=attempt,
                    outcome=Outcome.SUCCEEDED,
                    body=1,
                )
            )

    @rule(data=st.data(), outcome=outcomes, body=bodies, failure=failures)
    def a_command_is_answered(self, data, outcome, body, failure):
        if command := self.in_flight(data):
            self.apply_twice(ReplyReceived(**command, outcome=outcome, body=body, failure=failure))

    @rule(data=st.data(), unroutable=st.booleans())
    def a_command_is_unroutable_or_its_reply_malformed(self, data, unroutable):
        if command := self.in_flight(data):
            self.apply_twice(
                CommandUnroutable(**command, never_delivered=True)
                if unroutable
                else MalformedReply(**command, problem="?")
            )

    @rule(data=st.data(), outcome=outcomes, body=bodies)
    def an_old_command_is_answered(self, data, outcome, body):
        if self.scenario.sends:
            sent = data.draw(st.sampled_from(self.scenario.sends))
            self.apply_twice(
                ReplyReceived(
                    step=sent.step,
                    direction=sent.direction,
                    attempt=sent.attempt,
                    outcome=outcome,
                    body=body,
                )
            )

    @rule(message=any_triggers)
    def anything_arrives(self, message):
        self.apply_twice(message)

    @rule(seconds=st.sampled_from([0, 0.5, 1, 3, 30, 3600]))
    def time_passes(self, seconds):
        self.scenario.timer_fires(timedelta(seconds=seconds))

    @precondition(lambda self: wake_at(self.scenario.saga, self.scenario.run) is not None)
    @rule()
    def something_is_due(self):
        assert self.scenario.timer_fires().events, "a run wakes for a reason"

    @precondition(
        lambda self: self.scenario.saga.pivot and self.scenario.progress_of("pivot").due_at
    )
    @rule()
    def the_run_is_cancelled_while_the_pivot_is_in_flight(self):
        self.apply_twice(Cancel("ann", "why"))

    @precondition(lambda self: self.scenario.run.incidents)
    @rule(resolution=st.sampled_from([Resolution.RETRY, *Resolution]), result=bodies)
    def the_open_incident_is_resolved(self, resolution, result):
        number = min(self.scenario.run.incidents)
        decision = self.scenario.apply(
            ResolveIncident(
                incident_number=number,
                resolution=resolution,
                operator="ann",
                reason="why",
                result=result,
            )
        )
        assert decision.refusal or number not in self.scenario.run.incidents
        if not decision.refusal:
            assert isinstance(decision.events[0], IncidentResolved)

    @rule(step=steps)
    def a_mapping_breaks_or_is_fixed(self, step):
        RAISING_STEPS.symmetric_difference_update({step})

    @invariant()
    def the_promises_hold(self):
        if self.read == len(self.scenario.journal):
            return
        for event in self.scenario.journal[self.read :]:
            self.reading.observe(event)
        self.read = len(self.scenario.journal)
        assert_promises(self.scenario.saga, self.scenario.run, self.reading)
        assert_one_command(self.scenario.sends, self.scenario.journal)


TestAnyRun = AnyRun.TestCase
