"""The JSON Schema of a type says what pydantic's leaves out."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    PastDate,
    TypeAdapter,
)
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema

from saga_engine.payload.json_schema import PayloadJsonSchema
from saga_engine.payload.payload import PayloadType

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
        (str, None),
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
