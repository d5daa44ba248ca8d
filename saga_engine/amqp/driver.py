"""
What the AMQP driver does its own way, translated once: its errors, cancellations and privates.

Rule: an error of aiormq leaves this package as BrokerUnavailable, and a CancelledError only when
our own task was cancelled. aiormq ends the calls that wait on a dying connection by cancelling
them, which would look as if the caller had been told to stop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import aiormq
from aiormq.base import Base
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp import commands

from saga_engine.errors import BrokerUnavailable, ConfigurationError

C = TypeVar("C", bound=Channel)

_VERDICTS = (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelLockedResource,
    ChannelPreconditionFailed,
)
_BLOCKED = "_Connection__handle_connection_blocked"
_UNBLOCKED = "_Connection__handle_connection_unblocked"

_LOGS = ("aiormq.channel", "aiormq.connection", "aiormq.connection.marshall")
_OURS: ContextVar[bool] = ContextVar("_OURS", default=False)

FRAMES = 100
"""Frames that wait between the connection's reader and a channel's; 13 MB at the very most."""


class Connection(aiormq.Connection):
    """aiormq's connection, which also tells when the broker blocks publishers and when it ends."""

    on_blocked: Callable[[str], None]
    on_unblocked: Callable[[], None]

    async def _Connection__handle_connection_blocked(  # noqa: N802 - overrides aiormq's private hook
        self, frame: commands.Connection.Blocked
    ) -> None:
        self.on_blocked(frame.reason or "no reason given")

    async def _Connection__handle_connection_unblocked(  # noqa: N802 - the same
        self, _: commands.Connection.Unblocked
    ) -> None:
        self.on_unblocked()


def _is_heard(record: logging.LogRecord) -> bool:
    """
    Drop what aiormq logs of connections and calls of ours where no log is configured.

    Python would then print it to stderr, a traceback at each lost connection, in the middle of what
    the program prints. A connection of the program's own, and any configured log, gets everything.
    """
    return not _OURS.get() or logging.getLogger(record.name).hasHandlers()


@contextmanager
def _ours() -> Iterator[None]:
    """
    Mark what is called within as ours.

    The tasks of a connection that is opened here are marked with it. Calls are marked each by
    itself: aiormq logs a cancelled call in the context of its caller.
    """
    for name in _LOGS:
        logging.getLogger(name).addFilter(_is_heard)
    before = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(before)


def check() -> None:
    """Raise ConfigurationError when aiormq has moved the hooks that Connection overrides."""
    needed = (_BLOCKED, _UNBLOCKED, "READER_CLOSE_TIMEOUT")
    if not all(hasattr(aiormq.Connection, name) for name in needed):
        raise ConfigurationError(
            "This aiormq is another one than saga-engine was written for: it has no hook for a"
            " blocked connection. Install the version that saga-engine's requirements name."
        )


class Silent(BrokerUnavailable):
    """The broker did not answer one question in time. It may still answer others."""


@contextmanager
def translated(doing: str, *, verdicts: bool = False) -> Iterator[None]:
    """
    Turn the driver's errors into BrokerUnavailable, its text beginning with `doing`.

    With `verdicts`, the broker's refusal of one declaration (403, 404, 405, 406) passes: the caller
    knows what it means.
    """
    try:
        with _ours():
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{doing}: the connection was lost.") from None
    except TimeoutError as error:
        raise Silent(f"{doing}: the broker did not answer in time.") from error
    except (AMQPError, OSError, RuntimeError) as error:
        if verdicts and isinstance(error, _VERDICTS):
            raise
        raise BrokerUnavailable(f"{doing}: {str(error) or 'the connection was lost'}.") from error


async def open_channel(
    connection: Connection, kind: type[C], seconds: float, *, confirms: bool = False
) -> C:
    """Open a channel of our own `kind`; aiormq itself knows only its own."""
    with translated("A channel could not be opened"):
        if connection.is_closed:
            raise ConnectionError("the connection was lost")
        number = max(connection.channels, default=0) + 1
        channel = kind(connection, number, frame_buffer=FRAMES, publisher_confirms=confirms)
        connection.channels[number] = channel
        async with asyncio.timeout(seconds):
            await channel.open()
    return channel


async def close(resource: Base, seconds: float) -> bool:
    """
    Close a channel or a connection in at most `seconds`, whatever state it is in.

    Returns:
        Whether it was closed in time. A channel that was not leaves its connection unusable: aiormq
        says close a second time, both are answered, and the second answer ends whatever channel has
        that number then.
    """
    try:
        with translated("It could not be closed"):
            async with asyncio.timeout(seconds):
                # Without a reason, aiormq would cancel whoever waits on it.
                await resource.close(ConnectionError("closed by saga-engine"))
    except BrokerUnavailable as error:
        return not isinstance(error.__cause__, TimeoutError)
    return True


def expect_no_answer(connection: Connection) -> None:
    """
    Let a connection close without an answer from its peer.

    aiormq waits two seconds for that answer, and so does everybody who waits on the connection.
    """
    connection.READER_CLOSE_TIMEOUT = 0


def when_closed(resource: Base, tell: Callable[[str], None]) -> None:
    """Call `tell` once, with the reason in words, when a channel or a connection is closed."""

    def ended(future: asyncio.Future[object]) -> None:
        error = None if future.cancelled() else future.exception()
        tell(str(error) if error and str(error) else "the connection was lost")

    resource.closing.add_done_callback(ended)
