"""Any saga, any triggers in any order: what must hold, holds."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saga_engine.decider.effects import wake_at
from saga_engine.decider.events import IncidentResolved
from saga_engine.decider.run import StepStatus
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
steps = st.sampled_from(["a0", "a1", "a2", "a3", "pivot", "z0", "z1", "nobody"])


strangers = st.one_of(
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


class AnyRun(RuleBasedStateMachine):
    """One run of one saga, and a world that says anything to it at any time."""

    def __init__(self) -> None:
        super().__init__()
        RAISING_STEPS.clear()
        self.story: DeciderScenario

    @initialize(saga=sagas(), broken=st.sampled_from([(), (), ("a1",), ("pivot",)]))
    def start(self, saga, broken):
        RAISING_STEPS.update(broken)
        self.story = DeciderScenario(saga)
        self.reading = JournalChecker(saga)
        self.read = 0

    def teardown(self):
        RAISING_STEPS.clear()

    def tell(self, trigger):
        """Tell it, and tell it again: the second time must change nothing."""
        self.story.apply(trigger)
        again = self.story.apply(trigger)
        assert again.events == (), "the same message twice is the same message"
        assert again.ignored_reason or again.refusal

    def in_flight(self, data) -> dict[str, Any] | None:
        """The step, direction and attempt of a command that awaits its reply, or None."""
        awaited = [
            (name, direction)
            for name in self.story.saga.steps
            for direction in Direction
            if self.story.progress_of(name, direction).status is StepStatus.IN_FLIGHT
        ]
        if not awaited:
            return None
        name, direction = data.draw(st.sampled_from(awaited))
        attempt = self.story.progress_of(name, direction).attempts
        return {"step": name, "direction": direction, "attempt": attempt}

    @rule(data=st.data())
    def a_command_succeeds(self, data):
        if command := self.in_flight(data):
            self.tell(ReplyReceived(**command, outcome=Outcome.SUCCEEDED, body=1))

    @rule(data=st.data())
    def another_command_succeeds(self, data):
        self.a_command_succeeds(data)

    @rule(data=st.data())
    def what_was_given_up_succeeds_late(self, data):
        given_up = (StepStatus.REJECTED, StepStatus.FAILED, StepStatus.UNKNOWN)
        names = [n for n in self.story.saga.steps if self.story.progress_of(n).status in given_up]
        if names:
            name = data.draw(st.sampled_from(names))
            attempt = data.draw(st.integers(1, 3))
            self.tell(
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
            self.tell(ReplyReceived(**command, outcome=outcome, body=body, failure=failure))

    @rule(data=st.data(), returned=st.booleans())
    def a_command_is_returned_or_its_answer_garbled(self, data, returned):
        if command := self.in_flight(data):
            self.tell(
                CommandUnroutable(**command, first_send=True)
                if returned
                else MalformedReply(**command, problem="?")
            )

    @rule(data=st.data(), outcome=outcomes, body=bodies)
    def an_old_command_is_answered(self, data, outcome, body):
        if self.story.sends:
            sent = data.draw(st.sampled_from(self.story.sends))
            self.tell(
                ReplyReceived(
                    step=sent.step,
                    direction=sent.direction,
                    attempt=sent.attempt,
                    outcome=outcome,
                    body=body,
                )
            )

    @rule(message=strangers)
    def anything_arrives(self, message):
        self.tell(message)

    @rule(seconds=st.sampled_from([0, 0.5, 1, 3, 30, 3600]))
    def time_passes(self, seconds):
        self.story.timer_fires(timedelta(seconds=seconds))

    @precondition(lambda self: wake_at(self.story.saga, self.story.run) is not None)
    @rule()
    def something_is_due(self):
        before = self.story.run.revision
        self.story.timer_fires()
        assert self.story.run.revision > before, "a run wakes for a reason"

    @precondition(lambda self: self.story.saga.pivot and self.story.progress_of("pivot").due_at)
    @rule()
    def somebody_cancels_while_the_pivot_is_under_way(self):
        self.tell(Cancel("ann", "why"))

    @precondition(lambda self: self.story.run.incidents)
    @rule(resolution=st.sampled_from([Resolution.RETRY, *Resolution]), result=bodies)
    def the_open_incident_is_resolved(self, resolution, result):
        number = min(self.story.run.incidents)
        decision = self.story.apply(
            ResolveIncident(
                incident_number=number,
                resolution=resolution,
                operator="ann",
                reason="why",
                result=result,
            )
        )
        assert decision.refusal or number not in self.story.run.incidents
        if not decision.refusal:
            assert isinstance(decision.events[0], IncidentResolved)

    @rule(step=steps)
    def a_mapping_breaks_or_is_mended(self, step):
        RAISING_STEPS.symmetric_difference_update({step})

    @invariant()
    def the_promises_hold(self):
        if self.read == len(self.story.journal):
            return
        for event in self.story.journal[self.read :]:
            self.reading.observe(event)
        self.read = len(self.story.journal)
        assert_promises(self.story.saga, self.story.run, self.reading)
        assert_one_command(self.story.sends, self.story.journal)


TestAnyRun = AnyRun.TestCase
