from datetime import UTC, datetime
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from saga_engine.amqp.frames import UnpublishableMessage, encode_ack, encode_publish
from saga_engine.protocol.message import Message
from tests.kit.messages import make_message

LIMITS: dict[str, Any] = {"frame_max": 4096, "max_body_bytes": 20_000}
SHORT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60
).filter(lambda text: len(text.encode()) <= 255)


def decoded(data):
    frames = []
    while data:
        used, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 7
        frames.append(frame)
        data = data[used:]
    return frames


@given(
    st.builds(
        Message,
        exchange=SHORT,
        routing_key=SHORT,
        body=st.binary(max_size=9000),
        message_id=SHORT.filter(bool),
        type=SHORT,
        correlation_id=SHORT,
        reply_to=SHORT,
        headers=st.dictionaries(
            SHORT.filter("BCC".__ne__), SHORT | st.integers(-(2**63), 2**63 - 1) | st.booleans()
        ),
        other_routing_keys=st.lists(SHORT, max_size=3).map(tuple),
        mandatory=st.booleans(),
        timestamp=st.none() | st.just(datetime(2026, 11, 23, tzinfo=UTC)),
    ),
    SHORT,
)  # fmt: skip
def test_frames_encode_the_message(sent, user):
    method, header, *bodies = decoded(encode_publish(sent, 7, user_id=user, **LIMITS))
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == (sent.exchange, sent.routing_key)
    assert method.mandatory is sent.mandatory
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(sent.body)
    of = header.properties
    keys = {"BCC": list(sent.other_routing_keys)} if sent.other_routing_keys else {}
    assert of.headers == {**sent.headers, **keys}
    assert of.delivery_mode == 2
    assert (of.content_type, of.app_id) == ("application/json", "saga-engine")
    assert of.message_id == sent.message_id
    assert (of.user_id or "") == user
    assert of.timestamp == sent.timestamp
    assert all(isinstance(body, ContentBody) for body in bodies)
    assert b"".join(body.value for body in bodies) == sent.body


@pytest.mark.parametrize(
    ("poison", "named"),
    [
        (make_message("k" * 256), "routing key"),
        (make_message("ü" * 128), "routing key"),
        (make_message("k", correlation_id="c" * 256), "correlation id"),
        (make_message("k", reply_to="r" * 256), "reply_to"),
        (make_message("k", type="t" * 256), "type"),
        (make_message("k", message_id="m" * 256), "message id"),
        (make_message("k", exchange="e" * 256), "exchange"),
        (make_message("k", headers={"h" * 256: 1}), "header"),
        (make_message("k", headers={"h": "v" * 16_400}), "headers"),
        (make_message("k", headers={"h": 2**63}), "'h'"),
        (make_message("k", headers={"h": 1.5}), "'h'"),
        (make_message("k", headers={"h": None}), "'h'"),
        (make_message("k", headers={"h": "\ud800"}), "'h'"),
        (make_message("\ud800"), "routing key"),
        (make_message("k", body=b"x" * 20_001), "body"),
    ],
)
def test_unpublishable_message_is_refused_with_the_reason(poison, named):
    with pytest.raises(UnpublishableMessage, match=named):
        encode_publish(poison, 1, **LIMITS)


def test_acknowledgement_is_one_frame():
    (frame,) = decoded(encode_ack(7, 2**40, multiple=True))
    assert isinstance(frame, commands.Basic.Ack)
    assert (frame.delivery_tag, frame.multiple) == (2**40, True)
