"""Headers over the limits are refused and truncated."""

import orjson
import pytest

from saga_engine.amqp.headers import TRUNCATED_HEADER, read_headers
from saga_engine.amqp.tolerant_decoding import UNDECODABLE_HEADER, HeaderTable
from saga_engine.settings import Settings

SETTINGS = Settings()
DEATH = [{"queue": "saga.participant.shop", "reason": "rejected", "count": 1}]


def sent(headers, size=100):
    """A decoded header table."""
    table = HeaderTable(headers)
    table.size_bytes = size
    return table


def test_headers_within_the_limits_are_unchanged():
    assert read_headers(sent({"a": 1, "b": [True]}), SETTINGS) == ({"a": 1, "b": [True]}, "")


@pytest.mark.parametrize(
    ("headers", "size", "setting"),
    [
        ({str(number): True for number in range(101)}, 1000, "max_header_count allows 100"),
        ({"k": "z" * 40_000}, 40_010, "max_header_bytes allows 32768"),
        ({"k": [[] for _ in range(20_000)]}, 100_000, "max_header_bytes"),
        ({"k": {str(number): {} for number in range(9000)}}, 100_000, "max_header_bytes"),
    ],
)
def test_too_many_headers_are_refused_with_the_name_of_the_setting(headers, size, setting):
    kept, problem = read_headers(sent(headers, size), SETTINGS)
    assert setting in problem
    assert kept[TRUNCATED_HEADER] is True
    assert len(orjson.dumps(kept)) < 2 * SETTINGS.max_header_bytes


def test_truncation_keeps_the_broker_s_headers_first():
    headers = {f"{number:05}": "x" * 30 for number in range(3000)} | {"x-death": DEATH}
    kept, _ = read_headers(sent(headers, 120_000), SETTINGS)
    assert kept["x-death"] == DEATH
    assert kept["00000"] == "x" * 30


def test_a_forged_x_death_is_truncated():
    kept, problem = read_headers(sent({"x-death": DEATH * 5000, "k": "v"}, 120_000), SETTINGS)
    assert problem
    history = kept["x-death"]
    assert isinstance(history, list)
    assert history[0] == DEATH[0]
    assert len(orjson.dumps(kept)) < 2 * SETTINGS.max_header_bytes


def test_incomplete_headers_are_refused():
    kept, problem = read_headers(sent({"k": "v", UNDECODABLE_HEADER: True}), SETTINGS)
    assert problem == "Its headers cannot be decoded."
    assert kept == {"k": "v", UNDECODABLE_HEADER: True}
