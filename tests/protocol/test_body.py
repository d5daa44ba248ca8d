import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.payload.limits import max_value_count
from saga_engine.protocol.body import (
    limit_violation,
    read_body,
    read_json,
    read_json_object,
    write_json,
)
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from tests.kit.messages import make_delivery

DEPTH = 64
SETTINGS = Settings()

HOSTILE = {
    "empty": (b"", DeadLetterReason.MALFORMED_JSON),
    "one byte": (b"{", DeadLetterReason.MALFORMED_JSON),
    "truncated": (b'{"a": [1, 2', DeadLetterReason.MALFORMED_JSON),
    "trailing garbage": (b'{"a": 1} x', DeadLetterReason.MALFORMED_JSON),
    "not UTF-8": (b"\xff\xfe", DeadLetterReason.MALFORMED_JSON),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), DeadLetterReason.MALFORMED_JSON),
    "byte order mark": (b"\xef\xbb\xbf{}", DeadLetterReason.MALFORMED_JSON),
    "overlong UTF-8": (b'["\xc0\xaf"]', DeadLetterReason.MALFORMED_JSON),
    "NUL in a value": (b'{"a": "\\u0000"}', DeadLetterReason.NOT_STORABLE),
    "NUL in a key": (b'{"x": [{"\\u0000": 1}]}', DeadLetterReason.NOT_STORABLE),
    "raw NUL": (b'{"a": "\x00"}', DeadLetterReason.MALFORMED_JSON),
    "lone surrogate": (b'["\\ud800"]', DeadLetterReason.MALFORMED_JSON),
    "NaN": (b"[NaN]", DeadLetterReason.MALFORMED_JSON),
    "Infinity": (b"[-Infinity]", DeadLetterReason.MALFORMED_JSON),
    "overflowing number": (b"[1e400000]", DeadLetterReason.MALFORMED_JSON),
    "number PostgreSQL would take": (b"[1e131071]", DeadLetterReason.MALFORMED_JSON),
    "integer of 4301 digits": (b"9" * 4301, DeadLetterReason.MALFORMED_JSON),
    "nested 65": (b"[" * 65 + b"]" * 65, DeadLetterReason.TOO_DEEP),
    "nested 60,000": (b"[" * 60_000 + b"]" * 60_000, DeadLetterReason.TOO_DEEP),
    "nested 200,000": (b'{"a":' * 200_000, DeadLetterReason.TOO_DEEP),
    "pickle": (b"\x80\x04K\x01.", DeadLetterReason.MALFORMED_JSON),
    "yaml": (b"!!python/object:os.system {}", DeadLetterReason.MALFORMED_JSON),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_is_unreadable_with_its_reason(name):
    body, reason = HOSTILE[name]
    found = read_json(body, DEPTH)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is reason


@given(st.binary(max_size=200))
def test_no_bytes_raise_an_error(body):
    read_json(body, 3)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    )
)
def test_value_is_read_as_written_or_not_storable(value):
    found = read_json(write_json(value), DEPTH)
    if isinstance(found, UnreadableMessage):
        assert found.reason is DeadLetterReason.NOT_STORABLE
        assert b"\\u0000" in orjson.dumps(value)
    else:
        assert found == value


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["[%s]", '{"a":%s}']))
def test_depth_limit_is_exact(levels, limit, container):
    body = "1"
    for _ in range(levels):
        body = container % body
    found = read_json(f"[{body},[],[],[],{{}}]".encode(), limit + 1)
    assert isinstance(found, UnreadableMessage) is (max(levels, 1) > limit)


def test_integer_that_would_be_altered_is_refused():
    found = read_json(b'{"amount": 123456789012345678901}', DEPTH)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.NOT_STORABLE
    assert "integer beyond 64 bits" in found.explanation
    assert "1234" not in found.explanation


def test_escaped_backslash_before_u0000_is_not_a_nul():
    assert read_json(b'["\\\\u0000"]', DEPTH) == ["\\u0000"]


@pytest.mark.parametrize("body", [b"null", b'"x"', b"123", b"true", b"[]"])
def test_read_json_object_accepts_only_an_object(body):
    assert read_body(make_delivery(body=body), SETTINGS) == orjson.loads(body)
    found = read_json_object(make_delivery(body=body), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.NOT_AN_OBJECT


def test_body_over_the_limit_is_not_parsed():
    found = read_body(make_delivery(body=b"{}", body_size=SETTINGS.max_body_bytes + 1), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.TOO_LARGE


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "gzip,gzip,gzip", "\u202e"])
def test_encoded_body_is_not_decoded(encoding):
    found = read_body(make_delivery(body=b"{}", content_encoding=encoding), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.UNSUPPORTED_ENCODING


def test_last_duplicate_key_counts_and_special_keys_are_ordinary():
    body = b'{"a": 1, "__proto__": {}, "$ref": "x", "__class__": 1, "a": 2}'
    assert read_json(body, DEPTH) == {"a": 2, "__proto__": {}, "$ref": "x", "__class__": 1}


def test_explanation_does_not_quote_the_body():
    found = read_json(b'{"password": "hunter2", }', DEPTH)
    assert isinstance(found, UnreadableMessage)
    assert "hunter2" not in found.explanation


@pytest.mark.parametrize("item", ["1", "{}", "[]", '{"":0}', '"a"'])
def test_body_with_too_many_values_is_refused(item):
    few = SETTINGS.model_copy(update={"max_body_json_values": 100})
    most = item.count("{") and item.count(":")
    body = f"[{','.join([item] * (40 if most else 98))}]".encode()
    assert isinstance(read_body(make_delivery(body=body), few), list)
    body = f"[{','.join([item] * 100)}]".encode()
    found = read_body(make_delivery(body=body), few)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.TOO_LARGE
    assert "max_body_json_values" in found.explanation


def test_commas_in_a_text_are_not_counted():
    few = SETTINGS.model_copy(update={"max_body_json_values": 5})
    assert read_body(make_delivery(body=b'[",,,,,,,,{{{{[[[["]'), few) == [",,,,,,,,{{{{[[[["]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def size_of(value):
    """How many values JSON contains, and how deep it nests."""
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return 1, 0
    sizes = [size_of(each) for each in inner]
    return 1 + sum(n for n, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)


def reason(found: UnreadableMessage | None) -> DeadLetterReason:
    assert found is not None
    return found.reason


@given(JSON, st.sampled_from([None, orjson.OPT_INDENT_2]))
def test_values_and_nesting_are_counted_exactly_on_the_bytes(value, layout):
    body, (values, depth) = orjson.dumps(value, option=layout), size_of(value)
    exact = SETTINGS.model_copy(update={"max_body_json_values": values, "max_body_depth": depth})
    assert limit_violation(body, exact) is None
    assert max_value_count(body) >= values
    few = exact.model_copy(update={"max_body_json_values": values - 1})
    flat = exact.model_copy(update={"max_body_depth": depth - 1})
    assert reason(limit_violation(body, few)) is DeadLetterReason.TOO_LARGE
    assert not depth or reason(limit_violation(body, flat)) is DeadLetterReason.TOO_DEEP


@given(st.binary(max_size=200) | st.text('{}[]",\\ ', max_size=200).map(str.encode))
def test_counting_any_bytes_raises_no_error(body):
    limit_violation(
        body, SETTINGS.model_copy(update={"max_body_json_values": 1, "max_body_depth": 1})
    )


def test_text_of_commas_and_brackets_is_one_value():
    body = orjson.dumps(['{[,\\"' * 30_000])
    assert limit_violation(body, SETTINGS) is None
    assert read_body(make_delivery(body=body), SETTINGS) == orjson.loads(body)


SMALL = {
    "empty objects": b"[" + b",".join([b"{}"] * 80_000) + b"]",
    "objects": b"[" + b",".join([b'{"a":1}'] * 24_000) + b"]",
    "empty arrays, 60 deep": b"[" + b",".join([b"[" * 60 + b"]" * 60] * 2000) + b"]",
    "arrays, 200 deep": b"[" * 100_000 + b"]" * 100_000,
    "members": b"{" + b",".join(b'"%d":0' % n for n in range(24_000)) + b"}",
}


@pytest.mark.parametrize("name", SMALL)
def test_body_over_a_limit_is_refused_without_decoding_it(name):
    body = SMALL[name]
    tracemalloc.start()
    found = read_body(make_delivery(body=body), SETTINGS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, UnreadableMessage)
    assert peak < 6 * len(body)
