"""The messages of a chunk have their offsets, and a batch that cannot be read hides none."""

import gzip
import struct

import pytest

from saga_engine.events.consumers.stream_chunk import read_chunk

ALONE = struct.pack(">I", 5) + b"alone"
BATCH = b"".join(struct.pack(">I", len(each)) + each for each in (b"one", b"two"))


def batch(content: bytes, compression: int = 0, count: int = 2) -> bytes:
    head = struct.pack(">BHII", 0x80 | compression << 4, count, len(BATCH), len(content))
    return head + content


def offsets(data: bytes, entries: int, max_bytes: int = 1_000) -> list[tuple[int, bytes, str]]:
    found = read_chunk(data, entries, 40, max_bytes)
    return [(each.offset, each.encoded, each.problem) for each in found]


@pytest.mark.parametrize("whole", [batch(BATCH), batch(gzip.compress(BATCH, mtime=0), 1)])
def test_messages_alone_and_in_a_batch_have_their_offsets(whole):
    expected = [(40, b"alone", ""), (41, b"one", ""), (42, b"two", ""), (43, b"alone", "")]
    assert offsets(ALONE + whole + ALONE, 3) == expected


@pytest.mark.parametrize(
    ("content", "compression", "count", "problem"),
    [
        (b"garbage", 1, 2, "is not valid gzip"),
        (gzip.compress(BATCH, mtime=0)[:-9], 1, 2, "is not valid gzip"),
        (gzip.compress(bytes(10_000_000), mtime=0), 1, 2, "has more than 1000 bytes"),
        (b"garbage", 2, 2, "is compressed with snappy; only gzip is read"),
        (b"garbage", 4, 2, "is compressed with zstd"),
        (b"garbage", 7, 2, "is compressed with method 7"),
        (BATCH, 0, 5, "does not have as many messages as it says"),
        (BATCH, 0, 1, "does not have as many messages as it says"),
        (BATCH[:-1], 0, 2, "does not have as many messages as it says"),
    ],
)
def test_a_batch_that_cannot_be_read_is_one_message_at_its_offset(
    content, compression, count, problem
):
    found = offsets(ALONE + batch(content, compression, count) + ALONE, 3)
    assert found[0] == (40, b"alone", "")
    assert found[1][:2] == (41, content)
    assert problem in found[1][2]
    assert found[2:] == [(41 + count, b"alone", "")]
