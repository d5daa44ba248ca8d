"""Which versions must read each other, and what is said when one cannot."""

from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.declared_schema import ReadFailure, SchemaKind
from saga_engine.schemas.judgement import BreakDirection, SchemaBreak, judge
from tests.kit.declared_schemas import declared_json, declared_type, stored
from tests.kit.schema_pairs import CHANGES, INTEGER, TEXT, Change, record

EACH_CHANGE = pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.name)
EACH_MODE = pytest.mark.parametrize("mode", Compatibility)

A = record({"a": TEXT}, "a")
A_AND_B = record({"a": TEXT, "b": TEXT}, "a", "b")


class Placed(BaseModel):
    customer: str


class PlacedWithNumber(BaseModel):
    customer: int


class PlacedWithCurrency(BaseModel):
    customer: str
    currency: str


def directions(change: Change, mode: Compatibility, *before: Any) -> set[BreakDirection]:
    """The directions that are broken by a change, after other versions."""
    documents = [*before, change.old]
    earlier = [stored(declared_json(each, n), n) for n, each in enumerate(documents, 1)]
    return {each.direction for each in judge(declared_json(change.new, 9), earlier, mode)}


def expected(change: Change, mode: Compatibility) -> set[BreakDirection]:
    broken = set()
    if mode.is_backward and not change.backward:
        broken.add(BreakDirection.BACKWARD)
    if mode.is_forward and not change.forward:
        broken.add(BreakDirection.FORWARD)
    return broken


def failing(problem):
    """Upcasters that fail with every example."""
    return lambda *_: ReadFailure(problem, "Correct it.")


def broken(new: Any, old: Any, mode: Compatibility = Compatibility.FULL) -> list[SchemaBreak]:
    return [*judge(new, [stored(old, 7)], mode)]


@EACH_CHANGE
@EACH_MODE
def test_each_mode_reports_the_directions_that_it_names(change, mode):
    assert directions(change, mode) == expected(change, mode)


@pytest.mark.parametrize("mode", [each for each in Compatibility if each is not Compatibility.NONE])
def test_only_a_transitive_mode_looks_at_versions_before_the_last(mode):
    unchanged = next(each for each in CHANGES if each.name == "an optional field is added")
    assert bool(directions(unchanged, mode, {"type": "integer"})) == mode.is_transitive


def test_a_class_that_is_rolled_back_must_read_what_the_newer_one_has_written():
    one, other = declared_type(Placed, 1), declared_type(PlacedWithNumber, 1)
    registered = [stored(one, 3), stored(other, 8)]
    (found,) = judge(one, registered, Compatibility.FULL)
    assert (found.earlier.id, found.direction) == (8, BreakDirection.BACKWARD)
    assert {each.earlier.id for each in judge(other, registered, Compatibility.FULL)} == {3}
    assert not [*judge(one, registered, Compatibility.FORWARD)]


def test_a_reply_that_is_rolled_back_is_not_compared_with_the_newer_one():
    one, other = (declared_json(each, 1, "buy/reply", SchemaKind.REPLY) for each in (A, INTEGER))
    registered = [stored(one, 3), stored(other, 8)]
    assert not [*judge(one, registered, Compatibility.FULL)]


def test_an_upcaster_between_versions_with_one_schema_is_tried():
    old, new = declared_json(A, 1), declared_json(A, 2, read_example=failing("it raised"))
    (found,) = broken(new, old, Compatibility.FULL)
    assert found.problem.endswith(
        "cannot read version 1: an example of version 1 is not read: it raised"
    )
    assert broken(declared_json(A, 2), old, Compatibility.FULL) == []


def test_older_code_that_starts_again_is_not_compared_with_newer_code():
    old, new = declared_type(Placed, 1), declared_type(PlacedWithCurrency, 2)
    assert not [*judge(old, [stored(new, 1)], Compatibility.FULL_TRANSITIVE)]


def test_a_change_of_an_event_without_a_new_version_is_named_with_its_fix():
    (found,) = broken(declared_type(PlacedWithCurrency, 2), declared_type(Placed, 2))
    assert found.problem == (
        "order-placed version 2 cannot read schema 7: `currency` is required"
        " in the class and is absent in schema 7"
    )
    assert found.fix == (
        "Give it a default, or raise the version to 3 and declare an upcast from version 2."
    )


def test_a_value_that_is_refused_needs_more_than_a_default():
    (found,) = broken(declared_json(INTEGER), declared_json(TEXT), Compatibility.BACKWARD)
    assert found.fix.startswith("Accept what schema 7 has written, or raise")


def test_a_reader_of_an_earlier_version_that_is_broken_is_named():
    (found,) = broken(declared_json(A, 3), declared_json(A_AND_B, 2), Compatibility.FORWARD)
    assert found.problem == (
        "version 2 of order-placed cannot read version 3: `b` is required in version 2 and is"
        " absent in version 3"
    )
    assert found.fix == (
        "Keep what version 2 reads. Or allow it: `saga-engine schemas set order-placed"
        " --compatibility MODE`."
    )


def test_a_reply_has_no_upcast():
    command, reply = (
        [declared_json(each, n, "buy/charge/reply", SchemaKind.REPLY) for n, each in ((1, A),)],
        declared_json(A_AND_B, 2, "buy/charge/reply", SchemaKind.REPLY),
    )
    (found,) = broken(reply, command[0], Compatibility.BACKWARD)
    assert found.fix.startswith("Give it a default. Or allow it: `saga-engine schemas set buy/ch")


def test_an_earlier_version_of_an_event_is_read_by_the_upcasters():
    read: list[Any] = []

    def read_example(version, data):
        read.append((version, data))

    new = declared_json(INTEGER, 3, read_example=read_example)
    assert broken(new, declared_json(A, 2), Compatibility.BACKWARD) == []
    assert read[0] == (2, {"a": "ab"})


def test_an_upcaster_that_fails_is_reported_once():
    new = declared_json(A, 3, read_example=failing("add_b raised"))
    (found,) = broken(new, declared_json(A_AND_B, 2), Compatibility.BACKWARD)
    assert found.problem == (
        "order-placed version 3 cannot read version 2: an example of version 2 is not read:"
        " add_b raised"
    )
    assert found.fix == "Correct it."
