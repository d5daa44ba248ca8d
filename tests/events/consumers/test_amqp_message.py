"""Any message of a stream is read without an error, one of a feed with its attributes."""

from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.consumers.amqp_message import incoming_message
from saga_engine.events.feeds.stream_message import encode_amqp
from saga_engine.settings import Settings
from tests.kit.consumers import attributes_of


def test_a_message_has_the_attributes_of_its_properties():
    named = {f"cloudEvents_{name}": value for name, value in attributes_of(1).items()}
    encoded = encode_amqp(b"{}", "m", "application/json", named | {"other": "x"})
    message = incoming_message(7, encoded, Settings())
    assert message.attributes == attributes_of(1, datacontenttype="application/json")
    assert (message.body, message.offset, message.problem) == (b"{}", 7, "")


ENCODED = encode_amqp(b"{}", "m", "application/json", {"cloudEvents_id": "1"})


@given(st.binary(max_size=80) | st.integers(0, len(ENCODED)).map(lambda n: ENCODED[:n]))
def test_no_bytes_raise_an_error(encoded):
    message = incoming_message(7, encoded, Settings())
    assert message.offset == 7
