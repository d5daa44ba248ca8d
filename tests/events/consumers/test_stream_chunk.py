"""
The messages of a chunk have their offsets, and a batch that cannot be read hides none.

Batches are uncompressed one by one: a chunk of 1 MB can have a gigabyte of them.
"""

import gzip
import struct
import tracemalloc

import pytest

from saga_engine.events.consumers.stream_chunk import Chunk

ALONE = struct.pack(">I", 5) + b"alone"
BATCH = b"".join(struct.pack(">I", len(each)) + each for each in (b"one", b"two"))


def batch(content: bytes, compression: int = 0, count: int = 2) -> bytes:
    head = struct.pack(">BHII", 0x80 | compression << 4, count, len(BATCH), len(content))
    return head + content


def offsets(data: bytes, entries: int, max_bytes: int = 1_000) -> list[tuple[int, bytes, str]]:
    found = Chunk(data, entries, 40).messages(40, max_bytes)
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


def ends(data: bytes, entries: int, wanted: int) -> list[tuple[int, int]]:
    found = Chunk(data, entries, 40).messages(wanted, 1_000)
    return [(each.offset, each.end) for each in found]


def test_a_batch_that_cannot_be_read_has_the_offsets_of_all_its_messages():
    data = batch(b"garbage", 1, 3) + ALONE
    assert ends(data, 2, 40) == ends(data, 2, 42) == [(40, 43), (43, 44)]
    assert ends(data, 2, 43) == [(43, 44)]
    assert ends(batch(b"garbage", 1, 0) + ALONE, 2, 40) == [(40, 41)]


def test_what_is_before_the_offset_that_is_wanted_is_left_out():
    data = ALONE + batch(gzip.compress(BATCH, mtime=0), 1) + ALONE
    assert ends(data, 3, 42) == [(42, 43), (43, 44)]
    assert ends(data, 3, 44) == []


def test_batches_are_uncompressed_when_their_messages_are_taken():
    """Eight batches of 1 MB in a chunk of a few kilobytes; one of them is in memory."""
    size = 1_000_000
    content = gzip.compress(struct.pack(">I", size) + bytes(size), mtime=0)
    data = batch(content, 1, 1) * 8
    tracemalloc.start()
    try:
        for number, each in enumerate(Chunk(data, 8, 40).messages(40, 2 * size), 40):
            assert (each.offset, len(each.encoded)) == (number, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * size
