"""
An exchange: selects queues by routing key and bindings.

The types are direct, topic and fanout. An exchange refers to queues by name; the virtual host owns
them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

EXCHANGE_TYPES: Final = ("direct", "topic", "fanout")


@dataclass(kw_only=True)
class Exchange:
    """An exchange and its bindings, each a queue name and a binding key."""

    name: str
    exchange_type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    bindings: set[tuple[str, str]] = field(default_factory=set)

    def matching_queues(self, routing_key: str) -> set[str]:
        """The names of the queues that a message with this key is routed to."""
        if self.exchange_type == "fanout":
            return {queue for queue, _ in self.bindings}
        if self.exchange_type == "direct":
            return {queue for queue, key in self.bindings if key == routing_key}
        words = _split_words(routing_key)
        return {queue for queue, key in self.bindings if _pattern_matches(_split_words(key), words)}

    def remove_queue(self, queue: str) -> None:
        """Remove every binding of a deleted queue."""
        self.bindings = {binding for binding in self.bindings if binding[0] != queue}


def _split_words(key: str) -> list[str]:
    return key.split(".") if key else []


def _pattern_matches(pattern: list[str], words: list[str]) -> bool:
    """Whether the key matches. All positions of the pattern advance together: linear time."""
    positions = set(_skip_hashes(pattern, [0]))
    for word in words:
        positions = set(_skip_hashes(pattern, _advance(pattern, positions, word)))
    return len(pattern) in positions


def _advance(pattern: list[str], positions: Iterable[int], word: str) -> Iterator[int]:
    for position in positions:
        if position == len(pattern):
            continue
        if pattern[position] == "#":
            yield position
        elif pattern[position] in ("*", word):
            yield position + 1


def _skip_hashes(pattern: list[str], positions: Iterable[int]) -> Iterator[int]:
    """Each position, and the positions behind a `#` that matches no word."""
    for start in positions:
        position = start
        yield position
        while position < len(pattern) and pattern[position] == "#":
            position += 1
            yield position
