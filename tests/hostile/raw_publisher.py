"""Publishes messages byte by byte and returns the broker's confirm or refusal of each."""

import struct
from dataclasses import dataclass, field, replace

from pamqp import commands

from tests.kit.amqp_properties import (
    CORRELATION_ID,
    HEADERS,
    MESSAGE_ID,
    REPLY_TO,
    TYPE,
    content_header,
    longstr,
    shortstr,
)
from tests.kit.raw_amqp import BODY, HEADER, METHOD, RawAmqpClient

MAX_FRAME_BYTES = 100_000


@dataclass(frozen=True)
class RawMessage:
    """A message; `properties` are encoded values by flag, `headers` the entries of its table."""

    exchange: str
    routing_key: bytes
    body: bytes
    properties: dict[int, bytes] = field(default_factory=dict)
    headers: bytes = b""

    def with_properties(self, flag: int, encoded: bytes):
        """Add or replace a property; headers are added to those it has."""
        if flag == HEADERS:
            return replace(self, headers=self.headers + encoded[4:])
        return replace(self, properties=self.properties | ({flag: encoded} if flag else {}))

    @property
    def content(self) -> bytes:
        """The payload of its header frame."""
        properties = dict(self.properties)
        if self.headers:
            properties[HEADERS] = longstr(self.headers)
        flags = sorted(properties, reverse=True)  # the first property has the highest flag
        encoded = b"".join(properties[flag] for flag in flags)
        return content_header(sum(flags), encoded, len(self.body))


def raw_message(message) -> RawMessage:
    """Encode a message as the engine does, for tests that then change it."""
    named = {
        CORRELATION_ID: message.correlation_id,
        REPLY_TO: message.reply_to,
        MESSAGE_ID: message.message_id,
        TYPE: message.type,
    }
    return RawMessage(
        message.exchange,
        message.routing_key.encode(),
        message.body,
        {flag: shortstr(value.encode()) for flag, value in named.items() if value},
        b"".join(encode_header(name, value) for name, value in message.headers.items()),
    )


def encode_header(name: str, value: str | int) -> bytes:
    """One entry of a table."""
    if isinstance(value, int):
        return shortstr(name.encode()) + b"I" + struct.pack(">i", value)
    return shortstr(name.encode()) + b"S" + longstr(value.encode())


class RawPublisher:
    """Publishes over one channel in confirm mode."""

    def __init__(self, client: RawAmqpClient) -> None:
        self._client = client

    async def open_channel(self) -> None:
        await self._client.call(commands.Confirm.Select())

    async def send(self, message: RawMessage) -> str:
        """Publish a message; return the broker's error text, or an empty text after a confirm."""
        self.write(message)
        return await self._read_outcome()

    def write(self, message: RawMessage) -> None:
        """Publish a message without waiting for the confirm."""
        exchange = shortstr(message.exchange.encode())
        method = struct.pack(">HHH", 60, 40, 0) + exchange + shortstr(message.routing_key) + b"\0"
        self._client.send_frame(METHOD, method)
        self._client.send_frame(HEADER, message.content)
        for start in range(0, len(message.body), MAX_FRAME_BYTES):
            self._client.send_frame(BODY, message.body[start : start + MAX_FRAME_BYTES])

    async def _read_outcome(self) -> str:
        answer = await self._client.read_method()
        while isinstance(answer, commands.Connection.Blocked | commands.Connection.Unblocked):
            answer = await self._client.read_method()  # Its memory alarm is not tested here.
        if isinstance(answer, commands.Channel.Close):
            self._client.send(commands.Channel.CloseOk())
            await self._client.call(commands.Channel.Open())
            await self.open_channel()
            return answer.reply_text
        assert isinstance(answer, commands.Basic.Ack), answer
        return ""

    async def depth(self, queue: str) -> int:
        """The number of messages that are ready in a queue."""
        declared = await self._client.call(commands.Queue.Declare(queue=queue, passive=True))
        while isinstance(declared, commands.Basic.Ack):  # Of messages published by `write`.
            declared = await self._client.read_method()
        assert isinstance(declared, commands.Queue.DeclareOk)
        assert declared.message_count is not None
        return declared.message_count
