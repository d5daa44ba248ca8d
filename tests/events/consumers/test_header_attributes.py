"""Headers that are bytes become attributes, or a sentence that says why not."""

from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.consumers.header_attributes import read_attributes
from saga_engine.settings import Settings

SETTINGS = Settings(max_header_count=20, max_header_bytes=4096)


def test_attributes_are_those_with_the_prefix():
    headers: list[tuple[str, bytes | str | None]] = [
        ("ce_id", b"7"),
        ("other", b"x"),
        ("ce_type", "order-placed"),
    ]
    assert read_attributes(headers, "ce_", SETTINGS) == ({"id": "7", "type": "order-placed"}, "")


def test_headers_beyond_a_limit_are_a_problem():
    many = [(f"ce_{n}", b"") for n in range(21)]
    large = [("ce_id", b"x" * 5_000)]
    for headers in (many, large):
        _, problem = read_attributes(headers, "ce_", SETTINGS)
        assert "more than 20 headers or 4096 bytes" in problem


def test_a_text_that_cannot_be_stored_is_a_problem():
    for value in (b"\xff", b"a\0b"):
        attributes, problem = read_attributes([("ce_id", value)], "ce_", SETTINGS)
        assert problem == "Its header ce_id is not a text that is stored."
        assert attributes["id"].encode() != value


@given(st.lists(st.tuples(st.text(max_size=9), st.none() | st.text() | st.binary()), max_size=4))
def test_no_header_raises_an_error(headers):
    attributes, _ = read_attributes(
        [(f"ce_{name}", value) for name, value in headers], "ce_", SETTINGS
    )
    assert all("\0" not in each for pair in attributes.items() for each in pair)
