"""
A connection: frames to their channels, heartbeats, blocking, the end.

An asyncio protocol without tasks: every byte is handled when it arrives. Whatever a peer sends, the
worst that follows is the end of its own connection, with the reason (AMQP 0-9-1, section 2.2).
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
from saga_engine.embedded.broker.faults import Faults
from saga_engine.embedded.broker.frames import (
    BODY,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    PROTOCOL_HEADER,
    PUBLISH,
    Frame,
    FrameBuffer,
    read_method,
    write_method,
)
from saga_engine.embedded.broker.handshake import CHANNEL_MAX, Handshake
from saga_engine.embedded.broker.outgoing import Outgoing
from saga_engine.embedded.broker.refusal import (
    ChannelRefusal,
    ConnectionRefusal,
    Refusal,
    not_implemented,
)
from saga_engine.embedded.broker.virtual_host import VirtualHost

_GOODBYE: Final = 5.0  # Seconds a peer has to answer connection.close.
_HANDSHAKE: Final = 10.0  # Seconds a peer has to log in, RabbitMQ's handshake_timeout.
_HANDLERS: Final[Mapping[type[base.Frame], Callable[[Channel, Any], None]]] = MappingProxyType(
    {**consuming.HANDLERS, **declaring.HANDLERS, **publishing.HANDLERS}
)
_CLOSE_OK: Final = write_method(0, commands.Connection.CloseOk())
_logger = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """One client; `came` and `gone` are told when it is there and when it has left."""

    def __init__(
        self,
        host: VirtualHost,
        faults: Faults,
        users: Mapping[str, str],
        came: Callable[["Connection"], None],
        gone: Callable[["Connection"], None],
    ) -> None:
        self.host = host
        self.faults = faults
        self.user = ""
        self.frame_max = 0
        self._came = came
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._handshake = Handshake(users)
        self._greeted = False
        self._closing = False
        self._out_of_step = False
        self._buffer = FrameBuffer()
        self._channels: dict[int, Channel] = {}
        self._closing_channels: set[int] = set()
        self._alarm: str | None = None
        self._blocked = False
        self._publishes = False
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the protocol header."""
        self._transport = cast("asyncio.Transport", transport)
        self._out = Outgoing(self._transport, self._hand_out)
        self._set_timer(_HANDSHAKE, self.cut)
        self._came(self)

    def data_received(self, data: bytes) -> None:
        """Handle every frame that is complete."""
        self._heard = self._loop.time()
        if self._out_of_step:
            if data.endswith(_CLOSE_OK):
                self._transport.close()
            return
        self._buffer.feed(data)
        try:
            while (self._greeted or self._greet()) and (frame := self._buffer.next()):
                self._take(frame)
        except ConnectionRefusal as refusal:
            self._out_of_step = True  # Where the next frame begins, nobody knows.
            self._refuse(refusal, b"\0\0\0\0")
        except Exception:
            _logger.exception("The development broker failed; it ends this connection")
            self._refuse(ConnectionRefusal(541, "INTERNAL_ERROR"), b"\0\0\0\0")

    def pause_writing(self) -> None:
        """The client reads too slowly: neither deliver more nor let it ask for more."""
        self._out.fill()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._out.drain()
        if not self._blocked:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Give everything back and take exclusive queues away."""
        del error  # However it ended, the same follows.
        if self._timer:
            self._timer.cancel()
        for channel in self._channels.values():
            channel.close()
        for queue in [queue for queue in self.host.queues.values() if queue.owner is self]:
            self.host.delete_queue(queue)
        self._gone(self)

    @property
    def congested(self) -> bool:
        """Whether deliveries should wait."""
        return self._out.congested

    def write(self, written: bytes) -> None:
        """Send frames."""
        if not self._closing:
            self._out.write(written)

    def cut(self) -> None:
        """End it without a word."""
        self._transport.abort()

    def shut_down(self) -> None:
        """End it because the broker stops."""
        text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
        self._refuse(ConnectionRefusal(320, text), b"\0\0\0\0")
        self._transport.close()

    def alarm(self, reason: str | None) -> None:
        """Block this connection as soon as it publishes; None ends that."""
        self._alarm = reason
        if reason and self._publishes:
            self._block()
        if reason is None and self._blocked:
            self._blocked = False
            self._transport.resume_reading()
            if self._handshake.told_when_blocked:
                self._send(0, commands.Connection.Unblocked())

    def _block(self) -> None:
        self._blocked = True
        self._transport.pause_reading()
        if self._handshake.told_when_blocked and self._alarm:
            self._send(0, commands.Connection.Blocked(self._alarm))

    def _greet(self) -> bool:
        header = self._buffer.protocol_header()
        if header is None:
            return False
        if header != PROTOCOL_HEADER:
            self._transport.write(PROTOCOL_HEADER)  # "The version you should have asked for."
            self._transport.close()
            return False
        self._greeted = True
        self._send(0, self._handshake.greeting())
        return True

    def _take(self, frame: Frame) -> None:
        if frame.kind == HEARTBEAT:
            return
        try:
            if frame.channel == 0:
                self._take_for_connection(read_method(frame.payload))
            elif self._closing:
                return
            elif frame.channel in self._closing_channels:
                self._take_for_closing(frame)
            else:
                self._take_for_channel(frame)
        except ConnectionRefusal as refusal:
            self._refuse(refusal, _method_of(frame))

    def _take_for_connection(self, method: base.Frame) -> None:
        if isinstance(method, commands.Connection.CloseOk):
            self._transport.close()
        elif isinstance(method, commands.Connection.Close):
            self._send(0, commands.Connection.CloseOk())
            self._out.flush()
            self._transport.close()
        elif self._closing:
            return
        elif not self._handshake.done:
            self._shake_hands(method)
        elif isinstance(method, commands.Connection.UpdateSecret):
            self._send(0, commands.Connection.UpdateSecretOk())
        else:
            raise ConnectionRefusal(503, f"COMMAND_INVALID - {method.name} on channel 0")

    def _shake_hands(self, method: base.Frame) -> None:
        answer = self._handshake.answer(method)
        if answer:
            self._send(0, answer)
        if self._handshake.done:
            self.user = self._handshake.user
            self.frame_max = self._handshake.frame_max
            self._beat()

    def _take_for_closing(self, frame: Frame) -> None:
        """Until the client has said close-ok, what it sent to the old channel means nothing."""
        if frame.kind != METHOD or frame.payload.startswith(PUBLISH):
            return
        method = read_method(frame.payload)
        if isinstance(method, commands.Channel.CloseOk):
            self._closing_channels.discard(frame.channel)
        elif isinstance(method, commands.Channel.Close):
            self._send(frame.channel, commands.Channel.CloseOk())

    def _take_for_channel(self, frame: Frame) -> None:
        channel = self._channels.get(frame.channel)
        if channel is None:
            self._open_channel(frame)
            return
        try:
            self._handle(channel, frame)
        except ChannelRefusal as refusal:
            self._channels.pop(frame.channel).close()
            self._closing_channels.add(frame.channel)
            class_id, method_id = struct.unpack(">HH", _method_of(frame))
            close = commands.Channel.Close(refusal.code, refusal.text[:255], class_id, method_id)
            self._send(frame.channel, close)

    def _open_channel(self, frame: Frame) -> None:
        method = read_method(frame.payload) if frame.kind == METHOD else None
        wanted = isinstance(method, commands.Channel.Open) and self._handshake.done
        if not wanted or frame.channel > CHANNEL_MAX:
            raise ConnectionRefusal(504, "CHANNEL_ERROR - expected 'channel.open'")
        self._channels[frame.channel] = Channel(self, frame.channel)
        self._send(frame.channel, commands.Channel.OpenOk())

    def _handle(self, channel: Channel, frame: Frame) -> None:
        if frame.kind == HEADER:
            publishing.take_header(channel, frame.payload)
        elif frame.kind == BODY:
            publishing.take_body(channel, frame.payload)
        elif frame.kind != METHOD:
            raise ConnectionRefusal(501, f"FRAME_ERROR - a frame of type {frame.kind}")
        elif frame.payload.startswith(PUBLISH):
            self._publishes = True
            publishing.begin(channel, frame.payload)
            if self._alarm and not self._blocked:
                self._block()
        else:
            self._handle_method(channel, read_method(frame.payload))

    def _handle_method(self, channel: Channel, method: base.Frame) -> None:
        if channel.draft:
            raise ConnectionRefusal(505, "UNEXPECTED_FRAME - expected content, got a method")
        if isinstance(method, commands.Channel.Close):
            self._channels.pop(channel.number).close()
            self._send(channel.number, commands.Channel.CloseOk())
        elif isinstance(method, commands.Channel.Open):
            raise ConnectionRefusal(504, "CHANNEL_ERROR - second 'channel.open' seen")
        elif type(method) in _HANDLERS:
            _HANDLERS[type(method)](channel, method)
        else:
            raise not_implemented(method.name)

    def _refuse(self, refusal: Refusal, answered: bytes) -> None:
        """Say why and wait for close-ok; nothing else is sent or handled from now on."""
        if self._closing:
            return
        class_id, method_id = struct.unpack(">HH", answered)
        text = refusal.text[:255]
        self._send(0, commands.Connection.Close(refusal.code, text, class_id, method_id))
        self._out.flush()
        self._closing = True
        self._set_timer(_GOODBYE, self.cut)

    def _send(self, channel: int, method: base.Frame) -> None:
        self.write(write_method(channel, method))

    def _beat(self) -> None:
        """Send a heartbeat twice per interval; after two silent intervals the client is gone."""
        interval = self._handshake.heartbeat
        silent = self._loop.time() - self._heard
        if not interval:
            self._set_timer(0, lambda: None)
        elif silent > 2 * interval and not self._blocked:
            self.cut()
        else:
            self.write(HEARTBEAT_FRAME)
            self._set_timer(interval / 2, self._beat)

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, action)

    def _hand_out(self) -> None:
        for channel in self._channels.values():
            for subscription in list(channel.consumers.values()):
                subscription.queue.hand_out()


def _method_of(frame: Frame) -> bytes:
    """Class and method a refusal is about; content belongs to basic.publish."""
    return frame.payload[:4].ljust(4, b"\0") if frame.kind == METHOD else PUBLISH
