"""What consumers in Avro cannot read of a declared schema is a break, as its mode demands."""

from typing import Any

import pytest

from saga_engine.schemas.avro_judgement import judge_avro, unwritable
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.judgement import BreakDirection
from tests.kit.declared_schemas import declared_json, stored
from tests.kit.schema_pairs import INTEGER, TEXT, record

ANY_LIST: Any = {"type": "array", "items": TEXT, "default": ["a"]}
OLD = declared_json(record({"a": TEXT}, "a"))
NEW = declared_json(record({"a": TEXT, "b": ANY_LIST}, "a"))
NEXT = declared_json(record({"a": TEXT, "b": ANY_LIST}, "a"), 2)
TWO_LISTS: Any = {"anyOf": [{"type": "array", "items": each} for each in (TEXT, INTEGER)]}
UNWRITABLE = declared_json(record({"a": TWO_LISTS}, "a"))


def breaks(declared, earlier, mode=Compatibility.BACKWARD_TRANSITIVE):
    known = [stored(each, number) for number, each in enumerate(earlier, 1)]
    return [(each.direction, each.earlier.id) for each in judge_avro(declared, known, mode)]


def test_a_field_whose_default_avro_does_not_have_breaks_a_consumer():
    assert breaks(NEW, [OLD]) == [(BreakDirection.BACKWARD, 1)]
    (found,) = judge_avro(NEW, [stored(OLD, 1)], Compatibility.BACKWARD)
    assert found.problem.endswith("Avro's checker names b (/fields/1)")
    assert found.fix.startswith("Give a new field a default that Avro has, or raise the version")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (Compatibility.NONE, []),
        (Compatibility.FORWARD, []),
        (Compatibility.BACKWARD, [1]),
        (Compatibility.FULL, [1]),
    ],
)
def test_the_mode_says_what_must_be_read(mode, expected):
    assert [schema_id for _, schema_id in breaks(NEW, [OLD], mode)] == expected


def test_another_version_is_not_compared():
    assert breaks(NEXT, [OLD]) == []


def test_what_avro_cannot_write_is_named_and_not_compared():
    assert breaks(UNWRITABLE, [OLD]) == breaks(NEW, [UNWRITABLE]) == []
    assert unwritable(OLD) is None
    assert "`a` is a union with two members that are of type array" in str(unwritable(UNWRITABLE))
