"""A reader's schema accepts all that a writer's describes, or it is said which field it refuses."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas import comparison
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.incompatibility import Problem
from tests.kit.schema_pairs import INTEGER, NULL, NUMBER, TEXT, field, record, tagged


def compare_types(writer: Any, reader: Any) -> list[Any]:
    """Compare what one type writes with what another one reads."""
    written = PayloadType(writer).schema("serialization")
    return compare(written, PayloadType(reader).schema("validation"))


def problems(writer: Any, reader: Any) -> list[tuple[str, Problem]]:
    return [(each.path, each.problem) for each in compare(writer, reader)]


class Leaf(BaseModel):
    value: int


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class OtherTree(BaseModel):
    value: int
    children: list["OtherTree"] = []
    note: str | None = None


class StrictTree(BaseModel):
    value: int
    children: list["StrictTree"]


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class CardWithName(BaseModel):
    kind: Literal["card"]
    number: str
    holder: str


class Cash(BaseModel):
    kind: Literal["cash"]


Payment = Annotated[Card | Cash, Field(discriminator="kind")]
NewPayment = Annotated[CardWithName | Cash, Field(discriminator="kind")]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class AandB(BaseModel):
    a: int
    b: int = 0


def test_a_type_reads_what_it_writes():
    for each in (Leaf, Tree, Payment, Closed, Open, dict[str, Tree], list[Leaf | None], Any):
        assert compare_types(each, each) == []


def test_recursive_types_are_compared():
    assert compare_types(Tree, OtherTree) == []
    assert [(each.path, each.problem) for each in compare_types(Tree, StrictTree)] == [
        ("children", Problem.OPTIONAL)
    ]


def test_a_field_of_the_union_member_with_the_same_tag_is_named():
    found = compare_types(list[Payment], list[NewPayment])
    assert [(each.path, each.problem) for each in found] == [("[].holder", Problem.MISSING)]


def test_a_field_of_an_optional_record_is_named():
    found = compare_types(dict[str, Leaf | None], dict[str, AandB | None])
    assert [(each.path, each.problem) for each in found] == [("*.a", Problem.MISSING)]


def test_members_of_a_union_may_read_some_values_each():
    values = field({"enum": ["x", 1, None]})
    members = field({"anyOf": [{"const": "x"}, INTEGER, NULL]})
    assert compare(values, members) == []
    two_constants: Any = {"anyOf": [{"const": True}, {"const": False}]}
    assert compare({"type": "boolean"}, two_constants) == []


def test_a_value_that_no_member_of_a_union_reads_is_named():
    (found,) = compare(field({"enum": ["x", "z"]}), field({"anyOf": [{"const": "x"}, INTEGER]}))
    assert found.sentence("version 1", "version 2") == (
        "`a` is 'z' in version 1, and none of the 2 types of its union accepts that in version 2"
    )


@pytest.mark.parametrize(
    ("writer", "reader"), [(1, 1.0), (1.0, 1), ("1", "1"), (True, True), ([1], [1.0])]
)
def test_fixed_values_are_compared_as_json_does(writer, reader):
    assert compare({"const": writer}, {"const": reader}) == []


@pytest.mark.parametrize(("writer", "reader"), [(1, True), (0, False), ("1", 1), (None, 0)])
def test_fixed_values_of_other_types_are_different(writer, reader):
    assert problems({"const": writer}, {"const": reader}) == [("body", Problem.VALUE)]


@pytest.mark.parametrize(
    ("value", "reader", "fits"),
    [
        ("abc", {**TEXT, "maxLength": 3}, True),
        ("abcd", {**TEXT, "maxLength": 3}, False),
        (2.0, INTEGER, True),
        (1.5, INTEGER, False),
        (1e300, INTEGER, False),
        (0, {**INTEGER, "multipleOf": 5}, True),
        (12, {**INTEGER, "maximum": 11}, False),
        ({"x": 1}, record({"x": INTEGER}, "x"), True),
        ({"x": "1"}, record({"x": INTEGER}, "x"), False),
        ([1, "a"], {"type": "array", "prefixItems": [NUMBER, TEXT]}, True),
        (None, NULL, True),
        (False, {"type": "boolean"}, True),
    ],
)
def test_a_fixed_value_fits_a_schema_or_not(value, reader, fits):
    assert (compare({"const": value}, reader) == []) == fits


def test_types_that_are_not_the_same_are_reported():
    assert problems(field(TEXT), field(INTEGER)) == [("a", Problem.TYPE)]
    assert problems({}, TEXT) == [("body", Problem.TYPE)]
    assert problems(TEXT, {}) == []
    assert problems(TEXT, True) == []
    assert problems(TEXT, False) == [("body", Problem.VALUE)]
    assert problems(False, TEXT) == []


@pytest.mark.parametrize(
    "keyword", ["not", "if", "then", "contains", "dependentRequired", "unevaluatedProperties"]
)
def test_a_keyword_that_is_not_understood_is_reported_unless_both_have_it(keyword):
    rule = {**TEXT, keyword: {"const": "x"}}
    (found,) = compare(field(rule), field({**rule, keyword: {"const": "y"}}))
    assert found.problem is Problem.NOT_UNDERSTOOD
    expected = f"`a` has the keyword `{keyword}`, which this check does not understand"
    assert found.sentence("version 1", "version 2") == expected
    assert problems(field(rule), field(TEXT)) == [("a", Problem.NOT_UNDERSTOOD)]
    assert problems(field(TEXT), field(rule)) == [("a", Problem.NOT_UNDERSTOOD)]
    assert problems(field(rule), field(rule)) == []


def test_keywords_beside_a_union_are_not_understood():
    mixed = {"anyOf": [TEXT, NULL], "maxLength": 3}
    assert problems(field(mixed), field(mixed)) == [("a", Problem.NOT_UNDERSTOOD)]


def test_an_annotation_decides_nothing():
    noted: Any = {**TEXT, "x-unit": "kg", "examples": ["1"], "deprecated": True, "notes": [1]}
    assert compare(field(noted), field(TEXT)) == compare(field(TEXT), field(noted)) == []


@pytest.mark.parametrize(
    "document",
    [
        {"type": "string", "minLength": "many"},
        {"type": "array", "prefixItems": 5},
        {"type": "object", "properties": 5},
        {"type": "nonsense"},
        {"anyOf": 7},
        {"enum": 7},
        {"$ref": 7},
        [],
        "text",
        None,
    ],
)
def test_a_document_that_is_not_a_schema_is_reported(document):
    for writer, reader in ((document, record({})), (record({}), document), (document, document)):
        assert all(each.sentence("a", "b") for each in compare(writer, reader))
    assert compare(document, {"type": "integer", "multipleOf": 2})


def test_a_reference_that_leads_nowhere_is_reported():
    nowhere = field({"$ref": "#/$defs/Missing"})
    assert problems(field(TEXT), nowhere) == [("a", Problem.NOT_UNDERSTOOD)]
    assert problems(nowhere, field(TEXT)) == [("a", Problem.NOT_UNDERSTOOD)]
    elsewhere = field({"$ref": "https://example.com/schema"})
    assert problems(elsewhere, elsewhere) == [("a", Problem.NOT_UNDERSTOOD)]


def test_references_that_lead_to_themselves_end():
    loop = field({"$ref": "#/$defs/A"}, A={"$ref": "#/$defs/B"}, B={"$ref": "#/$defs/A"})
    assert problems(loop, loop) == [("a", Problem.NOT_UNDERSTOOD)]
    union: dict[str, Any] = {"$defs": {"U": {"anyOf": [{"$ref": "#/$defs/U"}, TEXT]}}}
    assert compare({**union, "$ref": "#/$defs/U"}, INTEGER)


def test_a_deep_schema_is_reported_as_too_large():
    deep: Any = INTEGER
    for _ in range(comparison.MAX_DEPTH + 1):
        deep = {"type": "array", "items": deep}
    assert problems(deep, deep) == [("body", Problem.TOO_LARGE)]


def test_a_huge_union_is_reported_as_too_large():
    writers = field({"anyOf": [{**TEXT, "minLength": size} for size in range(1, 400)]})
    readers = field({"anyOf": [{**TEXT, "maxLength": size} for size in range(1, 400)]})
    assert problems(writers, readers) == [("body", Problem.TOO_LARGE)]


def test_a_large_tagged_union_is_compared():
    tags = [f"tag-{number}" for number in range(250)]
    assert compare(field(tagged(*tags)), field(tagged(*reversed(tags)))) == []


def test_a_schema_that_contains_itself_many_times_is_compared():
    names = [f"f{number}" for number in range(6)]
    node = record({name: {"$ref": "#/$defs/N"} for name in names}, "f0")
    writer: Any = {"$defs": {"N": node}, "$ref": "#/$defs/N"}
    assert compare(writer, writer) == []
    required: Any = {"$defs": {"N": {**node, "required": names}}, "$ref": "#/$defs/N"}
    assert {each.problem for each in compare(writer, required)} == {Problem.OPTIONAL}


def test_each_incompatibility_is_reported_once_and_few_of_many():
    names = [f"f{number}" for number in range(comparison.MAX_FOUND + 10)]
    found = compare(record({}), record(dict.fromkeys(names, TEXT), *names))
    assert len(found) == len(set(found)) == comparison.MAX_FOUND


def test_a_union_whose_members_are_each_other_is_compared():
    union: Any = {
        "$defs": {
            "A": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, INTEGER]},
            "B": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, TEXT]},
        },
        "$ref": "#/$defs/A",
    }
    assert compare(union, union) == []
    assert problems(union, INTEGER) == [("body", Problem.TYPE)]


def test_thousands_of_values_are_not_compared_with_one_another():  # which takes minutes
    values = {"enum": [f"v{number}" for number in range(60_000)]}
    turned: Any = {"enum": values["enum"][::-1]}
    assert compare(values, turned) == []
    assert compare({"enum": turned["enum"][:20_000]}, {"anyOf": [values, INTEGER]}) == []


def test_more_values_than_are_compared_are_reported():
    values = {"enum": [*range(comparison.MAX_STEPS + 1)]}
    assert problems(values, values) == [("body", Problem.TOO_LARGE)]
