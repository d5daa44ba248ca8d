"""
A run with correct participants and an unreliable network, in virtual time.

Each participant has the barrier of docs/participants.md; messages are lost, doubled and late. The
participants record their effects, not the engine.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from saga_engine import Saga
from saga_engine.decider.commands import wake_at
from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    ReplyReceived,
    ResolveIncident,
    Trigger,
    WakeUp,
)
from saga_engine.vocabulary import Command, Direction, Failure, Outcome, Resolution, Status
from tests.decider.journal_checker import JournalChecker, assert_promises
from tests.kit.decider_scenario import DeciderScenario
from tests.kit.random_sagas import RAISING_STEPS, sagas

MAX_MESSAGES = 2000
"""Far more than any of these runs needs; a run that needs more never ends."""


@dataclass
class Participants:
    """All participants, with one barrier: what was done, and the first reply to each command."""

    rng: Random
    faults: float
    done: dict[str, int] = field(default_factory=dict)
    answers: dict[str, Outcome] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)

    def perform(self, send: Command) -> Outcome:
        if send.idempotency_key in self.answers:
            return self.answers[send.idempotency_key]
        if self.rng.random() < self.faults:
            return Outcome.FAILED  # its transaction was rolled back, and nothing is remembered
        outcome = self._undo(send) if send.direction is Direction.COMPENSATION else self._do(send)
        self.answers[send.idempotency_key] = outcome
        return outcome

    def _do(self, send: Command) -> Outcome:
        if send.step in self.tombstones or self.rng.random() < self.faults / 2:
            return Outcome.REJECTED
        self.done[send.step] = self.done.get(send.step, 0) + 1
        return Outcome.SUCCEEDED

    def _undo(self, send: Command) -> Outcome:
        if send.step in self.done:
            self.done[send.step] -= 1
        self.tombstones.add(send.step)
        return Outcome.SUCCEEDED


class UnreliableNetwork:
    """The network between one run and its participants; each message has its own delay."""

    def __init__(self, saga: Saga, seed: int, faults: float) -> None:
        self.rng = Random(seed)
        self.faults = faults
        self.participants = Participants(self.rng, faults)
        self.scenario = DeciderScenario(saga)
        self.checker = JournalChecker(saga)
        self.in_transit: list[tuple[datetime, int, Command | Trigger]] = []
        self.sequence = count()
        self.posted_commands = 0
        self.read = 0

    def run(self) -> None:
        """Run until no message is in transit and the run is finished or has an incident."""
        for _ in range(MAX_MESSAGES):
            self._send()
            if not self._next():
                return
        raise AssertionError("the run does not end")

    def apply(self, trigger: Trigger) -> None:
        self.scenario.apply(trigger)
        for event in self.scenario.journal[self.read :]:
            self.checker.observe(event)
        self.read = len(self.scenario.journal)
        assert_promises(self.scenario.saga, self.scenario.run, self.checker)

    def stop_faults(self) -> None:
        """From now on nothing goes wrong."""
        self.faults = self.participants.faults = 0

    def _send(self) -> None:
        for send in self.scenario.sends[self.posted_commands :]:
            if self.rng.random() < self.faults / 3:
                self._later(
                    CommandUnroutable(send.step, send.direction, send.attempt, never_delivered=True)
                )
            else:
                self._deliver(send)
        self.posted_commands = len(self.scenario.sends)

    def _deliver(self, message: Command | Trigger) -> None:
        """Deliver once; with a fault of the network not at all, or twice."""
        copies = 1 if self.rng.random() >= self.faults else self.rng.choice([0, 2])
        for _ in range(copies):
            self._later(message)

    def _later(self, message: Command | Trigger) -> None:
        slow = self.rng.random() < self.faults
        delay = timedelta(seconds=self.rng.uniform(0, 60 if slow else 0.5))
        heappush(self.in_transit, (self.scenario.now + delay, next(self.sequence), message))

    def _next(self) -> bool:
        due = wake_at(self.scenario.saga, self.scenario.run)
        if due is not None and (not self.in_transit or due <= self.in_transit[0][0]):
            self.scenario.now = max(self.scenario.now, due)
            self.apply(WakeUp())
            return True
        if not self.in_transit:
            return False
        at, _, message = heappop(self.in_transit)
        self.scenario.now = max(self.scenario.now, at)
        self._receive(message)
        return True

    def _receive(self, message: Command | Trigger) -> None:
        if not isinstance(message, Command):
            self.apply(message)
            return
        outcome = self.participants.perform(message)
        body = 1 if outcome is Outcome.SUCCEEDED else None
        failure = None if outcome is Outcome.SUCCEEDED else Failure(outcome.value)
        reply = ReplyReceived(
            step=message.step,
            direction=message.direction,
            attempt=message.attempt,
            outcome=outcome,
            body=body,
            failure=failure,
        )
        self._deliver(reply)


def assert_effects(world: UnreliableNetwork) -> None:
    """P2, P3 and P4, by what the participants did."""
    run, done = world.scenario.run, world.participants.done
    assert all(times in (0, 1) for times in done.values()), "P4 each effect happens exactly once"
    if run.status is Status.COMPLETED:
        assert all(done.get(name) == 1 for name in run.steps), "P2 every step was done"
    if run.status is Status.COMPENSATED:
        left = {name for name, times in done.items() if times}
        assert not {name for name in left if not world.scenario.saga.steps[name].read_only}, "P3"


worlds = st.builds(
    UnreliableNetwork, sagas(), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3, 0.6])
)


@given(worlds)
def test_p1_a_run_ends_or_has_an_incident_on_any_network(world):
    RAISING_STEPS.clear()
    world.run()
    assert world.scenario.status.is_finished or world.scenario.run.incidents
    assert_effects(world)


@given(worlds, st.integers(0, 20))
def test_p1_a_cancelled_run_ends_or_has_an_incident(world, triggers):
    RAISING_STEPS.clear()
    for _ in range(triggers):
        world._send()
        world._next()
    world.apply(Cancel("ann", "why"))
    world.run()
    assert world.scenario.status.is_finished or world.scenario.run.incidents
    assert_effects(world)


@given(worlds)
def test_p1_every_run_ends_when_an_operator_resolves_its_incidents(world):
    RAISING_STEPS.clear()
    world.run()
    world.stop_faults()
    for _ in range(50):
        for number, incident in list(world.scenario.run.incidents.items()):
            world.apply(
                ResolveIncident(
                    incident_number=number,
                    resolution=Resolution.RETRY,
                    operator="ann",
                    reason="the network is calm",
                )
            )
            if incident.cause == "not_compensatable":
                world.participants.done[incident.step] = 0  # undone by hand
                world.apply(
                    ResolveIncident(
                        incident_number=number,
                        resolution=Resolution.COMPLETE,
                        operator="ann",
                        reason="undone by hand",
                    )
                )
        world.run()
    assert world.scenario.status.is_finished
    assert_effects(world)


@given(sagas())
def test_p2_without_faults_every_run_completes(saga):
    RAISING_STEPS.clear()
    world = UnreliableNetwork(saga, 0, 0.0)
    world.run()
    assert world.scenario.status is Status.COMPLETED or world.scenario.run.deadline is not None
    assert_effects(world)
