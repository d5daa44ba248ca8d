"""
The AMQP driver: errors, cancellations and private hooks of aiormq, handled in one place.

An error of aiormq leaves this package as BrokerUnavailable. A CancelledError leaves it when the
calling task was cancelled, and only then: aiormq cancels the calls that wait on a connection that
is lost, which would look like a cancellation of the caller, and its calls can lose one.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

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
from pamqp.frame import FrameTypes

from saga_engine.amqp.content_frames import DEFAULT_FRAME_MAX
from saga_engine.amqp.frame_stream import FrameStreamFactory
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
_REQUIRED_HOOKS = (
    _BLOCKED_HOOK,
    _UNBLOCKED_HOOK,
    "READER_CLOSE_TIMEOUT",
    "HEARTBEAT_GRACE_MULTIPLIER",
    "is_connection_was_stuck",
    "_rpc",
)

_AIORMQ_LOGGERS = ("aiormq.channel", "aiormq.connection", "aiormq.connection.marshall")
_IN_ENGINE_CALL: ContextVar[bool] = ContextVar("_IN_ENGINE_CALL", default=False)

CLOSE_TIMEOUT = 2.0
"""Seconds for the close handshake; the broker also notices a closed socket without it."""

FRAME_BUFFER_SIZE = 100
"""Frames buffered between the reader of a connection and a channel; at most 13 MB."""


class AmqpConnection(aiormq.Connection):
    """
    aiormq's connection, read by a FrameStream; it reports a broker that blocks publishers.

    It asks for a limit of frames where the broker sets none: bodies are split by the limit, and
    with 0 none of it would be sent.
    """

    on_blocked: Callable[[str], None]
    on_unblocked: Callable[[], None]

    def __init__(self, url: str, **options: Any) -> None:
        self._streams = FrameStreamFactory(self)
        super().__init__(url, transport_factory=self._streams, **options)

    @property
    def is_connection_was_stuck(self) -> bool:
        """
        Whether for three heartbeats no bytes arrived, or aiormq read none of those it has to read.

        aiormq does not see all frames, so it cannot know the first; it does not check the second.
        """
        seconds = (self.heartbeat_timeout + 1) * self.HEARTBEAT_GRACE_MULTIPLIER
        return self.loop.time() - self._streams.last_progress_at > seconds

    @staticmethod
    async def _rpc(*args: Any, **options: Any) -> FrameTypes | None:  # a request of the handshake
        frame = await aiormq.Connection._rpc(*args, **options)  # noqa: SLF001 - a hook
        if isinstance(frame, commands.Connection.Tune):
            frame.frame_max = frame.frame_max or DEFAULT_FRAME_MAX
        return frame

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
    Drop what aiormq logs about the engine's connections and calls when no log is configured.

    Python would then print a traceback to stderr at each lost connection, between the lines that
    the program prints. Records about other connections of the program, and all records when a log
    is configured, are kept.
    """
    return not _IN_ENGINE_CALL.get() or logging.getLogger(record.name).hasHandlers()


@contextmanager
def _mark_engine_call() -> Iterator[None]:
    """
    Mark the calls inside as the engine's.

    The tasks of a connection that is opened inside are marked too. Each call is marked separately,
    because aiormq logs a cancelled call in the context of its caller.
    """
    for name in _AIORMQ_LOGGERS:
        logging.getLogger(name).addFilter(_keep_log_record)
    reset_token = _IN_ENGINE_CALL.set(True)
    try:
        yield
    finally:
        _IN_ENGINE_CALL.reset(reset_token)


def check_aiormq_hooks() -> None:
    """Raise ConfigurationError when aiormq lacks the hooks that AmqpConnection overrides."""
    has_hooks = all(hasattr(aiormq.Connection, name) for name in _REQUIRED_HOOKS)
    if not has_hooks or "transport_factory" not in inspect.signature(aiormq.Connection).parameters:
        raise ConfigurationError(
            "saga-engine does not support this version of aiormq: it lacks a hook for what arrives,"
            " or for a blocked connection. Install the version that saga-engine requires."
        )


class BrokerTimeout(BrokerUnavailable):
    """The broker did not respond to one request in time. It may still respond to others."""


@contextmanager
def translate_errors(action: str, *, allow_refusals: bool = False) -> Iterator[None]:
    """
    Turn the driver's errors into BrokerUnavailable, whose text starts with `action`.

    With `allow_refusals`, the broker's refusal of a declaration (403, 404, 405, 406) is raised
    unchanged, for a caller that handles it.
    """
    try:
        with _mark_engine_call(), _keep_cancellation():
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{action}: the connection was lost.") from None
    except TimeoutError as error:
        raise BrokerTimeout(f"{action}: the broker did not respond in time.") from error
    except (AMQPError, OSError, RuntimeError) as error:
        if allow_refusals and isinstance(error, _DECLARATION_REFUSALS):
            raise
        raise BrokerUnavailable(f"{action}: {str(error) or 'the connection was lost'}.") from error


@contextmanager
def _keep_cancellation() -> Iterator[None]:
    """
    Raise CancelledError if the task was cancelled inside, even if the driver ended normally.

    aiormq uses asyncio.wait_for, which before Python 3.12 loses a cancellation that arrives
    together with the response (python/cpython#86296).
    """
    task = asyncio.current_task()
    earlier = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception as error:
        if task is not None and task.cancelling() > earlier:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > earlier:
        raise asyncio.CancelledError


async def open_channel(
    connection: AmqpConnection,
    channel_class: type[C],
    seconds: float,
    *,
    confirm_mode: bool = False,
) -> C:
    """Open a channel of the given class; aiormq opens only channels of its own class."""
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
    Close a channel or a connection in any state, within `seconds`.

    Returns:
        Whether it was closed in time. If a channel was not, its connection must not be used again:
        aiormq sends a second close, the broker responds to both, and the second response closes the
        channel that has the same number by then.
    """
    try:
        with translate_errors("It could not be closed"):
            async with asyncio.timeout(seconds):
                # Without a reason, aiormq would cancel the tasks that wait on it.
                await resource.close(ConnectionError("closed by saga-engine"))
    except BrokerUnavailable as error:
        return not isinstance(error.__cause__, TimeoutError)
    return True


def skip_close_handshake(connection: AmqpConnection) -> None:
    """
    Let a connection close without a response from its peer.

    aiormq waits two seconds for that response, and so do the tasks that wait on the connection.
    """
    connection.READER_CLOSE_TIMEOUT = 0


def on_closed(resource: Base, callback: Callable[[str], None]) -> None:
    """Call `callback` once, with the reason as text, when a channel or a connection is closed."""

    def notify(future: asyncio.Future[object]) -> None:
        error = None if future.cancelled() else future.exception()
        callback(str(error) if error and str(error) else "the connection was lost")

    resource.closing.add_done_callback(notify)
