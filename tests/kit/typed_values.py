"""Types of pydantic, and values of each."""

import enum
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    UUID4,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    StringConstraints,
)


class Kind(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class WiderKind(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"
    HUGE = "huge"


class Line(BaseModel):
    sku: str
    quantity: int = 1


class LineWithNote(BaseModel):
    sku: str
    quantity: float = 1
    note: str | None = None


class StrictLine(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sku: str
    quantity: int


class NotedLine(BaseModel):
    sku: str
    quantity: int
    note: str


class LineByAliases(BaseModel):
    sku: str = Field(validation_alias=AliasChoices("sku", "note"))
    amount: int = Field(1, validation_alias=AliasChoices("amount", "quantity"))


class Content(BaseModel):
    body: bytes


class ContentInHex(BaseModel):
    model_config = ConfigDict(val_json_bytes="hex", ser_json_bytes="hex")
    body: bytes


class ContentInBase64(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")
    body: bytes


class ShortText(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    body: str = Field(min_length=1, max_length=4)


class Tree(BaseModel):
    name: str
    parts: list["Tree"] = []


class NewTree(BaseModel):
    name: str = ""
    parts: list["NewTree"] | None = None


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


class Cheque(BaseModel):
    kind: Literal["cheque"]


NOON = datetime.fromisoformat("2026-01-02T12:00:00.123456")
SOME_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")

TYPES: Sequence[tuple[Any, Sequence[Any]]] = [
    (str, ["", "abc", "12"]),
    (Annotated[str, Field(min_length=1, max_length=3)], ["a", "abc"]),
    (Annotated[str, Field(max_length=5)], ["", "abcde"]),
    (Annotated[str, Field(pattern="^[a-z]+$")], ["abc"]),
    (int, [0, -1, 2**62]),
    (Annotated[int, Field(ge=0)], [0, 7]),
    (Annotated[int, Field(gt=0, le=10)], [1, 10]),
    (Annotated[int, Field(multiple_of=5)], [-5, 0, 10]),
    (float, [0.5, 1.0, -1e10]),
    (Annotated[float, Field(lt=100)], [99.5]),
    (bool, [True, False]),
    (None, [None]),
    (Decimal, [Decimal("1.50"), Decimal("-1E+20"), Decimal("0.000000001")]),
    (Annotated[Decimal, Field(max_digits=10, decimal_places=2)], [Decimal("12345678.90")]),
    (Annotated[Decimal, Field(max_digits=12, decimal_places=4)], [Decimal("12345678.9012")]),
    (Annotated[Decimal, Field(ge=0, max_digits=5)], [Decimal(0), Decimal("12.345")]),
    (UUID, [SOME_ID, UUID(int=0)]),
    (UUID4, [UUID("c56a4180-65aa-42ec-a945-5fd21dec0538")]),
    (date, [date(1, 1, 1), date(2026, 1, 2)]),
    (datetime, [NOON, NOON.replace(tzinfo=UTC)]),
    (AwareDatetime, [NOON.replace(tzinfo=UTC)]),
    (NaiveDatetime, [NOON]),
    (time, [time(1, 2, 3)]),
    (timedelta, [timedelta(days=1, seconds=2)]),
    (Kind, [*Kind]),
    (WiderKind, [*WiderKind]),
    (Literal["small"], ["small"]),
    (Literal["small", "large", 1] | None, ["small", 1, None]),
    (Line, [Line(sku="tea")]),
    (LineWithNote, [LineWithNote(sku="tea", note="n"), LineWithNote(sku="tea", quantity=1.5)]),
    (StrictLine, [StrictLine(sku="tea", quantity=2)]),
    (NotedLine, [NotedLine(sku="tea", quantity=2, note="n")]),
    (Tree, [Tree(name="a", parts=[Tree(name="b")])]),
    (NewTree, [NewTree(parts=[NewTree(name="b", parts=[])])]),
    (Card, [Card(kind="card", number="1")]),
    (Annotated[Card | Cash, Field(discriminator="kind")], [Cash(kind="cash")]),
    (
        Annotated[Card | Cash | Cheque, Field(discriminator="kind")],
        [Cheque(kind="cheque"), Card(kind="card", number="1")],
    ),
    (dict[str, int], [{}, {"sku": 1, "quantity": 2}]),
    (dict[Kind, int], [{Kind.SMALL: 1}]),
    (dict[int, str], [{1: "a"}]),
    (dict[str, Any], [{"a": [1, None]}]),
    (tuple[int, str], [(1, "a")]),
    (set[int], [{1, 2}]),
    (int | str, [1, "a"]),
    (Any, [None, "a", [1], {"a": 1}]),
]
"""Types, and values of each."""

TYPES_WITH_OPTIONS: Sequence[tuple[Any, Sequence[Any]]] = [
    (Annotated[Decimal, Field(ge=2**53)], [Decimal(2**53)]),
    (Annotated[Decimal, Field(ge=2**53 + 1)], [Decimal(2**53 + 1)]),
    (Annotated[Decimal, Field(allow_inf_nan=True)], [Decimal("Infinity"), Decimal(1)]),
    (Annotated[bytes, Field(max_length=5)], [b"", "é€".encode()]),
    (Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ["a"]),
    (Content, [Content(body=b" "), Content(body=b"abc")]),
    (ContentInHex, [ContentInHex(body=b"abc")]),
    (ContentInBase64, [ContentInBase64(body=b"abc")]),
    (str, [" A "]),
    (Annotated[str, StringConstraints(to_lower=True)], ["a"]),
    (ShortText, [ShortText(body="a")]),
    (LineByAliases, [LineByAliases.model_validate({"sku": "tea", "quantity": 2})]),
    (dict[Decimal, int], [{Decimal("1.5"): 1}]),
    (dict[float, int], [{1.5: 1}]),
    (dict[Annotated[int, Field(ge=5)], int], [{5: 1}]),
]
"""Types whose JSON depends on options of pydantic: names, encodings, changes of texts, bounds."""
