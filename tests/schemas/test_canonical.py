"""A fingerprint changes exactly when other values fit."""

from typing import Any

import pytest

from saga_engine.schemas.canonical import fingerprint

SCHEMA: Any = {
    "$defs": {"Line": {"type": "object", "properties": {"title": {"type": "string"}}}},
    "type": "object",
    "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}}},
    "required": ["lines", "a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "more",
    [
        {"title": "Order", "description": "d", "examples": [1], "x-unit": "kg"},
        {"default": {"lines": []}},
        {"required": ["a", "lines"]},
    ],
)
def test_words_and_order_change_nothing(more):
    assert fingerprint({**SCHEMA, **more}) == fingerprint(dict(reversed(SCHEMA.items())))


@pytest.mark.parametrize(
    "more",
    [
        {"required": ["lines"]},
        {"additionalProperties": True},
        {"properties": {"lines": {"type": "array"}}},
        {"$defs": {"Line": {"type": "object", "properties": {"name": {"type": "string"}}}}},
        {"enum": [{"title": "a"}]},
        {"if": {}},
    ],
)
def test_what_fits_changes_it(more):
    assert fingerprint({**SCHEMA, **more}) != fingerprint(SCHEMA)


def test_names_of_fields_and_values_are_kept():
    assert fingerprint({"enum": ["title"]}) != fingerprint({"enum": ["description"]})
    assert fingerprint({"properties": {"title": {}}}) != fingerprint({"properties": {}})


def test_it_is_a_sha_256_of_all_documents():
    assert len(fingerprint(SCHEMA)) == 64
    assert fingerprint(SCHEMA, {}) != fingerprint(SCHEMA)
    assert fingerprint(SCHEMA, True) != fingerprint(True, SCHEMA)
