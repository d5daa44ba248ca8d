"""Any message of a stream is read without an error, one of a feed with its attributes."""

from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.consumers.amqp_message import incoming_message
from saga_engine.events.consumers.stream_chunk import ChunkMessage
from saga_engine.events.feeds.stream_message import encode_amqp
from saga_engine.settings import Settings
from tests.kit.consumers import attributes_of


def test_a_message_has_the_attributes_of_its_properties():
    named = {f"cloudEvents_{name}": value for name, value in attributes_of(1).items()}
    encoded = encode_amqp(b"{}", "m", "application/json", named | {"other": "x"})
    message = incoming_message(ChunkMessage(7, encoded), Settings())
    assert message.attributes == attributes_of(1, datacontenttype="application/json")
    assert (message.body, message.offset, message.problem) == (b"{}", 7, "")


ENCODED = encode_amqp(b"{}", "m", "application/json", {"cloudEvents_id": "1"})


@given(st.binary(max_size=80) | st.integers(0, len(ENCODED)).map(lambda n: ENCODED[:n]))
def test_no_bytes_raise_an_error(encoded):
    message = incoming_message(ChunkMessage(7, encoded), Settings())
    assert message.offset == 7


def test_a_body_of_several_data_sections_is_whole():
    data = b"\x00\x53\x75\xa0\x02{}"
    message = incoming_message(ChunkMessage(7, data + data), Settings(max_body_bytes=1))
    assert (message.body, message.body_size, message.problem) == (b"{}{}", 4, "")


def test_a_body_that_is_a_value_is_kept_as_it_arrived():
    encoded = b"\x00\x53\x77\xa1\x02{}"
    message = incoming_message(ChunkMessage(7, encoded), Settings())
    assert message.body == encoded
    assert message.problem.startswith("Its body is a value of AMQP, and not data.")


def test_a_batch_that_cannot_be_read_says_why():
    message = incoming_message(ChunkMessage(7, b"batch", "It is a batch."), Settings())
    assert (message.body, message.problem, message.offset) == (b"batch", "It is a batch.", 7)
