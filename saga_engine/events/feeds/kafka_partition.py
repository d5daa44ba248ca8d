"""
The partition of a stream in a topic: that of its key in Kafka's Java client, and so in others.

The feed chooses it itself. A client counts the partitions that the topic has at the moment, so
partitions that are added under a running feed would give a stream another one.
"""

from functools import lru_cache

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_WORD = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF
_KNOWN_KEYS = 4_096  # streams whose next event is likely to come soon


@lru_cache(maxsize=_KNOWN_KEYS)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of all messages of a key, from 0."""
    return (_murmur2(key) & _POSITIVE) % partitions


def _murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with the seed of Kafka's Java client."""
    length = len(data)
    hashed = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MULTIPLIER & _WORD
        word = (word ^ word >> 24) * _MULTIPLIER & _WORD
        hashed = hashed * _MULTIPLIER & _WORD ^ word
    if whole < length:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _WORD
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _WORD
    return hashed ^ hashed >> 15
