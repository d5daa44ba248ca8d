"""References and unions of a document lead to the schemas that they stand for."""

from typing import Any

from saga_engine.schemas.schema_side import ANYTHING, NOTHING, SchemaSide

TEXT = {"type": "string"}


def test_a_union_of_unions_is_flat():
    document: Any = {
        "$defs": {"U": {"oneOf": [TEXT, {"type": "null"}], "title": "U"}},
        "anyOf": [{"$ref": "#/$defs/U", "description": "beside"}, {"type": ["integer", "boolean"]}],
    }
    members = SchemaSide(document).members(document)
    assert [each["type"] for each in members] == ["string", "null", "integer", "boolean"]


def test_a_schema_gives_the_same_objects_each_time():
    document: Any = {
        "anyOf": [TEXT, {"type": ["integer", "null"]}, {"allOf": [TEXT], "minLength": 1}]
    }
    side = SchemaSide(document)
    first, second = side.members(document), side.members(document)
    assert [*map(id, first)] == [*map(id, second)]


def test_what_is_beside_a_reference_counts():
    document: Any = {"$defs": {"a/b": {"maxLength": 3, **TEXT}}}
    side = SchemaSide(document)
    (both,) = side.members({"$ref": "#/$defs/a~1b", "minLength": 1})
    assert both == {"type": "string", "maxLength": 3, "minLength": 1}
    (twice,) = side.members({"$ref": "#/$defs/a~1b", "maxLength": 1})
    assert "allOf" in twice


def test_true_and_false_are_schemas():
    side = SchemaSide({})
    assert side.members(True) == [ANYTHING]
    assert side.members(False) == [NOTHING]
