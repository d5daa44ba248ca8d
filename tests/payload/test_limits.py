"""Limits of a body, counted on its bytes, and applied by the writer."""

import json
from decimal import Decimal
from math import inf

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine import Saga
from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.payload.limits import (
    DEFAULT_LIMITS,
    MAX_EXPANSION_FACTOR,
    BodyLimits,
    LimitName,
    depth_violation,
    exceeds_depth,
    find_violation,
    has_inexact_integer,
)
from saga_engine.payload.payload import is_storable, limit_problem
from saga_engine.payload.ports import PayloadPorts
from tests.kit.decider_scenario import NOON
from tests.kit.nesting import nested_dicts

INTEGERS = st.integers() | st.integers(60, 400).map(lambda bits: 2**bits)
NUMBERS = (
    INTEGERS
    | st.tuples(INTEGERS, st.sampled_from([-1, 1])).map(sum)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXT = st.text('a"\\[]{},: ', max_size=6)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.text('a"\\[]{},: ', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text('b"\\,[{', max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def inside(value):
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else None


def depth(value):
    inner = inside(value)
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def values(value):
    return 1 + sum(map(values, inside(value) or ()))


def exceeded(body: bytes, limits: BodyLimits) -> LimitName:
    found = find_violation(body, limits)
    assert found is not None
    return found.limit


@given(JSON, st.booleans())
def test_depth_and_values_are_those_of_the_decoded_body(value, spaced):
    body = json.dumps(value, indent=1).encode() if spaced else orjson.dumps(value)
    deep, many = depth(value), values(value)
    assert find_violation(body, BodyLimits(max_depth=deep, max_values=many)) is None
    if deep:
        assert exceeded(body, BodyLimits(max_depth=deep - 1)) is LimitName.DEPTH
    assert find_violation(body, BodyLimits(max_values=many - 1)) is not None
    assert exceeded(body, BodyLimits(max_bytes=len(body) - 1)) is LimitName.BYTES


@given(st.lists(st.from_regex(r"[1-9](\.[0-9])?[eE][-+]?[0-9]{1,3}", fullmatch=True), min_size=1))
def test_no_number_grows_by_more_than_the_expansion_factor(numbers):
    body = f"[{','.join(numbers)}]".encode()
    whole = sum(len(f"{Decimal(each):f}") + 1 for each in numbers if 0 < float(each) < inf)
    assert whole <= len(body) * MAX_EXPANSION_FACTOR


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[1e300,-1E-300]", "Without exponents"),
        (b'["1e300"]', ""),
        (b"[0e5,1e2]", ""),
        (b"[1e999,1e999]", "Without exponents"),
    ],
)
def test_numbers_count_with_their_length_in_jsonb(body, problem):
    found = find_violation(body, BodyLimits(max_bytes=400))
    assert (found.message if found else "").startswith(problem)
    assert bool(problem) is bool(found)


def test_a_value_that_cannot_be_stored_exceeds_every_limit():
    assert "no database accepts" in limit_problem({"x": float("nan")}, DEFAULT_LIMITS)
    assert "no database accepts" in limit_problem("\ud800", DEFAULT_LIMITS)
    assert limit_problem({"x": [1]}, DEFAULT_LIMITS) == ""


class Reverse:
    def encrypt(self, plaintext: bytes, _associated_data: str) -> str | None:
        return "x" * len(plaintext)

    def decrypt(self, _ciphertext: str, _associated_data: str) -> bytes:
        return b"{}"


@pytest.mark.parametrize(
    ("payload", "limits", "problem"),
    [
        ({"x": "y" * 100}, BodyLimits(max_bytes=100), "max_body_bytes allows 100"),
        ({"x": [0] * 50}, BodyLimits(max_values=50), "max_body_json_values"),
        (nested_dicts(10), BodyLimits(max_depth=10), "max_body_depth"),
    ],
)
def test_a_payload_beyond_a_limit_is_an_incident_and_is_not_sent(payload, limits, problem):
    saga = Saga("large", version=1, input=dict)

    @saga.step(command="stock.reserve", pivot=True)
    def reserve(order: dict) -> dict:
        travels: dict = payload
        return travels

    decision = decide(saga, None, Start("r", None, {}), NOON, PayloadPorts(limits=limits))
    assert decision.run is not None
    [incident] = decision.run.incidents.values()
    assert incident.cause == "mapping_failed"
    assert problem in incident.message
    assert decision.run.steps["reserve"].action.attempts == 0
    unlimited = decide(saga, None, Start("r", None, {}), NOON).run
    assert unlimited is not None
    assert not unlimited.incidents


def test_the_limits_apply_to_the_encrypted_payload():
    saga = Saga("large", version=1, input=dict)

    @saga.step(command="stock.reserve", pivot=True)
    def reserve(order: dict) -> dict:
        return {"x": [0] * 40}

    start = Start("r", None, {"$encrypted": "x"})
    fits = decide(
        saga,
        None,
        start,
        NOON,
        PayloadPorts(PayloadEncryption(Reverse()), limits=BodyLimits(max_values=10, max_depth=1)),
    )
    assert fits.run is not None
    assert not fits.run.incidents
    long = decide(
        saga,
        None,
        start,
        NOON,
        PayloadPorts(PayloadEncryption(Reverse()), limits=BodyLimits(max_bytes=90)),
    )
    assert long.run is not None
    assert "max_body_bytes" in next(iter(long.run.incidents.values())).message


@given(JSON)
def test_nesting_alone_is_counted_in_the_same_way(value):
    body, deep = orjson.dumps(value), depth(value)
    assert not exceeds_depth(body, deep)
    assert deep == 0 or exceeds_depth(body, deep - 1)
    assert "max_body_depth" in depth_violation(deep).message


def test_half_a_surrogate_pair_cannot_be_stored():
    assert not is_storable({"a": ["\ud800"]})
    assert not is_storable({"\ud800": 1})
    assert is_storable({"a": ["\U0001f600", 1, None]})


def numbers_in(value):
    found, rest = [], [value]
    while rest:
        each = rest.pop()
        if isinstance(each, dict | list):
            rest += each.values() if isinstance(each, dict) else each
        elif isinstance(each, int | float):
            found.append(each)
    return found


def exact(number):
    return Decimal(repr(number))


@given(
    st.recursive(
        NUMBERS | st.text('1234567890-.e"\\', max_size=25),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("1e-", max_size=2), inner)
        ),
        max_leaves=12,
    )
)
def test_an_altered_integer_is_detected(value):
    body = json.dumps(value).encode()
    altered = has_inexact_integer(body)
    try:
        read = numbers_in(orjson.loads(body))
    except orjson.JSONDecodeError:  # beyond a double
        return
    # What is sent on is what the readers' numbers are written as, and some readers are exact.
    assert altered is (list(map(exact, read)) != list(map(exact, numbers_in(value))))


@pytest.mark.parametrize(
    ("body", "altered"),
    [
        (b"18446744073709551615", False),
        (b"18446744073709551616", True),  # 2**64: a double equals it, written as ...552000
        (b"18446744073709552000", False),
        (b"123456789012345683968", True),
        (b"10000000000000000000000", False),
        (b"18446744073709551617", True),
        (b"-9223372036854775808", False),
        (b"-9223372036854775809", True),
        (b"123456789012345670001", True),
        (b"1" * 309, True),
        (b"0.1234567890123456789012", False),
        (b"1e0000000000000000000000", False),
        (b"1e-00000000000000000000000", False),
        (b"123456789012345678901.0", False),
        (b"123456789012345678901e1", False),
        (b'"123456789012345678901"', False),
        (b'{"123456789012345678901":"\\"123456789012345678901\\\\"}', False),
        (b'["\\\\",123456789012345678901]', True),
    ],
)
def test_which_integers_are_altered(body, altered):
    assert has_inexact_integer(body) is altered
