"""A client that sends any bytes and reads frames without interpreting them."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

from pamqp import base, commands, frame
from pamqp.common import FieldTable

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
CLOSE = commands.Connection.Close(200, "", 0, 0)


class RawAmqpClient:
    """One connection with channel 1 open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, heartbeat: int = 0) -> AsyncIterator[Self]:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        client = cls(reader, writer)
        try:
            await client._log_in(parts.path[1:] or "/", heartbeat)
            yield client
        finally:
            writer.close()

    def send(self, method: base.Frame, channel: int = 1) -> None:
        self._writer.write(frame.marshal(method, channel))

    def send_frame(self, kind: int, payload: bytes, channel: int = 1) -> None:
        self._writer.write(struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END)

    def send_bytes(self, anything: bytes) -> None:
        self._writer.write(anything)

    async def read(self) -> tuple[int, bytes]:
        """Read the type and the payload of the next frame; IncompleteReadError at the end."""
        async with asyncio.timeout(60):
            while True:
                kind, _, size = struct.unpack(">BHI", await self._reader.readexactly(7))
                payload = (await self._reader.readexactly(size + 1))[:-1]
                if kind != HEARTBEAT:
                    return kind, payload

    async def read_method(self) -> base.Frame:
        kind, payload = await self.read()
        assert kind == METHOD
        method = frame.unmarshal(struct.pack(">BHI", kind, 0, len(payload)) + payload + FRAME_END)[
            2
        ]
        assert isinstance(method, base.Frame)
        return method

    async def call(self, method: base.Frame, channel: int = 1) -> base.Frame:
        self.send(method, channel)
        return await self.read_method()

    async def read_until_close(self) -> list[base.Frame]:
        """Read methods until the broker closes the connection, and confirm each close."""
        methods = []
        while True:
            try:
                methods.append(await self.read_method())
            except (asyncio.IncompleteReadError, ConnectionError):
                return methods
            if isinstance(methods[-1], commands.Connection.Close):
                self.send(commands.Connection.CloseOk(), 0)
            if isinstance(methods[-1], commands.Channel.Close):
                self.send(commands.Channel.CloseOk())
                self.send(CLOSE, 0)

    async def _log_in(self, vhost: str, heartbeat: int) -> None:
        self.send_bytes(b"AMQP\x00\x00\x09\x01")
        await self.read_method()
        properties: FieldTable = {"capabilities": {"connection.blocked": True}}
        answer = commands.Connection.StartOk(properties, "PLAIN", "\0guest\0guest", "en_US")
        await self.call(answer, 0)
        self.send(commands.Connection.TuneOk(2047, 131_072, heartbeat), 0)
        await self.call(commands.Connection.Open(vhost), 0)
        await self.call(commands.Channel.Open())
