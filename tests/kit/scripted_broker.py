"""A broker that answers the methods of a client, and sends what a test gives it."""

import asyncio
import struct
from contextlib import asynccontextmanager

from pamqp import base, commands
from pamqp import frame as pamqp_frame
from pamqp.common import FieldTable

from saga_engine.amqp import driver, tolerant_decoding
from saga_engine.amqp.handshake import open_connection
from saga_engine.vocabulary import ConnectionRole
from tests.kit.amqp_frames import decoded
from tests.kit.raw_amqp import METHOD

FRAME_MAX = 140_000

_ANSWERS = {
    "Connection.Open": commands.Connection.OpenOk(),
    "Connection.Close": commands.Connection.CloseOk(),
    "Channel.Open": commands.Channel.OpenOk(),
    "Channel.Close": commands.Channel.CloseOk(),
    "Confirm.Select": commands.Confirm.SelectOk(),
    "Basic.Consume": commands.Basic.ConsumeOk("c"),
}


class ScriptedBroker:
    """Serves one connection."""

    def __init__(self) -> None:
        self.received: list[str] = []
        """The names of the methods that the client sent."""
        self.has_ended = False
        """Whether the connection has ended."""
        self._connected = asyncio.Event()
        self._writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._connected.wait()
        self._writer.write(data)
        await self._writer.drain()

    async def send_method(self, channel: int, method: base.Frame) -> None:
        await self.send(pamqp_frame.marshal(method, channel))

    def end(self) -> None:
        """End the connection."""
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer methods until the client closes the connection."""
        self._writer = writer
        try:
            await reader.readexactly(8)
            capabilities: FieldTable = {"publisher_confirms": True, "basic.nack": True}
            start = commands.Connection.Start(0, 9, {"capabilities": capabilities}, "PLAIN", "en")
            writer.write(pamqp_frame.marshal(start, 0))
            while True:
                kind, channel, size = struct.unpack(">BHI", await reader.readexactly(7))
                payload = await reader.readexactly(size + 1)
                if kind == METHOD:
                    prefix = struct.pack(">BHI", kind, channel, size)
                    self._answer(channel, decoded(prefix + payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.has_ended = True
            writer.close()

    def _answer(self, channel: int, method: base.Frame) -> None:
        self.received.append(method.name)
        if isinstance(method, commands.Connection.StartOk):
            answer: base.Frame | None = commands.Connection.Tune(2047, FRAME_MAX, 0)
        else:
            answer = _ANSWERS.get(method.name)
        if answer is not None:
            self._writer.write(pamqp_frame.marshal(answer, channel))
        if isinstance(method, commands.Connection.Open):
            self._connected.set()


@asynccontextmanager
async def scripted_connection():
    """A broker and a connection to it that nothing supervises, so it is not opened again."""
    tolerant_decoding.install_decoders()
    broker = ScriptedBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    url = f"amqp://guest:guest@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    connection = await open_connection(url, ConnectionRole.CONSUME, 30)
    try:
        yield broker, connection
    finally:
        await driver.close(connection, driver.CLOSE_TIMEOUT)
        server.close()
