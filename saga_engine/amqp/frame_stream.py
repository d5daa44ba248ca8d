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
    """The stream of one connection; what aiormq reads from it are the frames that are left."""

    def __init__(self, connection: "Connection", factory: "FrameStreamFactory") -> None:
        super().__init__(STREAM_LIMIT, connection.loop)
        self._connection = connection
        self._factory = factory
        self._frames = ContentFrames(self._kept_body_bytes, self._frame_max)

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # asyncio has bytes
        """Read bytes that arrived; the event loop calls it."""
        self._factory.last_read_at = self._connection.loop.time()
        for received in self._frames.feed(data):
            if isinstance(received, bytes):
                super().feed_data(received)
            else:
                self._hand_over(received)
        if self._frames.problem and self.exception() is None:
            self.set_exception(AMQPConnectionError(self._frames.problem))

    def feed_eof(self) -> None:
        """Note the end of the connection; aiormq reports a frame that was cut off."""
        if rest := self._frames.take_rest():  # asyncio calls this twice
            super().feed_data(rest)
        super().feed_eof()

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
    """
    Opens the socket of one connection and reads it with a FrameStream.

    `last_read_at` is the time of the event loop, in seconds, at which bytes arrived last.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.stream: FrameStream
        self.last_read_at = 0.0

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open the socket, with TLS for an amqps URL; called by aiormq."""
        loop = self._connection.loop
        provider = kwargs.pop("ssl_context_provider")
        assert url.host, "split_hosts refuses a URL without one"
        assert url.port, "aiormq adds the default port"
        context = await provider.get_context() if url.scheme == "amqps" else None
        self.stream = stream = FrameStream(self._connection, self)
        protocol = asyncio.StreamReaderProtocol(stream, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host, url.port, ssl=context, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return stream, asyncio.StreamWriter(transport, protocol, stream, loop)
