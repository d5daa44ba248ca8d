"""
The messages of a chunk, as RabbitMQ sends it: alone, or in batches that a publisher has made.

RabbitMQ does not look into a batch. One that cannot be read is taken as one unreadable message at
its first offset, and what comes after it is read.
"""

import zlib
from dataclasses import dataclass

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
    """

    offset: int
    encoded: bytes
    problem: str = ""


def read_chunk(data: bytes, entries: int, first_offset: int, max_bytes: int) -> list[ChunkMessage]:
    """
    Read the messages of a chunk.

    Args:
        data: of the chunk.
        entries: how many messages and batches it has.
        first_offset: of the first message.
        max_bytes: the most that a batch may have when it is uncompressed.

    Returns:
        The messages. Their offsets rise; some are missing after a batch that cannot be read.
    """
    messages: list[ChunkMessage] = []
    at, offset = 0, first_offset
    for _ in range(entries):
        if data[at] & _IS_BATCH:
            count = int.from_bytes(data[at + 1 : at + 3])
            size = int.from_bytes(data[at + 7 : at + 11])
            compression = data[at] >> 4 & 7
            at += 11
            batch = data[at : at + size]
            messages += _read_batch(batch, compression, offset, count, max_bytes)
        else:
            count, size = 1, int.from_bytes(data[at : at + _SIZE])
            at += _SIZE
            messages.append(ChunkMessage(offset, data[at : at + size]))
        at += size
        offset += count
    return messages


def _read_batch(
    batch: bytes, compression: int, offset: int, count: int, max_bytes: int
) -> list[ChunkMessage]:
    try:
        found = _split(_uncompress(batch, compression, max_bytes), count)
    except _Unreadable as problem:
        # Without a message, it has no offset of its own.
        text = f"It is a batch of {count} messages that {problem}. Publish them again."
        return [ChunkMessage(offset, batch, text)] if count else []
    return [ChunkMessage(offset + index, each) for index, each in enumerate(found)]


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


def _split(content: bytes, count: int) -> list[bytes]:
    messages: list[bytes] = []
    at = 0
    while at < len(content) and len(messages) < count:
        size = int.from_bytes(content[at : at + _SIZE])
        at += _SIZE + size
        messages.append(content[at - size : at])
    if len(messages) != count or at != len(content):
        raise _Unreadable("does not have as many messages as it says")
    return messages
