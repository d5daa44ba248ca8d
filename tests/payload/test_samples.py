"""Examples of a decimal number and of a URL are within the limits of their schema."""

from typing import Any

import pytest

from saga_engine.payload.samples import samples

DECIMAL = {"type": "string", "format": "decimal"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (DECIMAL, ["1", "0", "0.5", "1.5"]),
        (DECIMAL | {"minimum": 0.0, "exclusiveMaximum": 1.0}, ["0.0", "0", "0.5"]),
        (DECIMAL | {"maxDigits": 2, "decimalPlaces": 0}, ["1", "0"]),
        (
            {"type": "string", "format": "uri", "schemes": ["http", "ws"]},
            ["http://example.com/a", "ws://example.com/a"],
        ),
    ],
)
def test_examples_are_within_the_limits_of_a_schema(schema: Any, expected):
    assert [*samples(schema)] == expected
