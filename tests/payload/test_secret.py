"""`Secret[...]` is sent as its value and never shown."""

from decimal import Decimal

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from saga_engine import Secret
from saga_engine.payload.payload import PayloadError, PayloadType

CARD = "4111111111111111"


class Inner(BaseModel):
    pin: str


class Card(BaseModel):
    number: Secret[str]
    limits: list[Secret[Decimal]] = []
    inner: Secret[Inner] | None = None
    names: Secret[frozenset[str]] = Secret(frozenset())


CARDS = Card(
    number=Secret(CARD),
    limits=[Secret(Decimal("1.50"))],
    inner=Secret(Inner(pin="4111")),
    names=Secret(frozenset({"b4111", "a4111"})),
)


def test_a_secret_is_sent_as_its_value():
    payload = PayloadType(Card)
    data = payload.write(CARDS)
    assert data == {
        "number": CARD,
        "limits": ["1.50"],
        "inner": {"pin": "4111"},
        "names": ["a4111", "b4111"],
    }
    assert payload.read(data) == CARDS
    assert payload.read(data).number.get_secret_value() == CARD


def test_a_secret_is_not_shown():
    shown = [
        *(repr(CARDS), str(CARDS), f"{CARDS.number}", f"{CARDS.number:>20}", str(CARDS.number)),
        *(str(CARDS.model_dump()), CARDS.model_dump_json(), str(CARDS.model_dump(mode="json"))),
        str(TypeAdapter(Card).dump_json(CARDS)),
    ]
    assert not [each for each in shown if "4111" in each or "1.50" in each]
    with pytest.raises(PayloadError) as refused:
        PayloadType(Card).read({"number": 4111, "limits": [{"x": "4111"}]})
    assert "4111" not in str(refused.value)
    with pytest.raises(PayloadError) as refused:
        PayloadType(Secret[float]).write(Secret(float("nan")))
    assert "nan" not in str(refused.value)


def test_a_secret_is_equal_to_one_of_an_equal_value():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


def test_a_secret_of_a_type_that_hides_its_value_is_refused():
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        number: Secret

    assert PayloadType(Strict).write(Strict(number=Secret({"a": 1}))) == {"number": {"a": 1}}
    from pydantic import SecretStr  # noqa: PLC0415 - the mistake under test

    with pytest.raises(PayloadError, match=r"is not read back as it was written|hides"):
        PayloadType(Secret[SecretStr])
