"""
Hands messages and confirms to their channels as soon as their bytes arrive.

aiormq reads a connection with an `asyncio.StreamReader`. A FrameStream takes its place: the event
loop calls it with the bytes, and it calls the channel, with no task, queue or lock between them.
aiormq reads the other frames from the stream as before: the handshake, heartbeats, responses,
closes, and the frames of channels that are not of this package. The bytes of messages are not
buffered here, so the prefetch of the consumers bounds them.

Later frames never overtake messages: a response or a close reaches aiormq's tasks after the
messages that arrived before it. Messages can overtake those, which changes nothing: a channel
that is closed gets no further ones, and no other response depends on them.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from saga_engine.amqp.content_frames import (
    LEFT_TO_AIORMQ,
    Confirm,
    Content,
    ContentFrames,
)

if TYPE_CHECKING:
    from aiormq.connection import Connection

STREAM_LIMIT = 65_536
"""Bytes for aiormq that are buffered before reading pauses at twice as many; asyncio's default."""

ABORT_DELAY = 2.0
"""Seconds that aiormq has for closing a connection on which the broker sent something forbidden."""


class ContentChannel(Channel):
    """
    A channel whose messages and confirms are read by a FrameStream.

    `kept_body_bytes` is the most bytes of a body that the channel gets; as long as it is
    LEFT_TO_AIORMQ, aiormq reads all frames of the channel.
    """

    kept_body_bytes = LEFT_TO_AIORMQ

    def receive_content(self, content: Content) -> None:
        """Receive a delivered or returned message; by default it is dropped."""

    def receive_confirm(self, confirm: Confirm) -> None:
        """Receive a confirm; by default it is dropped."""


class FrameStream(asyncio.StreamReader):
    """
    The stream of one connection; what aiormq reads from it are the frames that are left.

    `last_progress_at` is the time of the event loop, in seconds, at which bytes arrived last, or
    aiormq read last if it has not read all of its frames since.
    """

    def __init__(self, connection: "Connection") -> None:
        super().__init__(STREAM_LIMIT, connection.loop)
        self._connection = connection
        self._frames = ContentFrames(self._kept_body_bytes, self._frame_max)
        self._socket: asyncio.Transport
        self._unread_bytes = 0
        self.last_progress_at = connection.loop.time()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # asyncio has bytes
        """Read bytes that arrived; the event loop calls it."""
        if self.exception() is not None:
            return
        if not self._unread_bytes:
            self.last_progress_at = self._connection.loop.time()
        for received in self._frames.feed(data):
            if isinstance(received, bytes):
                self._unread_bytes += len(received)
                super().feed_data(received)
            else:
                self._hand_over(received)
        if self._frames.problem:
            self._end(self._frames.problem)

    async def readexactly(self, n: int) -> bytes:
        """Read bytes of frames that are left; aiormq calls it."""
        data = await super().readexactly(n)
        self._unread_bytes -= n
        self.last_progress_at = self._connection.loop.time()
        return data

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Note the socket; asyncio calls it."""
        super().set_transport(transport)
        assert isinstance(transport, asyncio.Transport), "create() opens a socket"
        self._socket = transport

    def feed_eof(self) -> None:
        """Note the end of the connection; aiormq reports a frame that was cut off."""
        if rest := self._frames.take_rest():  # asyncio calls this twice
            super().feed_data(rest)
        super().feed_eof()

    def _end(self, problem: str) -> None:
        """Have aiormq end the connection; abort it if aiormq, which may be stuck, does not."""
        self.set_exception(AMQPConnectionError(problem))
        self._connection.loop.call_later(ABORT_DELAY, self._abort)

    def _abort(self) -> None:
        self._socket.abort()
        self.last_progress_at = -inf  # aiormq ends its tasks at the next heartbeat

    def _hand_over(self, received: Content | Confirm) -> None:
        channel = self._connection.channels.get(received.channel)
        if not isinstance(channel, ContentChannel):
            return  # the channel was closed within a message
        # An error in these two is one of this program; asyncio logs it and ends the connection.
        if isinstance(received, Content):
            channel.receive_content(received)
        else:
            channel.receive_confirm(received)

    def _kept_body_bytes(self, number: int) -> int:
        channel = self._connection.channels.get(number)
        return channel.kept_body_bytes if isinstance(channel, ContentChannel) else LEFT_TO_AIORMQ

    def _frame_max(self) -> int | None:
        tune = getattr(self._connection, "connection_tune", None)  # set after the handshake
        return tune.frame_max if tune is not None else None


class FrameStreamFactory(TransportFactory):
    """Opens the socket of one connection and reads it with a FrameStream."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.stream: FrameStream

    @property
    def last_progress_at(self) -> float:
        """That of the stream, which exists once the socket is open."""
        return self.stream.last_progress_at

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open the socket, with TLS for an amqps URL; called by aiormq."""
        loop = self._connection.loop
        provider = kwargs.pop("ssl_context_provider")
        assert url.host, "split_hosts refuses a URL without one"
        assert url.port, "aiormq adds the default port"
        context = await provider.get_context() if url.scheme == "amqps" else None
        self.stream = stream = FrameStream(self._connection)
        protocol = asyncio.StreamReaderProtocol(stream, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host, url.port, ssl=context, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return stream, asyncio.StreamWriter(transport, protocol, stream, loop)
