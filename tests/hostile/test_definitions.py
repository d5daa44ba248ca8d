"""
Definitions that no author should get past the rules: refused where they stand, in no time.

What is here is hostile or absurd on a scale that `tests/saga/test_rules.py`, which has each rule
with its sentence, does not need; the numbers are those of the list in docs/reliability.md.
"""

from datetime import timedelta
from typing import Any

import pytest

from saga_engine import Participant, Retry, Saga
from saga_engine.errors import DefinitionError
from saga_engine.protocol.topology import participant_topology
from saga_engine.saga.rules import check
from tests.kit.growth import count_calls

NAN = float("nan")
WRONG_RETRY: Any = Retry
"""Its fields get values of another type: the mistake under test."""
FOREVER = timedelta.max


def saga_of(*steps, name="a", **options):
    """A saga with steps of these names, the first of which has the options."""
    saga = Saga(name, version=1, input=dict)
    for step in steps:

        def function(order):  # noqa: ARG001
            return {}

        function.__name__ = step
        function.__annotations__ = {"order": dict, "return": dict}
        saga.step(**{"command": "do.it", "read_only": True, **options})(function)
        options = {}
    return saga


def test_ten_thousand_steps_are_refused_before_they_are_looked_at():
    """D69, D76."""
    saga = saga_of(*(f"s{number}" for number in range(10_000)))

    def refused():
        with pytest.raises(DefinitionError, match="has 10000 steps"):
            check(saga)

    assert count_calls(refused) < 1000


def test_as_many_steps_as_there_may_be_that_all_wait_for_each_other_are_refused_in_no_time():
    """D69: every step names every other."""
    names = [f"s{number}" for number in range(200)]
    saga = saga_of(*names)
    for step in saga.steps.values():
        step.after = names

    def refused():
        with pytest.raises(DefinitionError, match="wait for each other"):
            check(saga)

    assert count_calls(refused) < 1_000_000  # the edges are 40,000


def test_as_many_steps_as_there_may_be_that_wait_for_all_before_are_sound_in_no_time():
    """D69: 19,900 edges."""
    names = [f"s{number}" for number in range(200)]
    saga = saga_of(*names)
    for place, step in enumerate(saga.steps.values()):
        step.after = names[:place]
    assert count_calls(lambda: check(saga)) < 1_000_000


@pytest.mark.parametrize(
    "name",
    ["x" * 10_000, "a\x00b", "a\x1b[2J", "a\nb", "\u202ea", "../x", "a b", "amq.topic", "", "#",
     "a.b", "' OR 1=1--", "a" * 64 + "\n", "\ud800"],
)  # fmt: skip
def test_names_that_cannot_travel_name_nothing(name):
    """D69, D74: no saga, no step, no participant; so no queue but our own can be named."""
    with pytest.raises(DefinitionError):
        check(saga_of("book", name=name))
    with pytest.raises(DefinitionError):
        check(saga_of(name))
    with pytest.raises(DefinitionError):
        Participant(name)


@pytest.mark.parametrize(
    "command",
    ["#", "*.*", "a.#", "a" * 256, "a\x00b", "a..b", "", "a b", "a\n", "\xff", "CC", "x-death"],
)  # fmt: skip
def test_commands_are_routing_keys_and_nothing_else(command):
    """D74, D77: names that mean something to the broker elsewhere mean nothing as a command's."""
    if command in ("CC", "x-death"):
        check(saga_of("book", command=command))
        return
    with pytest.raises(DefinitionError):
        check(saga_of("book", command=command))
    with pytest.raises(DefinitionError):
        Participant("shop").command(command)


@pytest.mark.parametrize(
    "queue", [queue.name for queue in participant_topology("shop", ["do.it"]).queues]
)
def test_a_participant_s_queue_is_in_the_engine_s_namespace(queue):
    """D74: whatever it is called, it is not amq.*, not the default exchange's, nobody else's."""
    assert queue == "saga.participant.shop"


@pytest.mark.parametrize(
    "timeout",
    [timedelta(), timedelta(seconds=-1), FOREVER, timedelta(microseconds=1), 10**12, NAN,
     float("inf"), "1 month", None, True, timedelta(days=31)],
)  # fmt: skip
def test_waits_that_never_end_or_never_begin_are_refused(timeout):
    """D71."""
    with pytest.raises(DefinitionError):
        check(saga_of("book", timeout=timeout))
    with pytest.raises(DefinitionError):
        check(undone(timeout=timeout))


@pytest.mark.parametrize(
    "retry",
    [
        Retry(attempts=0),
        Retry(attempts=-1),
        Retry(attempts=10**9),
        Retry(attempts=True),
        WRONG_RETRY(attempts=NAN),
        WRONG_RETRY(attempts=1e3),
        Retry(factor=0.99),
        Retry(factor=NAN),
        Retry(factor=float("inf")),
        Retry(factor=-2),
        Retry(factor=10**400),
        Retry(jitter=1.01),
        Retry(jitter=NAN),
        Retry(jitter=-0.01),
        Retry(initial=FOREVER, maximum=FOREVER),
        Retry(initial=timedelta(seconds=-1)),
        Retry(initial=timedelta.min),
        Retry(maximum=timedelta(days=31)),
        WRONG_RETRY(initial=NAN),
        "always",
        10**9,
        None,
    ],
    ids=repr,
)
def test_patience_without_bounds_is_refused_in_both_directions(retry):
    """D71."""
    with pytest.raises(DefinitionError):
        check(saga_of("book", retry=retry))
    with pytest.raises(DefinitionError):
        check(undone(retry=retry))


@pytest.mark.parametrize("factor", [1, 1.0, 9.99, 10])
@pytest.mark.parametrize("failures", [1, 64, 1000, 10**9])
def test_the_longest_patience_that_is_allowed_overflows_nowhere(factor, failures):
    """D71: 2^n."""
    most = timedelta(days=30)
    retry = Retry(attempts=1000, initial=most, maximum=most, factor=factor, jitter=1)
    check(saga_of("book", retry=retry))
    assert timedelta() <= retry.delay(failures, "seed") <= most


def undone(**options):
    """A step whose compensation has the options."""
    saga = saga_of("book", read_only=False)

    @saga.steps["book"].compensation(command="undo.it", **options)
    def unbook(order: dict) -> dict:
        return order

    return saga
