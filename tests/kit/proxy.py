"""
A TCP proxy before a server: it cuts, holds, delays, throttles, loses, refuses, and lies.

It handles bytes of any protocol, so it can be placed before RabbitMQ and
PostgreSQL alike.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from itertools import count
from urllib.parse import urlsplit

import pamqp.frame

CHUNK = 65_536

HEARTBEAT_BYTES = 8
"""A heartbeat of AMQP; a confirm is longer."""

_READS = count(1)


def always_answered(_: bytes) -> bool:
    """What is asked is always answered."""
    return False


def unchanged(data: bytes) -> bytes:
    """Data is forwarded as it is."""
    return data


class TcpProxy:
    """
    Forwards connections to `target`, a URL; `url` leads through it.

    `connections` counts those that ever came, `reset_connections` those that were reset,
    `affected_bytes` the bytes that were held, lost or late.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._pairs: set[ProxiedConnection] = set()
        self._server: asyncio.Server
        self._port = 0
        self._refusing = False
        self.url = ""
        self.connections = self.reset_connections = self.affected_bytes = 0
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.is_cut_request: Callable[[bytes], bool] = always_answered
        self.lost_answers = 0
        self.last_read = 0
        """The number of its last data that was no heartbeat, of all that came to any proxy."""
        self.from_server = ProxyDirection()  # what the server says
        self.from_client = ProxyDirection()  # what the client says

    async def start(self) -> None:
        """Listen on a free port, which stays the same."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        credentials, at, _ = self._target.netloc.rpartition("@")
        self.url = self._target._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}").geturl()

    def limit_receive_buffer(self) -> None:
        """Keep little of what the clients of connections to come send, as a wire does."""
        for listening in self._server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)

    def set_target(self, target: str) -> None:
        """Connect to another server from now on."""
        self._target = urlsplit(target)

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return sum(not pair.dropping for pair in self._pairs)

    def reset(self) -> int:
        """Reset every connection, and return how many there were."""
        cut = list(self._pairs)
        for pair in cut:
            pair.reset()
        self.reset_connections += len(cut)
        return len(cut)

    async def refuse(self) -> None:
        """Cut every connection, and refuse new ones."""
        self._refusing = True  # also those that are being forwarded for the first time
        self._server.close()
        self.reset()
        await self._server.wait_closed()

    async def accept(self) -> None:
        """Accept connections again."""
        if self._refusing:
            self._refusing = False
            await self.start()

    def pause_server_data(self) -> None:
        """Hold back the data of the server from now on."""
        self.from_server.pause()

    def pause(self) -> None:
        """Hold back all data."""
        self.from_server.pause()
        self.from_client.pause()

    def resume(self) -> None:
        """Forward the data that was held back, and all later data."""
        self.from_server.resume()
        self.from_client.resume()

    def drop_server_data(self) -> None:
        """Lose all data of the server; the data of the client still arrives."""
        self.from_server.dropping = True

    def drop_all_data(self) -> None:
        """Lose all data in both directions, without closing a connection."""
        self.from_server.dropping = self.from_client.dropping = True

    def drop_open_connections(self) -> list["ProxiedConnection"]:
        """
        Lose all later data on the open connections; new connections are not affected.

        Returns:
            Those connections.
        """
        lost = [pair for pair in self._pairs if not pair.dropping]
        for pair in lost:
            pair.dropping = True
        return lost

    def cut_before_answer(self, is_request: Callable[[bytes], bool]) -> None:
        """Forward the next request of the client, and cut the connection instead of its answer."""
        self.is_cut_request = is_request

    def clear_faults(self) -> None:
        """Forward everything again; connections that have lost data are cut."""
        lossy = self.from_server.dropping or self.from_client.dropping
        self.from_server.dropping = self.from_client.dropping = False
        self.delay_s = self.bytes_per_s = 0.0
        self.is_cut_request = always_answered
        self.resume()
        if lossy:
            self.reset()

    def inject_frame(self, frame: pamqp.frame.FrameTypes) -> None:
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
        pair = ProxiedConnection(writer, to_server)
        if self._refusing:
            pair.reset()
            return
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, to_server, self.from_client, pair))
                tasks.create_task(self._forward(from_server, writer, self.from_server, pair))
        except* ConnectionError:
            pass
        finally:
            self._pairs.discard(pair)
            pair.reset()

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: "ProxyDirection",
        pair: "ProxiedConnection",
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(CHUNK):
                self._note(data)
                held = not direction.passing.is_set()
                await direction.passing.wait()
                if self._should_drop(len(data), direction, pair):
                    continue
                if direction is self.from_client and self.is_cut_request(data):
                    pair.cut_on_answer = True
                elif direction is self.from_server and pair.cut_on_answer:
                    self.lost_answers += 1
                    return
                seconds = self.delay_s
                if self.bytes_per_s:
                    seconds += len(data) / self.bytes_per_s
                if held or seconds:
                    self.affected_bytes += len(data)
                if seconds:
                    over = asyncio.Event()
                    loop.call_later(seconds, over.set)
                    await over.wait()
                sink.write(direction.rewrite(data))
                await sink.drain()
        finally:
            sink.transport.abort()

    def _note(self, data: bytes) -> None:
        if len(data) > HEARTBEAT_BYTES:
            self.last_read = next(_READS)

    def _should_drop(
        self, size: int, direction: "ProxyDirection", pair: "ProxiedConnection"
    ) -> bool:
        if pair.dropping:
            pair.dropped_bytes += size
        if pair.dropping or direction.dropping:
            self.affected_bytes += size
        return pair.dropping or direction.dropping


class ProxyDirection:
    """What happens to bytes that go one way."""

    def __init__(self) -> None:
        self.passing = asyncio.Event()
        self.passing.set()
        self.dropping = False
        self.rewrite: Callable[[bytes], bytes] = unchanged

    def pause(self) -> None:
        self.passing.clear()

    def resume(self) -> None:
        self.passing.set()


class ProxiedConnection:
    """One connection: the client's half and the server's; `dropped_bytes` are lost so far."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self._server = client, server
        self.dropping = self.cut_on_answer = False
        self.dropped_bytes = 0
        for half in (client, server):
            half.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_closed(self) -> bool:
        """Whether the client or the server has closed it, or it was reset."""
        return self.client.transport.is_closing()

    def reset(self) -> None:
        self.client.transport.abort()
        self._server.transport.abort()


@asynccontextmanager
async def running_proxy(target: str):
    """A proxy for the time of a test."""
    proxy = TcpProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.clear_faults()
        await proxy.refuse()
