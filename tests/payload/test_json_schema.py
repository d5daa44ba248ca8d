"""The JSON Schema of a type says what pydantic's leaves out."""

import re
from collections import Counter, OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    AnyHttpUrl,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FtpUrl,
    KafkaDsn,
    NaiveDatetime,
    NatsDsn,
    PastDate,
    PlainSerializer,
    RootModel,
    StringConstraints,
    TypeAdapter,
    model_serializer,
)
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema
from typing_extensions import TypedDict

from saga_engine.payload.json_schema import PayloadJsonSchema
from saga_engine.payload.payload import PayloadType
from saga_engine.payload.secret import Secret

YEAR = datetime(2020, 1, 1, tzinfo=UTC)
DECIMAL = {"type": "string", "format": "decimal"}
AMOUNT = Annotated[Decimal, Field(max_digits=9, decimal_places=2, ge=0, lt=100)]
LIMITS = {"maxDigits": 9, "decimalPlaces": 2, "minimum": 0.0, "exclusiveMaximum": 100.0}


@pytest.mark.parametrize(
    ("python_type", "written", "read"),
    [
        (Decimal, DECIMAL, {"anyOf": [{"type": "number"}, DECIMAL]}),
        (
            AMOUNT,
            DECIMAL | LIMITS,
            {"anyOf": [{"type": "number"} | LIMITS, DECIMAL | LIMITS]},
        ),
    ],
)
def test_a_decimal_number_is_not_any_text(python_type, written, read):
    schema = PayloadType(python_type).schema
    assert (schema("serialization"), schema("validation")) == (written, read)


@pytest.mark.parametrize(
    ("python_type", "zone"),
    [
        (AwareDatetime, {"timezone": "aware"}),
        (NaiveDatetime, {"timezone": "naive"}),
        (datetime, {}),
    ],
)
def test_a_time_says_whether_it_has_a_zone(python_type, zone):
    expected = {"type": "string", "format": "date-time", **zone}
    assert PayloadType(python_type).schema("validation") == expected


def test_a_time_that_is_written_as_a_number_has_no_zone():
    adapter = TypeAdapter(NaiveDatetime, config=ConfigDict(ser_json_temporal="seconds"))
    schema = adapter.json_schema(mode="serialization", schema_generator=PayloadJsonSchema)
    assert schema == {"type": "number"}


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (int, {"type": "string", "format": "integer"}),
        (float, {"type": "string", "format": "number"}),
        (bool, {"type": "string", "format": "boolean"}),
        (Annotated[int, Field(ge=5)], {"type": "string", "format": "integer", "minimum": 5}),
        (Decimal, DECIMAL),
        (Decimal | bool, {"anyOf": [DECIMAL, {"type": "string", "format": "boolean"}]}),
        (int | None, {"type": "string", "format": "integer"}),
        (Literal["a"], {"const": "a"}),
        (str, None),
        (Any, None),
    ],
)
def test_keys_that_are_numbers_are_named(keys: Any, names):
    schema: Any = PayloadType(dict[keys, int]).schema("validation")
    assert schema.get("propertyNames") == names


class Fee(BaseModel):
    cents: int = Field(5, exclude_if=lambda value: value == 5)
    note: str = ""


@dataclass
class FeeOfADataclass:
    cents: int = Field(5, exclude_if=lambda value: value == 5)
    note: str = ""


@pytest.mark.parametrize("kind", [Fee, FeeOfADataclass])
def test_a_written_field_that_may_be_left_out_is_named(kind):
    schema: Any = PayloadType(kind).schema
    written, read = (schema(mode)["properties"] for mode in ("serialization", "validation"))
    assert written["cents"] == {"mayBeAbsent": True, **read["cents"]}
    assert "mayBeAbsent" not in written["note"]


@pytest.mark.parametrize(
    ("python_type", "bounds"),
    [
        (Annotated[date, Field(ge=date(2020, 1, 1))], {"ge": "2020-01-01"}),
        (PastDate, {"now_op": "past"}),
        (Annotated[datetime, Field(lt=YEAR)], {"lt": "2020-01-01 00:00:00+00:00"}),
        (Annotated[time, Field(gt=time(1))], {"gt": "01:00:00"}),
        (Annotated[timedelta, Field(le=timedelta(days=1))], {"le": "1 day, 0:00:00"}),
    ],
)
def test_bounds_of_dates_times_and_durations_are_described(python_type, bounds):
    schema: Any = PayloadType(python_type).schema
    assert schema("serialization")["bounds"] == schema("validation")["bounds"] == bounds


class Cents:
    """A class that says nothing about its JSON."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda _: cls())


def test_a_field_without_a_schema_is_any_json_and_the_others_are_described():
    class Event(BaseModel):
        cents: Cents
        name: int | str = Field(union_mode="left_to_right")
        note: int | str

    schema = TypeAdapter(Event).json_schema(schema_generator=PayloadJsonSchema)
    assert schema["properties"]["cents"] == {"title": "Cents"}
    assert schema["properties"]["name"]["unionMode"] == "left_to_right"
    assert "unionMode" not in schema["properties"]["note"]


def test_keys_that_no_text_is_are_named_as_they_are():
    schema: Any = TypeAdapter(dict[Literal[1], int]).json_schema(schema_generator=PayloadJsonSchema)
    assert schema["propertyNames"] == {"type": "integer", "const": 1}
    schema = TypeAdapter(dict[None, int]).json_schema(schema_generator=PayloadJsonSchema)
    assert schema["propertyNames"] == {"type": "null"}


INTEGERS = core_schema.int_schema()


@pytest.mark.parametrize(
    "schema",
    [
        core_schema.dict_schema(INTEGERS, INTEGERS),
        TypeAdapter(OrderedDict[int, int]).core_schema,
        TypeAdapter(Counter[int]).core_schema,
        core_schema.frozendict_schema(INTEGERS, INTEGERS),
    ],
)
def test_each_kind_of_map_names_its_keys(schema):
    described = PayloadJsonSchema().generate(schema)
    assert described["propertyNames"] == {"type": "string", "format": "integer"}


def test_a_bound_that_a_number_of_json_would_alter_is_a_text():
    exact: Any = Annotated[Decimal, Field(ge=9007199254740993, lt=Decimal("1E+20"))]
    described = PayloadType(exact).schema("serialization")
    bounds = {"bounds": {"ge": "9007199254740993"}, "exclusiveMaximum": 1e20}
    assert described == DECIMAL | bounds


def test_a_decimal_number_that_may_be_infinite_is_named():
    infinite: Any = Annotated[Decimal, Field(allow_inf_nan=True)]
    assert PayloadType(infinite).schema("serialization") == DECIMAL | {"mayBeInfinite": True}


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf8", "binary"), ("base64", "base64url"), ("hex", "hex")]
)
def test_bytes_say_how_they_are_a_text(encoding: Any, name):
    class Content(BaseModel):
        model_config = ConfigDict(val_json_bytes=encoding, ser_json_bytes=encoding)
        content: bytes

    schema: Any = PayloadType(Content).schema
    for mode in ("serialization", "validation"):
        assert schema(mode)["properties"]["content"]["format"] == name


@pytest.mark.parametrize(
    ("constraints", "keywords"),
    [
        (StringConstraints(strip_whitespace=True, to_upper=True), {"stripped", "uppercase"}),
        (StringConstraints(to_lower=True, ascii_only=True), {"lowercase", "ascii"}),
        (StringConstraints(), set()),
    ],
)
def test_a_text_that_is_changed_when_it_is_read_says_how(constraints, keywords):
    described: Any = PayloadType(Annotated[str, constraints]).schema("validation")
    assert described.keys() == {"type"} | keywords


class Address:
    """A class that is written with `str`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda _: cls(), serialization=core_schema.to_string_ser_schema()
        )


def test_a_class_that_strips_its_texts_names_it_for_each():
    class Stripping(BaseModel):
        model_config = ConfigDict(str_strip_whitespace=True, regex_engine="python-re")
        name: str
        code: str = Field(pattern="^a")
        address: Address

    schema: Any = PayloadType(Stripping).schema("serialization")
    assert schema["properties"]["name"]["stripped"]
    assert schema["properties"]["code"]["regexEngine"] == "python-re"
    assert schema["properties"]["address"] == {"title": "Address", "type": "string"}


@pytest.mark.parametrize(
    ("python_type", "limits"),
    [
        (AnyUrl, {}),
        (AnyHttpUrl, {"schemes": ["http", "https"]}),
        (NatsDsn, {"schemes": ["nats", "tls", "ws", "wss"]}),
        (KafkaDsn, {"schemes": ["kafka"]}),
        (FtpUrl, {"schemes": ["ftp"]}),
    ],
)
def test_a_url_says_its_schemes(python_type, limits):
    described: Any = PayloadType(python_type).schema("validation")
    assert {name: described[name] for name in ("schemes",) if name in described} == limits


def test_a_pattern_says_what_decides_beside_its_text():
    ignoring: Any = Annotated[str, Field(pattern=re.compile("^a", re.IGNORECASE))]
    plain: Any = Annotated[str, Field(pattern=re.compile("^a"))]
    text = {"type": "string", "pattern": "^a"}
    python = {"regexEngine": "python-re"}
    assert PayloadType(plain).schema("validation") == text | python
    assert PayloadType(ignoring).schema("validation") == text | python | {"regexFlags": 2}
    assert PayloadType(Annotated[str, Field(pattern="^a")]).schema("validation") == text


NEW_OR_OLD = AliasChoices("new", "old")


class ReadByAliases(BaseModel):
    new: int = Field(0, validation_alias=NEW_OR_OLD)
    alone: int = 0


@dataclass
class DataclassReadByAliases:
    new: int = Field(0, validation_alias=NEW_OR_OLD)
    alone: int = 0


class TypedDictReadByAliases(TypedDict):
    new: Annotated[int, Field(validation_alias=NEW_OR_OLD)]
    alone: int


@pytest.mark.parametrize("kind", [ReadByAliases, DataclassReadByAliases, TypedDictReadByAliases])
def test_a_field_that_is_read_by_several_names_names_them(kind):
    schema: Any = PayloadType(kind).schema
    written, read = (schema(mode)["properties"] for mode in ("serialization", "validation"))
    assert read["new"]["readAs"] == ["new", "old"]
    assert "readAs" not in read["alone"]
    assert "readAs" not in written["new"]


def test_a_field_that_is_read_by_its_own_name_or_a_path_names_them_in_their_order():
    class Named(BaseModel):
        model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
        a: int = Field(alias="b")
        c: int = Field(0, validation_alias=AliasChoices(AliasPath("meta", "c"), "c"))
        d: int = Field(0, validation_alias=AliasPath("d"))

    class Inside(BaseModel):
        c: int = Field(0, validation_alias=AliasPath("meta", "c"), exclude=True)

    properties: Any = PayloadType(Named).schema("validation")
    assert {name: each.get("readAs") for name, each in properties["properties"].items()} == {
        "b": ["b", "a"],
        "c": [["meta", "c"], "c"],
        "d": None,
    }
    properties = PayloadType(Inside).schema("validation")
    assert properties["properties"]["c"]["readAs"] == [["meta", "c"]]


def test_what_a_serializer_without_a_return_type_writes_is_any_json():
    def to_text(value: int):
        return str(value)

    def to_typed_text(value: int) -> str:
        return str(value)

    class Written(BaseModel):
        a: Annotated[int, PlainSerializer(to_text)]
        b: Annotated[int, PlainSerializer(to_typed_text)]
        c: deque[int]
        d: Secret[str]

    class Whole(BaseModel):
        a: int

        @model_serializer(mode="wrap")
        def write(self, handler):
            return handler(self)

    schema: Any = PayloadType(Written).schema("serialization")
    types = {name: each.get("type") for name, each in schema["properties"].items()}
    assert types == {"a": None, "b": "string", "c": "array", "d": "string"}
    assert PayloadType(Whole).schema("serialization") == {}


@pytest.mark.parametrize(
    ("python_type", "expected"),
    [(Any, True), (RootModel[Any], True), (int, False), (Cents, False), (Fee, False)],
)
def test_any_json_differs_from_a_class_without_a_schema(python_type, expected):
    assert PayloadType(python_type).is_any_json is expected


def test_a_class_whose_schema_function_raises_has_the_empty_schema():
    class Raising(BaseModel):
        a: int

        @classmethod
        def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
            raise ValueError

    assert PayloadType(Raising).schema("validation") == {}
