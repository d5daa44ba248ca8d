"""2,000 generated changes are judged as another checker judges them, or it is known why not."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsoncompat
import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from saga_engine.schemas.comparison import compare
from saga_engine.schemas.schema_side import SchemaSide
from tests.kit.generated_schemas import changes

pytestmark = pytest.mark.long  # test_comparison.py and test_judgement.py have the same promises

PAIRS = 2_000
DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def closed(schema: Any) -> Any:
    """A writer's schema for a checker that does not know that a writer is closed."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(each) for key, each in schema.items()}
    if "properties" in parts:
        parts.setdefault("additionalProperties", False)
    return parts


def oracle_accepts(writer: Any, reader: Any) -> bool:
    old, new = (json.dumps(each | DIALECT) for each in (reader, closed(writer)))
    return jsoncompat.check_compat(old, new, "serializer")


def parts_of(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        yield schema
        for each in schema.values():
            yield from parts_of(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from parts_of(each)


def has_empty_text(writer: Any, _: Any) -> bool:
    """A text with a minimum above its maximum: the oracle knows that it is never written."""
    return any(each.get("minLength", 0) > each.get("maxLength", 99) for each in parts_of(writer))


def has_number_of_one_step(writer: Any, _: Any) -> bool:
    """A number within bounds of which the oracle knows that few values or none fit."""
    bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    return any(bounds & each.keys() and "multipleOf" in each for each in parts_of(writer))


def splits_a_union(_: Any, reader: Any) -> bool:
    """
    A union whose members accept the values of one type together, each a part of them, or of which
    another member may be chosen than the one that accepts all.
    """
    members = [SchemaSide(reader).members(each) for each in parts_of(reader) if "anyOf" in each]
    types = [Counter(str(each.get("type")) for each in union) for union in members]
    return any(
        max(each.values()) > 1 or (each["integer"] and each["number"]) or each["None"]
        for each in types
    )


EXPLANATIONS = {
    "a text that is never written": has_empty_text,
    "a number of which few values fit": has_number_of_one_step,
    "members of a union accept values together": splits_a_union,
}
"""
Why the oracle may accept what is refused here. Nothing that the oracle refuses is accepted here.

Each is a case that the documentation names: what cannot be decided is reported.
"""


def test_changes_are_judged_as_an_independent_checker_judges_them():
    agreed, explained = Counter[bool](), Counter[str]()

    @seed(20261130)
    @settings(
        max_examples=PAIRS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(changes())
    def judge(pair: tuple[Any, Any]) -> None:
        writer, reader = pair
        accepted, expected = not compare(writer, reader), oracle_accepts(writer, reader)
        if accepted == expected:
            agreed[accepted] += 1
            return
        assert not accepted, f"{writer}\n{reader}"
        reason = next((name for name, why in EXPLANATIONS.items() if why(writer, reader)), None)
        assert reason, f"{writer}\n{reader}\n{compare(writer, reader)}"
        explained[reason] += 1

    judge()
    assert agreed.total() + explained.total() >= PAIRS
    assert min(agreed.values()) > PAIRS / 4, agreed
    assert explained.total() < PAIRS / 50, explained


def test_what_a_writer_writes_its_reader_accepts():
    checked = Counter[str]()

    @seed(20261130)
    @settings(
        max_examples=500,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(changes())
    def write_and_read(pair: tuple[Any, Any]) -> None:
        writer, reader = pair
        if compare(writer, reader) or has_empty_text(writer, reader):
            return
        for _ in range(5):
            value = json.loads(jsoncompat.generate_value(json.dumps(closed(writer) | DIALECT)))
            if jsonschema.Draft202012Validator(closed(writer)).is_valid(value):
                jsonschema.Draft202012Validator(reader).validate(value)
                checked["values"] += 1

    write_and_read()
    assert checked["values"] > 500
