"""
The messages of a chunk, as RabbitMQ sends it: alone, or in batches that a publisher has made.

RabbitMQ does not look into a batch. One that cannot be read is taken as one unreadable message, and
what comes after it is read. A chunk of 1 MB can have hundreds of batches that become a thousand
times as long, so each is uncompressed only when its first message is taken.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

_IS_BATCH = 0x80
_GZIP_HEADER = 31  # of `zlib.decompressobj`: the format of gzip only
_COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")
_SIZE = 4


@dataclass(frozen=True, slots=True)
class ChunkMessage:
    """
    One message of a chunk.

    Args:
        offset: in the stream.
        encoded: the message; of a batch that cannot be read, the batch.
        problem: why that is so; empty: it is a message.
        count: how many offsets it has: as many as such a batch has messages.
    """

    offset: int
    encoded: bytes
    problem: str = ""
    count: int = 1

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.offset + self.count


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    Messages that RabbitMQ sends at once.

    Args:
        data: as it was sent.
        entries: how many messages and batches it has.
        first_offset: of the first message.
    """

    data: bytes
    entries: int
    first_offset: int

    def messages(self, wanted: int, max_bytes: int) -> Iterator[ChunkMessage]:
        """
        Give the messages, each when it is taken; at most one batch is uncompressed at a time.

        Args:
            wanted: the first offset that is needed; what ends before it is passed over.
            max_bytes: the most that a batch may have when it is uncompressed.
        """
        data, at, offset = self.data, 0, self.first_offset
        for _ in range(self.entries):
            is_batch = data[at] & _IS_BATCH
            if is_batch:
                count, compression = int.from_bytes(data[at + 1 : at + 3]), data[at] >> 4 & 7
                size = int.from_bytes(data[at + 7 : at + 11])
                at += 11
            else:
                count, compression = 1, 0
                size = int.from_bytes(data[at : at + _SIZE])
                at += _SIZE
            if count and offset + count > wanted:
                content = ChunkMessage(offset, data[at : at + size], count=count)
                found = _read_batch(content, compression, max_bytes) if is_batch else [content]
                yield from (each for each in found if each.end > wanted)
            at += size
            offset += count


def _read_batch(batch: ChunkMessage, compression: int, max_bytes: int) -> Iterator[ChunkMessage]:
    try:
        content = _uncompress(batch.encoded, compression, max_bytes)
        sizes = _sizes(content, batch.count)
    except _Unreadable as problem:
        text = f"It is a batch of {batch.count} messages that {problem}. Publish them again."
        yield replace(batch, problem=text)
        return
    at = 0
    for offset, size in enumerate(sizes, batch.offset):
        at += _SIZE + size
        yield ChunkMessage(offset, content[at - size : at])


class _Unreadable(Exception):
    """Why a batch cannot be read, as the end of a sentence."""


def _uncompress(batch: bytes, compression: int, max_bytes: int) -> bytes:
    if compression == 0:
        return batch
    if compression != 1:
        known = compression < len(_COMPRESSIONS)
        name = _COMPRESSIONS[compression] if known else f"method {compression}"
        raise _Unreadable(f"is compressed with {name}; only gzip is read")
    reading = zlib.decompressobj(_GZIP_HEADER)
    try:
        content = reading.decompress(batch, max_bytes + 1)
    except zlib.error:
        raise _Unreadable("is not valid gzip") from None
    if len(content) > max_bytes:
        raise _Unreadable(f"has more than {max_bytes} bytes, which max_batch_bytes allows")
    if not reading.eof:
        raise _Unreadable("is not valid gzip")
    return content


def _sizes(content: bytes, count: int) -> list[int]:
    """The length of each message of a batch."""
    sizes: list[int] = []
    at = 0
    while at < len(content) and len(sizes) < count:
        sizes.append(int.from_bytes(content[at : at + _SIZE]))
        at += _SIZE + sizes[-1]
    if len(sizes) != count or at != len(content):
        raise _Unreadable("does not have as many messages as it says")
    return sizes
