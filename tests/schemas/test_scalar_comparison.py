"""Texts and numbers: a limit of the reader that the writer may exceed is reported."""

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    UUID4,
    AnyHttpUrl,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    StringConstraints,
)

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.incompatibility import Incompatibility


def sentences(writer: Any, reader: Any) -> list[str]:
    """What is wrong when a value of one type is read as another."""
    found: list[Incompatibility] = compare(
        PayloadType(writer).schema("serialization"), PayloadType(reader).schema("validation")
    )
    return [each.sentence("v1", "v2") for each in found]


AMOUNT = Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
POSITIVE = Annotated[Decimal, Field(ge=0)]


UPPER = Annotated[str, StringConstraints(to_upper=True)]
PAST_A_FLOAT = Annotated[Decimal, Field(ge=9007199254740993)]
ASCII = Annotated[str, StringConstraints(ascii_only=True)]
INFINITE = Annotated[Decimal, Field(allow_inf_nan=True)]
RAW = Annotated[bytes, Field(min_length=2, max_length=12)]
PYTHON_A = Annotated[str, Field(pattern=re.compile("^a"))]


class Base64(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")
    body: bytes


class Hex(BaseModel):
    model_config = ConfigDict(val_json_bytes="hex", ser_json_bytes="hex")
    body: bytes


class Utf8(BaseModel):
    body: bytes


class Text(BaseModel):
    body: str


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (RAW, Annotated[str, Field(min_length=1, max_length=12)]),
        (Annotated[str, Field(min_length=2, max_length=3)], RAW),
        (Base64, Base64),
        (UPPER, str),
        (UPPER, UPPER),
        (Literal["AB"], UPPER),
        (AnyHttpUrl, AnyUrl),
        (Literal["AB"], ASCII),
        (PAST_A_FLOAT, PAST_A_FLOAT),
        (PYTHON_A, PYTHON_A),
        (Decimal, INFINITE),
        (dict[int, int], dict[float, int]),
        (dict[int, int], dict[Decimal, int]),
        (dict[Literal["1"], int], dict[str, int]),
        (int, float),
        (int, Decimal),
        (float, Decimal),
        (Decimal, str),
        (AMOUNT, Decimal),
        (AMOUNT, Annotated[Decimal, Field(max_digits=12, decimal_places=2)]),
        (AMOUNT, Annotated[Decimal, Field(max_digits=12, decimal_places=4)]),
        (UUID, str),
        (UUID4, UUID),
        (date, str),
        (AwareDatetime, datetime),
        (bytes, str),
        (Annotated[int, Field(gt=5)], Annotated[int, Field(ge=5)]),
        (Annotated[int, Field(ge=6)], Annotated[int, Field(gt=5)]),
        (Annotated[int, Field(multiple_of=10)], Annotated[int, Field(multiple_of=5)]),
        (int, Annotated[float, Field(multiple_of=1)]),
        (Annotated[str, Field(pattern="^a")], Annotated[str, Field(pattern="^a")]),
        (Annotated[POSITIVE, Field(max_digits=3)], POSITIVE),
    ],
)
def test_a_type_reads_what_a_narrower_one_writes(writer, reader):
    assert sentences(writer, reader) == []


@pytest.mark.parametrize(
    ("writer", "reader", "sentence"),
    [
        (
            Annotated[str, Field(max_length=3)],
            Annotated[bytes, Field(max_length=3)],
            "`body` has maxLength 3 in v2 and has maxLength 12 in v1",
        ),
        (
            Annotated[bytes, Field(min_length=5)],
            Annotated[str, Field(min_length=3)],
            "`body` has minLength 3 in v2 and has minLength 2 in v1",
        ),
        (Text, Hex, '`body` has the format "hex" in v2 and has none in v1'),
        (Base64, Utf8, '`body` is the text itself in v2 and has the format "base64url" in v1'),
        (Hex, Text, '`body` is the text itself in v2 and has the format "hex" in v1'),
        (str, ASCII, "`body` is always ascii in v2 and is not always ascii in v1"),
        (str, UPPER, "`body` is always uppercase in v2 and is not always uppercase in v1"),
        (
            Annotated[str, Field(pattern="^a")],
            PYTHON_A,
            '`body` has the regexEngine "python-re" in v2 and has none in v1',
        ),
        (
            PYTHON_A,
            Annotated[str, Field(pattern="^a")],
            '`body` has no regexEngine in v2 and has the regexEngine "python-re" in v1',
        ),
        (
            int,
            PAST_A_FLOAT,
            "`body` has the bounds \"{'ge': '9007199254740993'}\" in v2 and has none in v1",
        ),
        (
            AnyUrl,
            AnyHttpUrl,
            "`body` has the schemes \"['http', 'https']\" in v2 and has none in v1",
        ),
        (INFINITE, Decimal, "`body` is always finite in v2 and may be infinite in v1"),
        (
            dict[str, int],
            dict[Decimal, int],
            '`* (the name)` has the format "decimal" in v2 and has none in v1',
        ),
        (
            dict[int, int],
            dict[Annotated[int, Field(ge=5)], int],
            "`* (the name)` has minimum 5 in v2 and has no such limit in v1",
        ),
        (str, UUID, '`body` has the format "uuid" in v2 and has none in v1'),
        (UUID, UUID4, '`body` has the format "uuid4" in v2 and has the format "uuid" in v1'),
        (date, datetime, '`body` has the format "date-time" in v2 and has the format "date" in v1'),
        (datetime, AwareDatetime, '`body` has the timezone "aware" in v2 and has none in v1'),
        (
            NaiveDatetime,
            AwareDatetime,
            '`body` has the timezone "aware" in v2 and has the timezone "naive" in v1',
        ),
        (
            str,
            Annotated[str, Field(pattern="^a")],
            '`body` has the pattern "^a" in v2 and has none in v1',
        ),
        (
            Annotated[str, Field(max_length=9)],
            Annotated[str, Field(max_length=5)],
            "`body` has maxLength 5 in v2 and has maxLength 9 in v1",
        ),
        (
            str,
            Annotated[str, Field(min_length=1)],
            "`body` has minLength 1 in v2 and has no such limit in v1",
        ),
        (
            int,
            Annotated[int, Field(ge=0)],
            "`body` has minimum 0 in v2 and has no such limit in v1",
        ),
        (
            Annotated[int, Field(ge=0)],
            Annotated[int, Field(gt=0)],
            "`body` has exclusiveMinimum 0 in v2 and has minimum 0 in v1",
        ),
        (
            Annotated[int, Field(lt=9)],
            Annotated[int, Field(le=7)],
            "`body` has maximum 7 in v2 and has exclusiveMaximum 9 in v1",
        ),
        (
            int,
            Annotated[int, Field(multiple_of=5)],
            '`body` has the multipleOf "5" in v2 and has none in v1',
        ),
        (float, int, "`body` is an integer in v2 and is a number in v1"),
        (str, Decimal, '`body` has the format "decimal" in v2 and has none in v1'),
        (Decimal, AMOUNT, "`body` has maxDigits 10 in v2 and has no such limit in v1"),
        (
            AMOUNT,
            Annotated[Decimal, Field(max_digits=10, decimal_places=1)],
            "`body` has decimalPlaces 1 in v2 and has decimalPlaces 2 in v1",
        ),
        (
            AMOUNT,
            Annotated[Decimal, Field(max_digits=10, decimal_places=4)],
            "`body` has at most 6 digits before the point in v2 and has 8 in v1",
        ),
        (Decimal, POSITIVE, "`body` has minimum 0.0 in v2 and has no such limit in v1"),
    ],
)
def test_a_value_that_may_be_refused_is_reported(writer, reader, sentence):
    assert sentences(writer, reader) == [sentence]


def test_all_digits_of_a_reader_with_decimal_places_may_be_exceeded():
    writer: Any = {"type": "string", "format": "decimal", "decimalPlaces": 2}
    reader = {**writer, "maxDigits": 5}
    (found,) = compare(writer, reader)
    assert found.read == "has maxDigits 5"


def test_a_bound_of_a_duration_that_its_writer_does_not_have_is_named():
    bounded: Any = Annotated[timedelta, Field(le=timedelta(days=1))]
    (found,) = sentences(timedelta, bounded)
    assert "bounds" in found
    assert sentences(bounded, bounded) == sentences(bounded, timedelta) == []
