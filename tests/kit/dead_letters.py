"""Dead letters as the store records them."""

from typing import Any

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.topology import REQUESTS
from saga_engine.store.dead_letters import DeadLetter

WHY = ("--reason", "known bug", "--operator", "ann")
"""The options that a command needs to change a dead letter."""


def make_dead_letter(**changes: Any) -> DeadLetter:
    """A start that is not a request, with these changes."""
    made: dict[str, Any] = {
        "queue": "saga.requests",
        "reason": DeadLetterReason.BAD_REQUEST,
        "detail": "It is not a request.",
        "body": b"{}",
        "body_size": 2,
        "exchange": REQUESTS,
        "routing_key": "start",
        "type": "start",
    }
    return DeadLetter(**(made | changes))
