"""Each type of pydantic has its type in Avro; what has none is named, with what to do."""

import enum
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired

import fastavro
import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model
from typing_extensions import TypedDict

from saga_engine.errors import InvalidInput
from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.avro_codec import AvroCodec
from saga_engine.schemas.avro_schema import avro_name, avro_type
from tests.kit.schema_models import Order

SHADES = enum.StrEnum("SHADES", ["DARK", "LIGHT"])


class Line(BaseModel):
    sku: str


def schema(python_type: Any) -> Any:
    return avro_type("order-placed", PayloadType(python_type).schema("serialization")).schema


def field(python_type: Any) -> Any:
    """The Avro type of a required field."""

    class Event(BaseModel):
        a: python_type

    return schema(Event)["fields"][0]["type"]


MAP: Any = {"type": "object"}
LINE = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]}
SHADE = {"type": "enum", "name": "SHADES", "symbols": ["dark", "light"]}


@pytest.mark.parametrize(
    ("python_type", "expected"),
    [
        (str, "string"),
        (int, "long"),
        (float, "double"),
        (bool, "boolean"),
        (None, "null"),
        (bytes, "string"),
        (Any, "string"),
        (list[int], {"type": "array", "items": "long"}),
        (set[str], {"type": "array", "items": "string"}),
        (tuple[int, str, int], {"type": "array", "items": ["long", "string"]}),
        (dict[str, int], {"type": "map", "values": "long"}),
        (dict[Annotated[str, Field(pattern="^a")], int], {"type": "map", "values": "long"}),
        (int | None, ["long", "null"]),
        (int | float, ["long", "double"]),
        (Literal["a", 1], ["long", "string"]),
        (Literal["a"], "string"),
        (Literal["a", "b c"], "string"),
        (Literal[True, False], "boolean"),
        (Line, LINE),
        (list[Line], {"type": "array", "items": LINE}),
        (SHADES, SHADE),
        (SHADES | str, "string"),
        (dict[str, SHADES | None], {"type": "map", "values": [SHADE, "null"]}),
    ],
)  # fmt: skip
def test_a_type_has_its_type_in_avro(python_type, expected):
    assert field(python_type) == expected


def test_the_schema_of_a_large_model_is_valid():
    orders = schema(Order)
    assert fastavro.parse_schema(orders)
    fields = {each["name"]: each for each in orders["fields"]}
    assert (orders["name"], fields["order_date"]["default"]) == ("order_placed", "today")
    assert fields["note"] == {"name": "note", "type": ["null", "string"], "default": None}
    assert fields["kind"]["default"] == "small"
    assert fields["tags"]["default"] == {}
    assert fields["placed_at"]["type"]["logicalType"] == "timestamp-micros"
    assert fields["opened_at"]["type"]["logicalType"] == "local-timestamp-micros"
    assert (fields["changed_at"]["type"], fields["rate"]["type"]) == ("string", "string")
    assert fields["other_kind"]["type"] == ["null", "Kind"]


def test_a_field_that_may_be_absent_is_absent_again():
    class Event(TypedDict):
        a: int
        b: NotRequired[str]

    codec = AvroCodec("event", PayloadType(Event).schema("serialization"))
    assert codec.schema["fields"][1] == {"name": "b", "type": ["null", "string"], "default": None}
    examples: list[Any] = [{"a": 1}, {"a": 1, "b": "x"}]
    for data in examples:
        assert codec.decode(codec.encode(data)) == data


def test_classes_of_one_name_are_different():
    def line(field_type: Any) -> Any:
        fields = {"__annotations__": {"sku": field_type}, "__module__": __name__}
        return type("Line", (BaseModel,), fields)

    class Event(BaseModel):
        a: line(int)  # type: ignore[valid-type]
        b: line(str)  # type: ignore[valid-type]

    found = schema(Event)
    assert [each["type"]["name"] for each in found["fields"]] == ["Line", "Line_2"]
    assert fastavro.parse_schema(found)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Twins(BaseModel):
    one: Annotated[int, Field(alias="a-b")]
    other: Annotated[int, Field(alias="a_b")]


@pytest.mark.parametrize(
    ("python_type", "problem"),
    [
        (list[int] | list[str], "`a` is a union with two members that are of type array in Avro"),
        (Open, "`a` has fields beside those of its class"),
        (Twins, "`a.a_b` has the name of another field in Avro"),
    ],
)
def test_what_avro_cannot_say_is_named(python_type, problem):
    with pytest.raises(InvalidInput) as caught:
        field(python_type)
    assert problem in str(caught.value)


@pytest.mark.parametrize("document", [{"not": {}}, {"type": "number", "anyOf": []}, {"minimum": 1}])
def test_a_schema_without_a_type_is_named(document):
    with pytest.raises(InvalidInput, match="has no type that Avro has"):
        avro_type("event", document | {"type": None} if "anyOf" in document else document)


def test_a_deep_schema_is_named():
    deep: Any = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidInput, match="nested deeper than 50 levels"):
        avro_type("event", deep)


@pytest.mark.parametrize(
    ("text", "name"), [("order-placed", "order_placed"), ("1a", "_1a"), ("a.b", "a_b"), ("", "_")]
)
def test_a_name_has_only_what_avro_allows(text, name):
    assert avro_name(text) == name


@pytest.mark.parametrize("name", ["string", "bytes", "double", "null", "record"])
def test_a_class_may_have_the_name_of_a_type_of_avro(name):
    named = create_model(name, x=(int, ...))
    event = create_model("Event", a=(named | None, ...), b=(str, ...))
    codec = AvroCodec("event", PayloadType(event).schema("serialization"))
    data: Any = {"a": {"x": 1}, "b": "y"}
    assert codec.decode(codec.encode(data)) == data
    assert codec.schema["fields"][0]["type"][0]["name"] == f"{name}_"


def test_a_class_is_one_member_of_a_union_however_often_it_is_used():
    assert field(tuple[Line, Line])["items"] == LINE
    assert field(tuple[list[int], list[int]])["items"] == {"type": "array", "items": "long"}
    assert field(tuple[SHADES, Line | SHADES])["items"] == [SHADE, LINE]


def test_a_decimal_number_that_avro_cannot_have_is_a_text():
    assert field(Annotated[Decimal, Field(max_digits=2, decimal_places=4)]) == "string"


def test_null_that_could_also_be_an_absent_field_is_named():
    class Event(BaseModel):
        a: int | None = Field(7, exclude_if=lambda value: value == 7)

    with pytest.raises(InvalidInput, match="`a` may be absent or null, which are one in Avro"):
        schema(Event)

    class WithNull(BaseModel):
        a: int | None = Field(None, exclude_if=lambda value: value is None)

    assert schema(WithNull)["fields"] == [{"name": "a", "type": ["null", "long"], "default": None}]


def test_a_schema_of_many_parts_is_named():
    def twice(name: int) -> Any:
        inner = {"$ref": f"#/$defs/{name}"}
        return {"type": "array", "prefixItems": [inner, {"additionalProperties": inner} | MAP]}

    definitions: Any = {str(n): twice(n + 1) for n in range(20)} | {"20": {"type": "integer"}}
    with pytest.raises(InvalidInput, match="has more than 10000 parts"):
        avro_type("event", {"$defs": definitions, "$ref": "#/$defs/0"})
