"""
Hostile definitions are refused at load, and quickly.

tests/saga/test_rules.py has each rule with its message; these definitions are hostile or absurdly
large. The numbers are those of the list in docs/reliability.md.
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
"""Tests pass values of the wrong type to it."""
FOREVER = timedelta.max


def saga_of(*steps, name="a", **options):
    """A saga with steps of these names; the options belong to the first one."""
    saga = Saga(name, version=1, input=dict)
    for step in steps:

        def function(order):  # noqa: ARG001
            return {}

        function.__name__ = step
        function.__annotations__ = {"order": dict, "return": dict}
        saga.step(**{"command": "do.it", "read_only": True, **options})(function)
        options = {}
    return saga


def test_ten_thousand_steps_are_refused_before_they_are_checked():
    """D69, D76."""
    saga = saga_of(*(f"s{number}" for number in range(10_000)))

    def refused():
        with pytest.raises(DefinitionError, match="has 10000 steps"):
            check(saga)

    assert count_calls(refused) < 1000


def test_the_most_steps_in_one_cycle_are_refused_quickly():
    """D69: every step names every other."""
    names = [f"s{number}" for number in range(200)]
    saga = saga_of(*names)
    for step in saga.steps.values():
        step.after = names

    def refused():
        with pytest.raises(DefinitionError, match="wait for each other"):
            check(saga)

    assert count_calls(refused) < 1_000_000  # There are 40,000 edges.


def test_the_most_steps_that_depend_on_all_earlier_ones_are_accepted_quickly():
    """D69: 19,900 edges."""
    names = [f"s{number}" for number in range(200)]
    saga = saga_of(*names)
    for number, step in enumerate(saga.steps.values()):
        step.after = names[:number]
    assert count_calls(lambda: check(saga)) < 1_000_000


@pytest.mark.parametrize(
    "name",
    ["x" * 10_000, "a\x00b", "a\x1b[2J", "a\nb", "\u202ea", "../x", "a b", "amq.topic", "", "#",
     "a.b", "' OR 1=1--", "a" * 64 + "\n", "\ud800"],
)  # fmt: skip
def test_names_that_cannot_be_encoded_are_refused(name):
    """D69, D74: as a saga, a step or a participant, so that no other queue can be named."""
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
def test_a_command_must_be_a_routing_key(command):
    """D74, D77: names of headers are allowed, because they have no meaning as a routing key."""
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
def test_the_queue_of_a_participant_has_the_prefix_of_the_engine(queue):
    """D74: so it is neither reserved, nor the default exchange, nor a queue of another program."""
    assert queue == "saga.participant.shop"


@pytest.mark.parametrize(
    "timeout",
    [timedelta(), timedelta(seconds=-1), FOREVER, timedelta(microseconds=1), 10**12, NAN,
     float("inf"), "1 month", None, True, timedelta(days=31)],
)  # fmt: skip
def test_timeouts_without_end_or_duration_are_refused(timeout):
    """D71."""
    with pytest.raises(DefinitionError):
        check(saga_of("book", timeout=timeout))
    with pytest.raises(DefinitionError):
        check(with_compensation(timeout=timeout))


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
def test_unbounded_retries_are_refused(retry):
    """D71."""
    with pytest.raises(DefinitionError):
        check(saga_of("book", retry=retry))
    with pytest.raises(DefinitionError):
        check(with_compensation(retry=retry))


@pytest.mark.parametrize("factor", [1, 1.0, 9.99, 10])
@pytest.mark.parametrize("failures", [1, 64, 1000, 10**9])
def test_the_longest_allowed_backoff_does_not_overflow(factor, failures):
    """D71: 2^n."""
    most = timedelta(days=30)
    retry = Retry(attempts=1000, initial=most, maximum=most, factor=factor, jitter=1)
    check(saga_of("book", retry=retry))
    assert timedelta() <= retry.delay(failures, "seed") <= most


def with_compensation(**options):
    """A step whose compensation has the options."""
    saga = saga_of("book", read_only=False)

    @saga.steps["book"].compensation(command="undo.it", **options)
    def unbook(order: dict) -> dict:
        return order

    return saga
