import json
import math

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic.alias_generators import to_camel

from saga_engine import Saga, Secret
from saga_engine.client.inputs import (
    check_limits,
    checked_key,
    input_json,
    name_and_version,
    parse_run_id,
)
from saga_engine.errors import ConfigurationError, InvalidInput
from saga_engine.payload.limits import DEFAULT_LIMITS
from tests.kit.greeter import Greeting, greet_saga
from tests.kit.nesting import nested_lists


def test_json_is_sent_unchanged_and_a_model_with_its_defaults():
    assert input_json(greet_saga, {"name": "Ann"}) == {"name": "Ann"}
    assert input_json("greet", {"name": "Ann"}) == {"name": "Ann"}
    assert input_json(greet_saga, Greeting(name="Ann")) == {"name": "Ann", "loud": False}
    assert input_json("greet", Greeting(name="Ann")) == {"name": "Ann", "loud": False}


def test_an_invalid_input_is_refused_without_its_values():
    with pytest.raises(InvalidInput, match=r"greet.*name: missing") as refused:
        input_json(greet_saga, {"secret": "hunter2"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("value", [object(), {1: "a"}, {"a": {2}}, b"x", 2**70, "a\0b", "\ud800"])
def test_values_that_json_or_postgresql_cannot_hold_are_refused(value):
    with pytest.raises(InvalidInput, match="not JSON that can be stored"):
        input_json("greet", value)


def test_a_version_must_be_that_of_the_definition():
    assert name_and_version(greet_saga, None) == ("greet", 1)
    assert name_and_version("greet", 3) == ("greet", 3)
    with pytest.raises(ConfigurationError, match="Version 2"):
        name_and_version(greet_saga, 2)


@pytest.mark.parametrize("key", ["", "x" * 1001, "a\0"])
def test_an_invalid_key_is_refused(key):
    with pytest.raises(InvalidInput, match="1 to 1000"):
        checked_key(key, 1000)


def test_a_key_is_limited_by_the_setting_not_by_its_default():
    assert checked_key("x" * 2000, 2000) == "x" * 2000
    with pytest.raises(InvalidInput, match=r"1 to 64 bytes \(max_request_text_bytes\)"):
        checked_key("x" * 65, 64)


def test_a_run_id_is_a_uuid():
    with pytest.raises(InvalidInput, match="'o-1' is not a run id"):
        parse_run_id("o-1")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    order_id: str
    tags: set[str] = set()
    rate: float | None = None
    card: Secret[str] = Secret("none")


class Hidden(BaseModel):
    card: SecretStr


class Raw(BaseModel):
    raw: bytes


camel, raw = Saga("camel", version=1, input=Camel), Saga("raw", version=1, input=Raw)


@pytest.mark.parametrize("saga", [camel, "camel"])
def test_a_model_is_written_by_its_aliases_with_or_without_the_definition(saga):
    given = Camel(orderId="o", tags={"b", "a", "c"}, card=Secret("4111"))
    assert input_json(saga, given) == {
        "orderId": "o",
        "tags": ["a", "b", "c"],
        "rate": None,
        "card": "4111",
    }


@pytest.mark.parametrize(
    ("saga", "given", "problem"),
    [
        (raw, Raw(raw=b"\xff"), "UnicodeDecodeError"),
        ("raw", Raw(raw=b"\xff"), "UnicodeDecodeError"),
        (raw, {"raw": b"\xff"}, "UnicodeDecodeError"),
        (camel, Camel(orderId="o", rate=math.nan), "no database accepts"),
        ("camel", Camel(orderId="o", rate=math.inf), "no database accepts"),
        (camel, {"orderId": "o", "rate": math.nan}, "NaN or Infinity"),
        ("camel", {"rate": math.nan}, "NaN or Infinity"),
        ("hidden", Hidden(card="4111"), r"Secret\[str\]|hides its value"),
        (camel, {"order_id": "o"}, "orderId: missing"),
        (camel, json.loads("[" * 900 + "]" * 900), "cannot be read as Camel"),
    ],
)
def test_an_input_that_would_be_altered_is_refused(saga, given, problem):
    with pytest.raises(InvalidInput, match=problem) as refused:
        input_json(saga, given)
    assert "4111" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ("x" * 300_000, "max_body_bytes"),
        ([0] * 60_000, "max_body_json_values"),
        (nested_lists(70), "max_body_depth"),
    ],
)
def test_an_input_beyond_a_limit_of_the_reader_is_refused(given, limit):
    with pytest.raises(InvalidInput, match=limit):
        check_limits(given, DEFAULT_LIMITS)
