"""The frames of messages and confirms are read as pamqp reads them, however the bytes arrive."""

import struct
from itertools import chain, pairwise
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from saga_engine.amqp.content_frames import (
    DEFAULT_FRAME_MAX,
    KEPT_HEADER_BYTES,
    LEFT_TO_AIORMQ,
    OVERHEAD_BYTES,
    Confirm,
    Content,
    ContentFrames,
)
from saga_engine.amqp.tolerant_decoding import install_decoders
from tests.kit.amqp_frames import (
    NACK,
    confirm,
    content,
    decoded,
    deliver,
    frame,
    heartbeat,
    interleaved,
    long_ack,
    message,
    messages,
    method,
    returned,
    split,
)
from tests.kit.amqp_properties import HEADERS, MESSAGE_ID, content_header, header, longstr, shortstr
from tests.kit.raw_amqp import BODY, HEADER, METHOD

KEPT = 200
FRAME_MAX = 150_000


@pytest.fixture(autouse=True)
def _installed():
    install_decoders()


def content_frames(limits=None, frame_max=FRAME_MAX):
    limits = {1: KEPT, 2: KEPT, 3: 0} if limits is None else limits
    return ContentFrames(lambda channel: limits.get(channel, LEFT_TO_AIORMQ), lambda: frame_max)


def feed_all(frames, pieces):
    return [each for piece in pieces for each in frames.feed(piece)]


def described(received):
    """What was received, comparable; adjacent bytes are joined, as aiormq reads them."""
    found: list[Any] = []
    for each in received:
        if isinstance(each, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += each
        elif isinstance(each, Content):
            fields = (each.channel, each.deliver, each.method_frame, each.header_frame)
            found.append((*fields, each.body_size, each.body))
        else:
            found.append(each)
    return found


def expected_content(frames):
    """What pamqp reads from the frames of one delivered message."""
    method_read, header, *parts = map(decoded, frames)
    channel = int.from_bytes(frames[0][1:3])
    body = b"".join(each.value for each in parts)
    arguments = (
        method_read.consumer_tag,
        method_read.delivery_tag,
        method_read.redelivered,
        method_read.exchange,
        method_read.routing_key,
    )
    return channel, arguments, *frames[:2], header.body_size, body[:KEPT]


@given(st.data())
def test_messages_of_interleaved_channels_are_read_from_any_pieces(data):
    first = [data.draw(messages(1, tag)) for tag in range(data.draw(st.integers(0, 3)))]
    second = [data.draw(messages(2, tag)) for tag in range(data.draw(st.integers(0, 3)))]
    others = data.draw(st.lists(st.sampled_from([heartbeat(), message(9, 5)]), max_size=3))
    stream = data.draw(interleaved([[*chain(*first)], [*chain(*second)], others]))
    received = feed_all(content_frames(), data.draw(split(b"".join(stream))))
    by_channel = {1: first, 2: second}
    for channel, sent in by_channel.items():
        found = [each for each in described(received) if isinstance(each, tuple)]
        found = [each for each in found if each[0] == channel]
        assert found == [expected_content(each) for each in sent]
    assert b"".join(each for each in received if isinstance(each, bytes)) == b"".join(others)


@given(st.data())
def test_frames_that_are_left_keep_their_place_between_the_others(data):
    sent = [message(1, 1), heartbeat(), confirm(3, 7), method(1, 21, b"\1c"), message(1, 2)]
    received = described(feed_all(content_frames(), data.draw(split(b"".join(sent)))))
    assert [received[0][1].delivery_tag, received[4][1].delivery_tag] == [1, 2]
    assert received[1:4] == [heartbeat(), Confirm(3, 7, False, True), sent[3]]


@pytest.mark.parametrize("multiple", [False, True])
def test_confirms_are_read_as_pamqp_reads_them(multiple):
    for number, kind in ((80, commands.Basic.Ack), (NACK, commands.Basic.Nack)):
        sent = confirm(3, 2**63 + 5, multiple=multiple, number=number)
        (found,) = content_frames().feed(sent)
        expected = decoded(sent)
        assert isinstance(expected, kind)
        is_ack = kind is commands.Basic.Ack
        assert found == (3, expected.delivery_tag, expected.multiple, is_ack)


def test_a_returned_message_keeps_its_header_and_no_body():
    stream = returned(3) + b"".join(content(3, b"\0\0", b"x" * 150))
    (found,) = content_frames().feed(stream)
    assert (found.deliver, found.body_size, found.body) == (None, 150, b"")


def test_a_long_body_is_kept_up_to_the_limit_and_its_end_is_found():
    frames = content_frames({1: 10})
    *before, last = content(1, b"\0\0", b"x" * 1_000_000, 1000)
    assert feed_all(frames, [deliver(1, 1), *before]) == []
    assert len(frames._incomplete[1].body) == 10
    assert not frames._rest
    (found, other) = frames.feed(last + heartbeat())
    assert (found.body_size, found.body, other) == (1_000_000, b"x" * 10, heartbeat())


OUT_OF_ORDER = {
    "body before the header": [frame(BODY, 1, b"x")],
    "second header": [content(1, b"\0\0", b"xx")[0], content(1, b"\0\0", b"xx")[0]],
    "header within the body": [*content(1, b"\0\0", b"xx", 1)[:2], content(1, b"\0\0", b"x")[0]],
}


@pytest.mark.parametrize("name", OUT_OF_ORDER)
def test_frames_out_of_order_are_an_error_after_what_came_before_them(name):
    frames = content_frames()
    broken = b"".join([deliver(1, 2), *OUT_OF_ORDER[name]])
    (found,) = frames.feed(message(1, 1) + broken + message(2, 3))
    assert found.deliver.delivery_tag == 1
    assert frames.problem == "the broker sent a frame out of order on channel 1"
    assert frames.feed(message(2, 4)) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_method_within_a_message_ends_it_and_is_read(count):
    opened = b"".join([deliver(1, 2), *content(1, b"\0\0", b"xx", 1)[:count]])
    close = frame(METHOD, 1, struct.pack(">HHHBHH", 20, 40, 404, 0, 0, 0))
    for method_read in (confirm(1, 7), close):
        read, following = content_frames().feed(opened + method_read + message(1, 3))
        assert read == (Confirm(1, 7, False, True) if method_read != close else close)
        assert (following.deliver.delivery_tag, following.body) == (3, b"{}")
    (following,) = content_frames().feed(opened + message(1, 3))
    assert following.deliver.delivery_tag == 3


UNUSUAL = {
    "long ack": long_ack(1),
    "short ack": method(1, 80, b"\0"),
    "longer deliver": method(1, 60, deliver(1, 1)[11:-1] + b"x"),
    "shorter deliver": method(1, 60, deliver(1, 1)[11:-2]),
    "empty deliver": method(1, 60, b""),
    "empty return": method(1, 50, b"\0"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_channel_with_an_unusual_method_is_left_from_there_on(name):
    frames = content_frames()
    first, *left = frames.feed(message(1, 1) + UNUSUAL[name] + message(1, 2))
    assert first.deliver.delivery_tag == 1
    assert b"".join(left) == UNUSUAL[name] + message(1, 2)


def test_a_channel_that_is_opened_again_after_an_unusual_method_is_read():
    frames = content_frames()
    opened = pamqp.frame.marshal(commands.Channel.OpenOk(), 1)
    *left, last = frames.feed(long_ack(1) + message(1, 1) + opened + message(1, 2))
    assert b"".join(left) == long_ack(1) + message(1, 1) + opened
    assert last.deliver.delivery_tag == 2


MALFORMED = {
    "another end": heartbeat()[:-1] + b"\0",
    "unknown type": struct.pack(">BHI", 4, 1, 1) + b"x\xce",
    "empty method": frame(METHOD, 1, b""),
    "protocol header": b"AMQP\0\0\x09\x01",
    "another protocol": b"HTTP/1.1 400 Bad Request",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_is_an_error_after_what_came_before_it(name):
    frames = content_frames()
    (found,) = frames.feed(message(1, 1) + MALFORMED[name] + message(1, 2))
    assert found.deliver.delivery_tag == 1
    assert frames.problem == "the broker sent a malformed frame"
    assert frames.feed(message(1, 3)) == []


@pytest.mark.parametrize("name", MALFORMED)
def test_everything_after_a_malformed_frame_of_a_handshake_is_left(name):
    frames = content_frames(frame_max=None)
    stream = frame(METHOD, 0, b"x") + MALFORMED[name] + heartbeat()
    assert described(frames.feed(stream)) == [stream]
    assert frames.feed(heartbeat()) == [heartbeat()]


def test_a_frame_above_the_size_that_was_agreed_on_is_not_read():
    frames = content_frames()
    largest = frame(METHOD, 9, b"x" * (FRAME_MAX - 8))
    assert frames.feed(largest) == [largest]
    first, *rest = frames.feed(message(1, 1) + struct.pack(">BHIB", METHOD, 9, FRAME_MAX - 7, 0))
    assert (first.deliver.delivery_tag, rest) == (1, [])
    assert frames.problem == "the broker sent a frame of 150001 bytes; 150000 were agreed on"
    assert frames.feed(heartbeat()) == []
    assert not frames._rest


def header_frame(text_bytes, body_size):
    """A content header with a table of one entry, whose value has this many bytes."""
    table = header(b"k", b"S" + longstr(b"z" * text_bytes))
    properties = table + shortstr(b"the message id")
    return frame(HEADER, 1, content_header(HEADERS | MESSAGE_ID, properties, body_size))


@pytest.mark.parametrize("above", [1, 8, 10_000])
def test_a_content_header_above_the_size_that_was_agreed_on_is_read(above):
    small = FRAME_MAX - len(header_frame(0, 2))
    large = header_frame(small + above, 2)
    assert len(large) == FRAME_MAX + above
    body = frame(BODY, 1, b"{}")
    for pieces in ([deliver(1, 1) + large + body], [deliver(1, 1), large[:-1], large[-1:] + body]):
        (found,) = feed_all(content_frames(), pieces)
        assert (found.header_frame, found.body) == (large, b"{}")


@given(st.data())
def test_a_very_long_content_header_is_cut_and_what_follows_it_is_read(data):
    long = header_frame(KEPT_HEADER_BYTES + data.draw(st.integers(0, 100_000)), 2)
    stream = b"".join([deliver(1, 1), long, frame(BODY, 1, b"{}"), message(1, 2), heartbeat()])
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted))
    pieces = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)]) if a < b]
    found, following, rest = feed_all(content_frames(), pieces)
    kept = decoded(found.header_frame)
    assert (found.body, kept.body_size) == (b"{}", 2)
    assert kept.properties.headers.size_bytes > KEPT_HEADER_BYTES, "what it was"
    assert len(found.header_frame) == KEPT_HEADER_BYTES + OVERHEAD_BYTES
    assert (following.deliver.delivery_tag, rest) == (2, heartbeat())


def test_the_bytes_of_a_long_content_header_do_not_stay_in_memory():
    frames = content_frames()
    start = struct.pack(">BHI", HEADER, 1, 2**32 - 1) + content_header(HEADERS, b"", 2)
    assert frames.feed(deliver(1, 1) + start) == []
    for _ in range(100):
        assert frames.feed(b"z" * 100_000) == []
        assert len(frames._rest) < KEPT_HEADER_BYTES + 100_000
    assert frames.problem == ""


def test_a_long_content_header_without_its_end_is_an_error():
    frames = content_frames()
    long = header_frame(KEPT_HEADER_BYTES, 2)
    assert frames.feed(deliver(1, 1) + long[:-1] + b"\0") == []
    assert frames.problem == "the broker sent a malformed frame"


def test_a_long_content_header_of_a_channel_of_aiormq_is_left_to_it_in_short():
    first, header_left, body = content_frames().feed(
        deliver(9, 1) + b"\2\0\x09" + header_frame(KEPT_HEADER_BYTES, 2)[3:] + frame(BODY, 9, b"{}")
    )
    assert (first, body) == (deliver(9, 1), frame(BODY, 9, b"{}"))
    assert decoded(header_left).body_size == 2
    assert len(header_left) == KEPT_HEADER_BYTES + OVERHEAD_BYTES


def test_the_size_of_frames_has_no_limit_if_none_is_agreed_on():
    large = frame(METHOD, 0, b"x" * 1_000_000)
    assert content_frames(frame_max=0).feed(large) == [large]


@pytest.mark.parametrize("kind", [METHOD, HEADER, BODY])
def test_a_handshake_has_a_limit_before_one_is_agreed_on(kind):
    frames = content_frames(frame_max=None)
    largest = frame(kind, 0, b"x" * (DEFAULT_FRAME_MAX - OVERHEAD_BYTES))
    assert frames.feed(largest) == [largest]
    assert frames.feed(struct.pack(">BHIB", kind, 0, 2**32 - 1, 0)) == []
    assert frames.problem == (
        "the broker sent a frame of 4294967303 bytes before the end of the handshake;"
        " 131072 are accepted"
    )
    assert not frames._rest


def test_the_rest_of_a_frame_that_was_cut_off_can_be_taken():
    frames = content_frames()
    assert frames.feed(heartbeat()[:5]) == []
    assert frames.take_rest() == heartbeat()[:5]
    assert frames.take_rest() == b""
