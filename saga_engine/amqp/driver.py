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

_DECLARATION_REFUSALS = (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelLockedResource,
    ChannelPreconditionFailed,
)
_BLOCKED_HOOK = "_Connection__handle_connection_blocked"
_UNBLOCKED_HOOK = "_Connection__handle_connection_unblocked"

_AIORMQ_LOGGERS = ("aiormq.channel", "aiormq.connection", "aiormq.connection.marshall")
_IN_ENGINE_CALL: ContextVar[bool] = ContextVar("_IN_ENGINE_CALL", default=False)

FRAME_BUFFER_SIZE = 100
"""Frames that wait between the connection's reader and a channel's; 13 MB at the very most."""


class AmqpConnection(aiormq.Connection):
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


def _keep_log_record(record: logging.LogRecord) -> bool:
    """
    Drop what aiormq logs of connections and calls of ours where no log is configured.

    Python would then print it to stderr, a traceback at each lost connection, in the middle of what
    the program prints. A connection of the program's own, and any configured log, gets everything.
    """
    return not _IN_ENGINE_CALL.get() or logging.getLogger(record.name).hasHandlers()


@contextmanager
def _mark_engine_call() -> Iterator[None]:
    """
    Mark what is called within as ours.

    The tasks of a connection that is opened here are marked with it. Calls are marked each by
    itself: aiormq logs a cancelled call in the context of its caller.
    """
    for name in _AIORMQ_LOGGERS:
        logging.getLogger(name).addFilter(_keep_log_record)
    reset_token = _IN_ENGINE_CALL.set(True)
    try:
        yield
    finally:
        _IN_ENGINE_CALL.reset(reset_token)


def check_aiormq_hooks() -> None:
    """Raise ConfigurationError when aiormq has moved the hooks that Connection overrides."""
    required_hooks = (_BLOCKED_HOOK, _UNBLOCKED_HOOK, "READER_CLOSE_TIMEOUT")
    if not all(hasattr(aiormq.Connection, name) for name in required_hooks):
        raise ConfigurationError(
            "This aiormq is another one than saga-engine was written for: it has no hook for a"
            " blocked connection. Install the version that saga-engine's requirements name."
        )


class BrokerTimeout(BrokerUnavailable):
    """The broker did not answer one question in time. It may still answer others."""


@contextmanager
def translate_errors(action: str, *, allow_refusals: bool = False) -> Iterator[None]:
    """
    Turn the driver's errors into BrokerUnavailable, its text beginning with `doing`.

    With `verdicts`, the broker's refusal of one declaration (403, 404, 405, 406) passes: the caller
    knows what it means.
    """
    try:
        with _mark_engine_call():
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{action}: the connection was lost.") from None
    except TimeoutError as error:
        raise BrokerTimeout(f"{action}: the broker did not answer in time.") from error
    except (AMQPError, OSError, RuntimeError) as error:
        if allow_refusals and isinstance(error, _DECLARATION_REFUSALS):
            raise
        raise BrokerUnavailable(f"{action}: {str(error) or 'the connection was lost'}.") from error


async def open_channel(
    connection: AmqpConnection,
    channel_class: type[C],
    seconds: float,
    *,
    confirm_mode: bool = False,
) -> C:
    """Open a channel of our own `kind`; aiormq itself knows only its own."""
    with translate_errors("A channel could not be opened"):
        if connection.is_closed:
            raise ConnectionError("the connection was lost")
        number = max(connection.channels, default=0) + 1
        channel = channel_class(
            connection, number, frame_buffer=FRAME_BUFFER_SIZE, publisher_confirms=confirm_mode
        )
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
        with translate_errors("It could not be closed"):
            async with asyncio.timeout(seconds):
                # Without a reason, aiormq would cancel whoever waits on it.
                await resource.close(ConnectionError("closed by saga-engine"))
    except BrokerUnavailable as error:
        return not isinstance(error.__cause__, TimeoutError)
    return True


def skip_close_handshake(connection: AmqpConnection) -> None:
    """
    Let a connection close without an answer from its peer.

    aiormq waits two seconds for that answer, and so does everybody who waits on the connection.
    """
    connection.READER_CLOSE_TIMEOUT = 0


def on_closed(resource: Base, callback: Callable[[str], None]) -> None:
    """Call `tell` once, with the reason in words, when a channel or a connection is closed."""

    def notify(future: asyncio.Future[object]) -> None:
        error = None if future.cancelled() else future.exception()
        callback(str(error) if error and str(error) else "the connection was lost")

    resource.closing.add_done_callback(notify)
