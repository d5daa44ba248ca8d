"""
A run in a world of honest participants and a dishonest network, in virtual time.

Each participant has the barrier of docs/participants.md; messages are lost, doubled and late. The
ledger of effects is kept by the participants, not by the engine.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from saga_engine import Saga
from saga_engine.decider.effects import Send, wake_at
from saga_engine.decider.triggers import Cancel, Replied, Resolve, Returned, Trigger, Woken
from saga_engine.vocabulary import Direction, Failure, Outcome, Resolution, Status
from tests.saga.promises import Reading, assert_promises
from tests.saga.random_sagas import BROKEN, sagas
from tests.saga.scenario import Story

TURNS_MAX = 2000
"""Far more than any of these runs needs; a run that takes them all is stuck in a circle."""


@dataclass
class Participants:
    """All of them, with one barrier: what was done, and the first answer to each command."""

    dice: Random
    faults: float
    done: dict[str, int] = field(default_factory=dict)
    answers: dict[str, Outcome] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)

    def perform(self, send: Send) -> Outcome:
        if send.idempotency_key in self.answers:
            return self.answers[send.idempotency_key]
        if self.dice.random() < self.faults:
            return Outcome.FAILED  # its transaction was rolled back, and nothing is remembered
        outcome = self._undo(send) if send.direction is Direction.COMPENSATION else self._do(send)
        self.answers[send.idempotency_key] = outcome
        return outcome

    def _do(self, send: Send) -> Outcome:
        if send.step in self.tombstones or self.dice.random() < self.faults / 2:
            return Outcome.REJECTED
        self.done[send.step] = self.done.get(send.step, 0) + 1
        return Outcome.SUCCEEDED

    def _undo(self, send: Send) -> Outcome:
        if send.step in self.done:
            self.done[send.step] -= 1
        self.tombstones.add(send.step)
        return Outcome.SUCCEEDED


class World:
    """The network between one run and its participants; every message has a time to arrive."""

    def __init__(self, saga: Saga, seed: int, faults: float) -> None:
        self.dice = Random(seed)
        self.faults = faults
        self.participants = Participants(self.dice, faults)
        self.story = Story(saga)
        self.reading = Reading(saga)
        self.under_way: list[tuple[datetime, int, Send | Trigger]] = []
        self.numbers = count()
        self.posted = 0
        self.read = 0

    def run(self) -> None:
        """Until nothing is under way and the run is finished or waits for a person."""
        for _ in range(TURNS_MAX):
            self._post()
            if not self._next():
                return
        raise AssertionError("the run goes round in circles")

    def tell(self, trigger: Trigger) -> None:
        self.story.tell(trigger)
        for event in self.story.journal[self.read :]:
            self.reading.read(event)
        self.read = len(self.story.journal)
        assert_promises(self.story.saga, self.story.run, self.reading)

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self.faults = self.participants.faults = 0

    def _post(self) -> None:
        for send in self.story.sends[self.posted :]:
            if self.dice.random() < self.faults / 3:
                self._later(Returned(send.step, send.direction, send.attempt, first=True))
            else:
                self._carry(send)
        self.posted = len(self.story.sends)

    def _carry(self, message: Send | Trigger) -> None:
        """Carried once as a rule; not at all, or twice, when the network has a fault."""
        copies = 1 if self.dice.random() >= self.faults else self.dice.choice([0, 2])
        for _ in range(copies):
            self._later(message)

    def _later(self, message: Send | Trigger) -> None:
        slow = self.dice.random() < self.faults
        delay = timedelta(seconds=self.dice.uniform(0, 60 if slow else 0.5))
        heappush(self.under_way, (self.story.now + delay, next(self.numbers), message))

    def _next(self) -> bool:
        due = wake_at(self.story.saga, self.story.run)
        if due is not None and (not self.under_way or due <= self.under_way[0][0]):
            self.story.now = max(self.story.now, due)
            self.tell(Woken())
            return True
        if not self.under_way:
            return False
        at, _, message = heappop(self.under_way)
        self.story.now = max(self.story.now, at)
        self._arrives(message)
        return True

    def _arrives(self, message: Send | Trigger) -> None:
        if not isinstance(message, Send):
            self.tell(message)
            return
        outcome = self.participants.perform(message)
        body = 1 if outcome is Outcome.SUCCEEDED else None
        failure = None if outcome is Outcome.SUCCEEDED else Failure(outcome.value)
        place = (message.step, message.direction, message.attempt)
        self._carry(Replied(*place, outcome, body, failure))


def assert_effects(world: World) -> None:
    """P2, P3 and P4 by the participants' own word."""
    run, done = world.story.run, world.participants.done
    assert all(times in (0, 1) for times in done.values()), "P4 each effect happens exactly once"
    if run.status is Status.COMPLETED:
        assert all(done.get(name) == 1 for name in run.steps), "P2 every step was done"
    if run.status is Status.COMPENSATED:
        left = {name for name, times in done.items() if times}
        assert not {name for name in left if not world.story.saga.steps[name].read_only}, "P3"


worlds = st.builds(World, sagas(), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3, 0.6]))


@given(worlds)
def test_p1_a_run_ends_or_waits_for_a_person_whatever_the_network_does(world):
    BROKEN.clear()
    world.run()
    assert world.story.status.finished or world.story.run.incidents
    assert_effects(world)


@given(worlds, st.integers(0, 20))
def test_p1_a_cancelled_run_ends_or_waits_for_a_person(world, triggers):
    BROKEN.clear()
    for _ in range(triggers):
        world._post()
        world._next()
    world.tell(Cancel("ann", "why"))
    world.run()
    assert world.story.status.finished or world.story.run.incidents
    assert_effects(world)


@given(worlds)
def test_p1_an_operator_who_retries_or_else_takes_it_on_brings_every_run_to_its_end(world):
    BROKEN.clear()
    world.run()
    world.calm()
    for _ in range(50):
        for number, incident in list(world.story.run.incidents.items()):
            world.tell(Resolve(number, Resolution.RETRY, "ann", "the network is calm"))
            if incident.cause == "not_compensatable":
                world.participants.done[incident.step] = 0  # undone by hand
                world.tell(Resolve(number, Resolution.COMPLETE, "ann", "undone by hand"))
        world.run()
    assert world.story.status.finished
    assert_effects(world)


@given(sagas())
def test_p2_where_nothing_goes_wrong_every_run_completes(saga):
    BROKEN.clear()
    world = World(saga, 0, 0.0)
    world.run()
    assert world.story.status is Status.COMPLETED or world.story.run.deadline is not None
    assert_effects(world)
