"""
The message that is being handled: the ids that new events of its handler carry.

A context variable holds it, so each task and each thread of `asyncio.to_thread` sees its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MessageContext:
    """
    Where events come from; each part may be unknown.

    Args:
        correlation_id: what they belong to: a request, a run.
        causation_id: the message or the event that causes them.
        actor: who or what asked for them.
    """

    correlation_id: str | None = None
    causation_id: str | None = None
    actor: str | None = None


_NO_CONTEXT = MessageContext()
_CURRENT = ContextVar("saga_engine_message_context", default=_NO_CONTEXT)


def current_context() -> MessageContext:
    """Return the context of the message that this task handles; an empty one if there is none."""
    return _CURRENT.get()


@contextmanager
def handling(context: MessageContext) -> Iterator[None]:
    """Make *context* the current one within the block."""
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)
