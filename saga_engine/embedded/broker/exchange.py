"""
An exchange: which queues get a message, from its routing key and the bindings.

Direct, topic and fanout. It knows queues by name only; who holds them is the virtual host.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

KINDS: Final = ("direct", "topic", "fanout")


@dataclass
class Exchange:
    """One exchange and its bindings, each a queue's name and a binding key."""

    name: str
    kind: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    bindings: set[tuple[str, str]] = field(default_factory=set)

    def route(self, routing_key: str) -> set[str]:
        """The names of the queues that get a message with this key."""
        if self.kind == "fanout":
            return {queue for queue, _ in self.bindings}
        if self.kind == "direct":
            return {queue for queue, key in self.bindings if key == routing_key}
        words = _words(routing_key)
        return {queue for queue, key in self.bindings if _matches(_words(key), words)}

    def forget(self, queue: str) -> None:
        """Remove every binding of a queue that is gone."""
        self.bindings = {binding for binding in self.bindings if binding[0] != queue}


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def _matches(pattern: list[str], words: list[str]) -> bool:
    """Whether the key fits; all places in the pattern at once, so that no key takes long."""
    places = set(_past_hashes(pattern, [0]))
    for word in words:
        places = set(_past_hashes(pattern, _after(pattern, places, word)))
    return len(pattern) in places


def _after(pattern: list[str], places: Iterable[int], word: str) -> Iterator[int]:
    for place in places:
        if place == len(pattern):
            continue
        if pattern[place] == "#":
            yield place
        elif pattern[place] in ("*", word):
            yield place + 1


def _past_hashes(pattern: list[str], places: Iterable[int]) -> Iterator[int]:
    """Each place, and those behind it that a `#` matching nothing leads to."""
    for start in places:
        place = start
        yield place
        while place < len(pattern) and pattern[place] == "#":
            place += 1
            yield place
