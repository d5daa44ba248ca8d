"""
A TCP proxy before a server: it cuts, holds, delays, throttles, loses, refuses, and lies.

What it does to a connection it does to bytes, whatever they mean, so it stands before RabbitMQ and
PostgreSQL alike.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pamqp.frame

CHUNK = 65_536


def never(_: bytes) -> bool:
    """What is asked is always answered."""
    return False


class Proxy:
    """
    Forwards connections to `target`, a URL; `url` leads through it.

    `connections` counts those that ever came, `cuts` those that were cut, `meddled` the bytes that
    were held, lost or late.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._pairs: set[Pair] = set()
        self._server: asyncio.Server
        self._port = 0
        self._refusing = False
        self.url = ""
        self.connections = self.cuts = self.meddled = 0
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.unanswered: Callable[[bytes], bool] = never
        self.answers_lost = 0
        self.down = Direction()  # what the server says
        self.up = Direction()  # what the client says

    async def start(self) -> None:
        """Listen on a free port, which stays the same for ever."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        credentials, at, _ = self._target.netloc.rpartition("@")
        self.url = self._target._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}").geturl()

    def narrow(self) -> None:
        """Keep little of what the clients of connections to come send, as a wire does."""
        for listening in self._server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)

    def aim(self, target: str) -> None:
        """Lead to another server from now on."""
        self._target = urlsplit(target)

    @property
    def open(self) -> int:
        """How many connections lead through it now, and to somewhere."""
        return sum(not pair.lost for pair in self._pairs)

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        cut = list(self._pairs)
        for pair in cut:
            pair.cut()
        self.cuts += len(cut)
        return len(cut)

    async def refuse(self) -> None:
        """Cut every connection, and let nobody connect."""
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        self._refusing = True

    async def accept(self) -> None:
        """Let them connect again."""
        if self._refusing:
            await self.start()
        self._refusing = False

    def hold(self) -> None:
        """Forward nothing that the server says, from now on; it is kept."""
        self.down.hold()

    def stall(self) -> None:
        """Forward nothing at all; it is kept."""
        self.down.hold()
        self.up.hold()

    def release(self) -> None:
        """Forward what was kept, and all that comes."""
        self.down.release()
        self.up.release()

    def half_open(self) -> None:
        """Lose all that the server says: the client's words still arrive, and nobody answers."""
        self.down.losing = True

    def black_hole(self) -> None:
        """Lose all that anybody says, without closing anything."""
        self.down.losing = self.up.losing = True

    def vanish(self) -> list["Pair"]:
        """
        Lose all that is said on the open connections, for ever; new ones are not touched.

        Returns:
            Those connections.
        """
        lost = [pair for pair in self._pairs if not pair.lost]
        for pair in lost:
            pair.lost = True
        return lost

    def leave_unanswered(self, asked: Callable[[bytes], bool]) -> None:
        """Let through what the client asks so, and cut the connection instead of the answer."""
        self.unanswered = asked

    def heal(self) -> None:
        """Forward as a wire does; connections that have lost anything are cut."""
        lossy = self.down.losing or self.up.losing
        self.down.losing = self.up.losing = False
        self.delay_s = self.bytes_per_s = 0.0
        self.unanswered = never
        self.release()
        if lossy:
            self.cut()

    def say(self, frame: pamqp.frame.FrameTypes) -> None:
        """Send an AMQP frame of the server's on every connection; each must be idle."""
        for pair in self._pairs:
            pair.client.write(pamqp.frame.marshal(frame, 0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            from_server, to_server = await asyncio.open_connection(
                self._target.hostname, self._target.port
            )
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(writer, to_server)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, to_server, self.up, pair))
                tasks.create_task(self._forward(from_server, writer, self.down, pair))
        except* ConnectionError:
            pass
        finally:
            self._pairs.discard(pair)
            pair.cut()

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: "Direction",
        pair: "Pair",
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(CHUNK):
                held = not direction.passing.is_set()
                await direction.passing.wait()
                if self._loses(len(data), direction, pair):
                    continue
                if direction is self.up and self.unanswered(data):
                    pair.unanswered = True
                elif direction is self.down and pair.unanswered:
                    self.answers_lost += 1
                    return
                seconds = self.delay_s
                if self.bytes_per_s:
                    seconds += len(data) / self.bytes_per_s
                if held or seconds:
                    self.meddled += len(data)
                if seconds:
                    over = asyncio.Event()
                    loop.call_later(seconds, over.set)
                    await over.wait()
                sink.write(data)
                await sink.drain()
        finally:
            sink.transport.abort()

    def _loses(self, size: int, direction: "Direction", pair: "Pair") -> bool:
        if pair.lost:
            pair.swallowed += size
        elif direction.losing:
            self.meddled += size
        return pair.lost or direction.losing


class Direction:
    """What happens to bytes that go one way."""

    def __init__(self) -> None:
        self.passing = asyncio.Event()
        self.passing.set()
        self.losing = False

    def hold(self) -> None:
        self.passing.clear()

    def release(self) -> None:
        self.passing.set()


class Pair:
    """One connection: the client's half and the server's; `swallowed` bytes since it was lost."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self._server = client, server
        self.lost = self.unanswered = False
        self.swallowed = 0
        for half in (client, server):
            half.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def cut(self) -> None:
        self.client.transport.abort()
        self._server.transport.abort()


@asynccontextmanager
async def proxied(target: str):
    """A proxy for the time of a test."""
    proxy = Proxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.heal()
        await proxy.refuse()
