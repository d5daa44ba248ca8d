"""
A connection: dispatches frames to channels; heartbeats, backpressure, closing.

An asyncio protocol without tasks: bytes are handled when they arrive. Malformed input closes at
most the connection that it arrived on, with a reason (AMQP 0-9-1, section 2.2).
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

from pamqp import base, commands

from saga_engine.embedded.broker import consuming, declaring, publishing
from saga_engine.embedded.broker.channel import Channel
from saga_engine.embedded.broker.frames import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    PUBLISH_METHOD,
    Frame,
    FrameBuffer,
    read_method,
    write_method,
)
from saga_engine.embedded.broker.handshake import CHANNEL_MAX, Handshake
from saga_engine.embedded.broker.interceptor import PublishInterceptor
from saga_engine.embedded.broker.outgoing import WriteBuffer
from saga_engine.embedded.broker.refusal import (
    AmqpException,
    ChannelException,
    ConnectionException,
    not_implemented,
)
from saga_engine.embedded.broker.virtual_host import VirtualHost

_CLOSE_TIMEOUT: Final = 5.0  # Seconds for a peer to answer connection.close.
_HANDSHAKE_TIMEOUT: Final = 10.0  # Seconds for a peer to log in, as RabbitMQ's handshake_timeout.
_HANDLERS: Final[Mapping[type[base.Frame], Callable[[Channel, Any], None]]] = MappingProxyType(
    {**consuming.HANDLERS, **declaring.HANDLERS, **publishing.HANDLERS}
)
_CLOSE_OK_FRAME: Final = write_method(0, commands.Connection.CloseOk())
_logger = logging.getLogger(__name__)


class ClientConnection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(
        self,
        virtual_host: VirtualHost,
        interceptor: PublishInterceptor,
        users: Mapping[str, str],
        on_connected: Callable[["ClientConnection"], None],
        on_disconnected: Callable[["ClientConnection"], None],
    ) -> None:
        self.virtual_host = virtual_host
        self.interceptor: PublishInterceptor = interceptor
        self.username = ""
        self.frame_max = 0
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._loop = asyncio.get_running_loop()
        self._handshake = Handshake(users)
        self._protocol_header_received = False
        self._closing = False
        self._framing_lost = False
        self._buffer = FrameBuffer()
        self._channels: dict[int, Channel] = {}
        self._closing_channels: set[int] = set()
        self._alarm_reason: str | None = None
        self._blocked = False
        self._is_publisher = False
        self._last_received_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake timeout; the client sends the protocol header."""
        self._transport = cast("asyncio.Transport", transport)
        self._write_buffer = WriteBuffer(self._transport, self._dispatch_queues)
        self._set_timer(_HANDSHAKE_TIMEOUT, self.abort)
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Handle every complete frame."""
        self._last_received_at = self._loop.time()
        if self._framing_lost:
            if data.endswith(_CLOSE_OK_FRAME):
                self._transport.close()
            return
        self._buffer.feed(data)
        try:
            while (self._protocol_header_received or self._receive_protocol_header()) and (
                frame := self._buffer.next_frame()
            ):
                self._handle_frame(frame)
        except ConnectionException as refusal:
            self._framing_lost = True  # The start of the next frame is unknown.
            self._close_with_error(refusal, b"\0\0\0\0")
        except Exception:
            _logger.exception("The development broker failed; it closes this connection")
            self._close_with_error(ConnectionException(541, "INTERNAL_ERROR"), b"\0\0\0\0")

    def pause_writing(self) -> None:
        """The client reads too slowly: stop deliveries and stop reading from it."""
        self._write_buffer.pause()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_buffer.resume()
        if not self._blocked:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Requeue unacknowledged messages and delete exclusive queues."""
        del error  # The same follows with and without an error.
        if self._timer:
            self._timer.cancel()
        for channel in self._channels.values():
            channel.close()
        for queue in [queue for queue in self.virtual_host.queues.values() if queue.owner is self]:
            self.virtual_host.delete_queue(queue)
        self._on_disconnected(self)

    @property
    def is_congested(self) -> bool:
        """Whether deliveries should stop."""
        return self._write_buffer.is_congested

    def write(self, data: bytes) -> None:
        """Send frames."""
        if not self._closing:
            self._write_buffer.write(data)

    def abort(self) -> None:
        """Close the socket without a close handshake."""
        self._transport.abort()

    def close_for_shutdown(self) -> None:
        """Close the connection because the broker stops (320)."""
        text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
        self._close_with_error(ConnectionException(320, text), b"\0\0\0\0")
        self._transport.close()

    def set_alarm(self, reason: str | None) -> None:
        """Block this connection when it publishes; None unblocks it."""
        self._alarm_reason = reason
        if reason and self._is_publisher:
            self._block()
        if reason is None and self._blocked:
            self._blocked = False
            self._transport.resume_reading()
            if self._handshake.supports_blocked_notification:
                self._send(0, commands.Connection.Unblocked())

    def _block(self) -> None:
        self._blocked = True
        self._transport.pause_reading()
        if self._handshake.supports_blocked_notification and self._alarm_reason:
            self._send(0, commands.Connection.Blocked(self._alarm_reason))

    def _receive_protocol_header(self) -> bool:
        header = self._buffer.take_protocol_header()
        if header is None:
            return False
        if header != PROTOCOL_HEADER:
            self._transport.write(
                PROTOCOL_HEADER
            )  # The supported version (AMQP 0-9-1, section 4.2.2).
            self._transport.close()
            return False
        self._protocol_header_received = True
        self._send(0, self._handshake.start_method())
        return True

    def _handle_frame(self, frame: Frame) -> None:
        if frame.frame_type == FRAME_HEARTBEAT:
            return
        try:
            if frame.channel == 0:
                self._handle_connection_method(read_method(frame.payload))
            elif self._closing:
                return
            elif frame.channel in self._closing_channels:
                self._handle_closing_channel_frame(frame)
            else:
                self._handle_channel_frame(frame)
        except ConnectionException as refusal:
            self._close_with_error(refusal, _failed_method(frame))

    def _handle_connection_method(self, method: base.Frame) -> None:
        if isinstance(method, commands.Connection.CloseOk):
            self._transport.close()
        elif isinstance(method, commands.Connection.Close):
            self._send(0, commands.Connection.CloseOk())
            self._write_buffer.flush()
            self._transport.close()
        elif self._closing:
            return
        elif not self._handshake.is_complete:
            self._continue_handshake(method)
        elif isinstance(method, commands.Connection.UpdateSecret):
            self._send(0, commands.Connection.UpdateSecretOk())
        else:
            raise ConnectionException(503, f"COMMAND_INVALID - {method.name} on channel 0")

    def _continue_handshake(self, method: base.Frame) -> None:
        response = self._handshake.respond(method)
        if response:
            self._send(0, response)
        if self._handshake.is_complete:
            self.username = self._handshake.username
            self.frame_max = self._handshake.frame_max
            self._send_heartbeat()

    def _handle_closing_channel_frame(self, frame: Frame) -> None:
        """Ignore what the client sent to a channel before it answered with close-ok."""
        if frame.frame_type != FRAME_METHOD or frame.payload.startswith(PUBLISH_METHOD):
            return
        method = read_method(frame.payload)
        if isinstance(method, commands.Channel.CloseOk):
            self._closing_channels.discard(frame.channel)
        elif isinstance(method, commands.Channel.Close):
            self._send(frame.channel, commands.Channel.CloseOk())

    def _handle_channel_frame(self, frame: Frame) -> None:
        channel = self._channels.get(frame.channel)
        if channel is None:
            self._open_channel(frame)
            return
        try:
            self._handle_open_channel_frame(channel, frame)
        except ChannelException as refusal:
            self._channels.pop(frame.channel).close()
            self._closing_channels.add(frame.channel)
            class_id, method_id = struct.unpack(">HH", _failed_method(frame))
            close = commands.Channel.Close(refusal.code, refusal.text[:255], class_id, method_id)
            self._send(frame.channel, close)

    def _open_channel(self, frame: Frame) -> None:
        method = read_method(frame.payload) if frame.frame_type == FRAME_METHOD else None
        is_valid_open = isinstance(method, commands.Channel.Open) and self._handshake.is_complete
        if not is_valid_open or frame.channel > CHANNEL_MAX:
            raise ConnectionException(504, "CHANNEL_ERROR - expected 'channel.open'")
        self._channels[frame.channel] = Channel(self, frame.channel)
        self._send(frame.channel, commands.Channel.OpenOk())

    def _handle_open_channel_frame(self, channel: Channel, frame: Frame) -> None:
        if frame.frame_type == FRAME_HEADER:
            publishing.receive_header(channel, frame.payload)
        elif frame.frame_type == FRAME_BODY:
            publishing.receive_body(channel, frame.payload)
        elif frame.frame_type != FRAME_METHOD:
            raise ConnectionException(501, f"FRAME_ERROR - a frame of type {frame.frame_type}")
        elif frame.payload.startswith(PUBLISH_METHOD):
            self._is_publisher = True
            publishing.begin_publish(channel, frame.payload)
            if self._alarm_reason and not self._blocked:
                self._block()
        else:
            self._handle_method(channel, read_method(frame.payload))

    def _handle_method(self, channel: Channel, method: base.Frame) -> None:
        if channel.incoming:
            raise ConnectionException(505, "UNEXPECTED_FRAME - expected content, got a method")
        if isinstance(method, commands.Channel.Close):
            self._channels.pop(channel.number).close()
            self._send(channel.number, commands.Channel.CloseOk())
        elif isinstance(method, commands.Channel.Open):
            raise ConnectionException(504, "CHANNEL_ERROR - second 'channel.open' seen")
        elif type(method) in _HANDLERS:
            _HANDLERS[type(method)](channel, method)
        else:
            raise not_implemented(method.name)

    def _close_with_error(self, error: AmqpException, failed_method: bytes) -> None:
        """Send connection.close and wait for close-ok; ignore everything else."""
        if self._closing:
            return
        class_id, method_id = struct.unpack(">HH", failed_method)
        text = error.text[:255]
        self._send(0, commands.Connection.Close(error.code, text, class_id, method_id))
        self._write_buffer.flush()
        self._closing = True
        self._set_timer(_CLOSE_TIMEOUT, self.abort)

    def _send(self, channel: int, method: base.Frame) -> None:
        self.write(write_method(channel, method))

    def _send_heartbeat(self) -> None:
        """Send a heartbeat twice per interval; abort after two intervals without data."""
        interval = self._handshake.heartbeat_interval
        silent_seconds = self._loop.time() - self._last_received_at
        if not interval:
            self._set_timer(0, lambda: None)
        elif silent_seconds > 2 * interval and not self._blocked:
            self.abort()
        else:
            self.write(HEARTBEAT_FRAME)
            self._set_timer(interval / 2, self._send_heartbeat)

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, action)

    def _dispatch_queues(self) -> None:
        for channel in self._channels.values():
            for subscription in list(channel.subscriptions.values()):
                subscription.queue.dispatch()


def _failed_method(frame: Frame) -> bytes:
    """The class and the method that failed; content belongs to basic.publish."""
    return frame.payload[:4].ljust(4, b"\0") if frame.frame_type == FRAME_METHOD else PUBLISH_METHOD
